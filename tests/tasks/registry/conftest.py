"""An MLflow database per module, a run in it, and a tiny model logged on a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.registry import connection, models, records, runs
from tests.tasks.registry.judged import CONFIG, JUDGEMENT, REPORT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow home")


@pytest.fixture
def local(home: Path) -> Iterator[None]:
    """The tests of a module write to one database: making it takes seconds."""
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    yield
    connection._place = before


@pytest.fixture
def run_id(local: None) -> str:
    return runs.start_run(CONFIG, "a run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of one layer and a byte-level BPE, as `save_pretrained` writes them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["the film was good", "the film was bad"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<eos>", eos_token="<eos>")
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    path = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def logged(home: Path, folder: Path) -> tuple[str, str]:
    """A run and the address of the model on it: logging one takes a second."""
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    run = runs.start_run(CONFIG, "with a model")
    records.log_evaluation(run, REPORT, JUDGEMENT)
    uri = models.log_model(run, folder, CONFIG, "the film", card="# A card")
    connection._place = before
    return run, uri
