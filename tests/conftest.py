"""Nothing outside `tmp_path` is written, the network is not used, and models are tiny."""

import os
from tempfile import TemporaryDirectory

os.environ |= {  # read when a library is imported, so set before any is
    "PLUMBLINE_HOME": (_while_importing := TemporaryDirectory(prefix="plumbline-")).name,  # each test has its own
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),  # on the CPU, unless asked for by name
}

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.home import TELEMETRY_OFF

os.environ |= TELEMETRY_OFF


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point everything that keeps files at a folder beside this test's own."""
    home = tmp_path.with_name(f"{tmp_path.name}-home")
    home.mkdir()  # Prefect makes its own folder only where the parent is there
    for name, folder in (
        ("PLUMBLINE_HOME", "plumbline"),
        ("HF_HOME", "huggingface"),
        ("HF_DATASETS_CACHE", "huggingface/datasets"),
        ("HF_EVALUATE_CACHE", "huggingface/evaluate"),
        ("PREFECT_HOME", "prefect"),
    ):
        monkeypatch.setenv(name, str(home / folder))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("COLUMNS", raising=False)  # a terminal's width, which who starts the tests may export


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What stages tell while they run, in order (`tasks.progress.Event`)."""
    from tasks import running

    heard: list[Any] = []
    running.LISTENERS.append(heard.append)
    yield heard
    running.LISTENERS.remove(heard.append)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny matrices are slower on several threads, and one thread adds in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_gpt2() -> Callable[..., Any]:
    """`tiny_gpt2(seed)`: a GPT-2 of two layers with random weights in evaluation mode; token 0 is BOS, EOS and padding.

    The weights are ten times GPT-2's own at the start, so that its predictions are far from uniform.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    def build(seed: int = 0, *, vocab_size: int = 50, width: int = 32, context: int = 64, dropout: float = 0.0) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=vocab_size,
                    n_positions=context,
                    n_embd=width,
                    n_layer=2,
                    n_head=2,
                    initializer_range=0.2,
                    resid_pdrop=dropout,
                    embd_pdrop=dropout,
                    attn_pdrop=dropout,
                    bos_token_id=0,
                    eos_token_id=0,
                    pad_token_id=0,
                )
            )
        return model.eval()

    return build


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of at most 300 tokens; `<|endoftext|>`, id 0, is BOS, EOS and padding."""
    from alignment.data.tokenizer import train_tokenizer

    return train_tokenizer(["a fine film", "a dull film", "the plot was fine", "the acting was dull"] * 8, 300, 64)
