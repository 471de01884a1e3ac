"""Sampling and DPO on a GPU beside `generate` and TRL, and beside the rates that the card reaches on plain work.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --samples 50000 --steps 3000

GPT-2 small's shape and one of 1B, in bf16, by the clock and synchronised. The card's matrix rate is that of bf16
products of 8,192 x 8,192, and its copy rate that of a large copy, bytes read and written. A training's arithmetic is
counted as 6 operations per parameter and token, and a sampling's as 2; what is copied is at least the weights once per
token of a row, and each row's cache. Without a card each row says so.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import generate, models, train
from benchmarks.measure import Row, run

NO_GPU = "no GPU"
SHAPES: dict[str, Callable[[], Any]] = {"GPT-2 small": models.gpt2_small, "1B": models.one_billion}
BATCHES = (256, 1_024, 4_096)
PAIRS = 16  # of a step
MATRIX, COPY = "the card's matrix rate", "the card's copy rate"
PEERS = {
    "sampling": (generate.GENERATE, MATRIX, COPY),
    "training": (train.WITH_REFERENCE, train.PRECOMPUTED, MATRIX),
}
SIDE, REPEATS = 8_192, 20


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """All rows, or for each one that there is no card."""
    for name, shape in SHAPES.items():
        for work, peers in PEERS.items():
            what = f"{name}, {work}"
            if asked.only not in what:
                continue
            if not torch.cuda.is_available():
                yield from (Row(what, peer, None, note=NO_GPU) for peer in peers)
            else:
                yield from (sampling if work == "sampling" else training)(what, shape, asked)
                torch.cuda.empty_cache()


def sampling(what: str, shape: Callable[[], Any], asked: argparse.Namespace) -> Iterator[Row]:
    """Samples per second beside `generate`, and what of the card that is."""
    batches = tuple(rows for rows in BATCHES if rows <= asked.samples) or (asked.samples,)
    case = generate.Case(what, lambda: placed(shape).bfloat16(), asked.samples, 0, batches)
    rows = generate.compare(case, asked.rounds, clock=clock)
    yield from rows
    rate, model = rows[0].ours or 0.0, shape()
    yield fraction(what, MATRIX, rate * case.new_tokens * 2 * weights(model), matrix_rate())
    tokens = models.PROMPT_TOKENS + case.new_tokens
    read = 2 * weights(model) * case.new_tokens / asked.samples + cache_bytes(model) * case.new_tokens * tokens / 2
    yield fraction(what, COPY, rate * read, copy_rate())


def training(what: str, shape: Callable[[], Any], asked: argparse.Namespace) -> Iterator[Row]:
    """Pairs per second beside TRL, and what of the card that is."""
    case = train.Case(what, lambda: placed(shape), PAIRS, asked.steps, precision="bf16")
    rows = list(train.compare(case, asked.rounds, clock=clock))
    yield from rows
    model = shape()
    pairs = models.pairs(model.config.vocab_size, PAIRS * asked.steps, vary=True)
    tokens = sum(sum(map(len, pair.values())) for pair in pairs) / len(pairs)
    yield fraction(what, MATRIX, (rows[0].ours or 0.0) * tokens * 6 * weights(model), matrix_rate())


def placed(shape: Callable[[], Any]) -> Any:
    """A model on the card."""
    from alignment.device import place

    return place(shape())


def clock() -> float:
    """Seconds, once the card has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def weights(model: Any) -> int:
    """The parameters that multiply each token: all but tables that are only looked up."""
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings().weight
    looked_up = sum(table.numel() for table in tables if table is not head)
    return int(sum(weight.numel() for weight in model.parameters()) - looked_up)


def cache_bytes(model: Any) -> float:
    """The bytes in bf16 of a token's keys and values."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return float(2 * 2 * config.num_hidden_layers * heads * config.hidden_size / config.num_attention_heads)


def fraction(what: str, against: str, ours: float, theirs: float) -> Row:
    """What of a rate of the card is reached, both in 10^12 per second."""
    unit = "TFLOP/s" if against == MATRIX else "TB/s"
    return Row(what, against, ours / 1e12, theirs / 1e12, ours / theirs, unit=unit)


def matrix_rate() -> float:
    """Operations per second of products in bf16."""
    one = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    return 2 * SIDE**3 / timed(lambda: one @ one)


def copy_rate() -> float:
    """Bytes read and written per second."""
    one = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    other = torch.empty_like(one)
    return 2 * one.numel() / timed(lambda: other.copy_(one))


def timed(work: Callable[[], Any]) -> float:
    """The seconds that work takes, once it is warm."""
    work()
    started = clock()
    for _ in range(REPEATS):
        work()
    return (clock() - started) / REPEATS


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark asks."""
    parser.add_argument("--samples", type=int, default=4_096, help="samples of a round [4096]")
    parser.add_argument("--steps", type=int, default=30, help=f"steps of {PAIRS} pairs of a round [30]")


if __name__ == "__main__":
    run(__doc__, measure, flags, rounds=2)
