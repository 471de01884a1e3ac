"""Models of a few thousand random weights, and the pipeline run through once; no test changes any of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from alignment.stages.parts import parts_of
from tasks.pipeline import PIPELINE
from tests.alignment.chain import Chain, config

CONTEXT = 16


@pytest.fixture(scope="session")
def base(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Any:
    """A random GPT-2 that sees 16 tokens, and its tokenizer."""
    from alignment.models import Loaded

    return Loaded(tiny_gpt2(vocab_size=len(tiny_tokenizer), width=8, context=CONTEXT), tiny_tokenizer)


@pytest.fixture(scope="session")
def reward(tiny_tokenizer: Any) -> Any:
    """A random DistilBERT that sees 16 tokens, with the classes NEGATIVE and POSITIVE."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from alignment.models import Loaded

    config = DistilBertConfig(
        vocab_size=len(tiny_tokenizer),
        max_position_embeddings=CONTEXT,
        dim=8,
        hidden_dim=32,
        n_layers=1,
        n_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DistilBertForSequenceClassification(config)
    return Loaded(model.eval(), tiny_tokenizer)


@pytest.fixture(scope="session")
def base_folder(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random GPT-2 in the `save_pretrained` layout."""
    from alignment import models

    folder = tmp_path_factory.mktemp("base")
    models.save(base, folder)
    return folder


@pytest.fixture(scope="session")
def reward_folder(reward: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random DistilBERT in the `save_pretrained` layout."""
    from alignment import models

    folder = tmp_path_factory.mktemp("reward")
    models.save(reward, folder)
    return folder


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Every stage but the anchor's, the samples in shards of 5, 5 and 2 prompts."""
    chain = Chain(tmp_path_factory.mktemp("chain"), config())
    for stage in PIPELINE.wanted(chain.config):
        chain.folders[stage.name] = chain.run(stage.name)
    return chain


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A Parquet file as a list of dicts, or those of a stage's parts."""
    root = path.parent.parent.parent
    files = [root / part / path.name for part in parts_of(path.parent)] or [path]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def rows(chain: Chain) -> Callable[[str, str], list[dict[str, Any]]]:
    """`rows(stage, file)` of the chain."""
    return lambda stage, file: read_rows(chain.folders[stage] / file)
