"""Measures the speed of two implementations of the same work, which take turns, and prints the figures as a table."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

import torch
from rich.console import Console
from rich.table import Table
from transformers import GPT2Config, GPT2LMHeadModel


@dataclass(frozen=True)
class Side:
    """One of two implementations: its name, and a function that does the work and returns how many units it did."""

    name: str
    work: Callable[[], int]


@dataclass(frozen=True)
class Race:
    """Units per second of both sides, one figure per round, and the number of CPU threads that both had."""

    ours: list[float]
    theirs: list[float]
    threads: int

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, round by round, since whatever slows the machine down slows both."""
        return [one / two for one, two in zip(self.ours, self.theirs, strict=True)]


def gpt2(layers: int, width: int, vocabulary: int, context: int) -> GPT2LMHeadModel:
    """A GPT-2 of random weights, always the same, without dropout; token 0 is BOS, EOS and padding."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 32),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def race(ours: Side, theirs: Side, rounds: int) -> Race:
    """Run both in turn for `rounds` rounds, after one that warms up."""
    found = Race([], [], torch.get_num_threads())
    for number in range(-1, rounds):
        for side, rates in ((ours, found.ours), (theirs, found.theirs)):
            started = time.perf_counter()
            done = side.work()
            if number >= 0:
                rates.append(done / (time.perf_counter() - started))
    return found


def show(title: str, unit: str, races: dict[str, tuple[Side, Side, Race]]) -> None:
    """Print one row per size: the medians of both sides, and the median ratio with its range."""
    table = Table(title=f"{title}, {unit} per second", title_justify="left")
    ours, theirs, _ = next(iter(races.values()))
    for name in ("model", "threads", ours.name, theirs.name, "ratio", "least", "most"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for size, (_, _, found) in races.items():
        rates = [f"{statistics.median(side):,.1f}" for side in (found.ours, found.theirs)]
        ratios = [f"{figure(found.ratios):.2f}" for figure in (statistics.median, min, max)]
        table.add_row(size, str(found.threads), *rates, *ratios)
    Console().print(table)
