"""How cost grows: 1, 2, 4 and 8 times the work of each stage, and 1,000,000 pairs where asked.

    python -m benchmarks.scale
    python -m benchmarks.scale --pairs 1000000

The real stages on synthetic prompts and tiny models, each size in a process of its own, which has run the stage on few
rows before it is measured. Ours is the larger work, theirs the single one, and the ratio how many times as much it
takes: less is better here. Peak memory is that of the whole process, imports with it.
"""

import argparse
import tempfile
from collections.abc import Iterator
from statistics import median

from benchmarks.measure import Row, Spent, in_process, run

TIMES = (1, 2, 4, 8)
PROMPTS = {  # of the single work: a second or two
    "samples": 256,
    "scores": 512,
    "pairs": 32_768,
    "validation": 65_536,  # a shard
    "reference": 1_024,
    "policy": 512,
}
MOST_TIME, MOST_MEMORY = 1.05, 1.15  # times the growth of the work, and times the memory
LARGE = ("pairs", "validation", "reference")


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """The growth of each stage, or where `--pairs` is given what so many pairs take."""
    if asked.pairs:
        yield from large(asked.pairs)
        return
    for name, single in PROMPTS.items():
        if asked.only in name:
            yield from growth(name, max(16, int(single * asked.size)), asked.rounds)


def growth(name: str, single: int, rounds: int) -> Iterator[Row]:
    """A stage's time and memory at each size."""
    found: dict[int, list[Spent]] = {times: [] for times in TIMES}
    with tempfile.TemporaryDirectory() as root:
        in_process("benchmarks.stages:prepare", root=root, name=name, counts=[times * single for times in TIMES])
        for _ in range(rounds):
            for times in TIMES:
                found[times].append(in_process("benchmarks.stages:stage", root=root, name=name, count=times * single))
    cpu = {times: median(each.cpu for each in all_of) for times, all_of in found.items()}
    peak = {times: median(each.peak for each in all_of) for times, all_of in found.items()}
    note = f"{single:,} prompts once; {peak[1]:,.0f} MB then, {found[1][0].before:,.0f} MB of them before the work"
    for times in TIMES[1:]:
        what, against = f"{name}, {times} times the work", "the single work"
        yield Row(
            what, against, cpu[times], cpu[1], cpu[times] / cpu[1], f"≤ {times * MOST_TIME:g}", "CPU-s", rounds=rounds,
            note=note if times == TIMES[-1] else "",
        )  # fmt: skip
        yield Row(what, against, peak[times], peak[1], peak[times] / peak[1], f"≤ {MOST_MEMORY:g}", "MB", rounds=rounds)


def large(count: int) -> Iterator[Row]:
    """So many pairs through `pairs`, `validation` and `reference`, which takes the log-probs that samples came with."""
    with tempfile.TemporaryDirectory() as root:
        given = {"name": LARGE[-1], "counts": [count], "per_prompt": 2, "exact": True}
        in_process("benchmarks.stages:prepare", root=root, **given)
        for name in LARGE:
            spent = in_process("benchmarks.stages:stage", root=root, name=name, count=count)
            what, note = f"{name}, {count:,} prompts", ", ".join(f"{n:,} {key}" for key, n in spent.result.items())
            yield Row(what, "", spent.cpu, unit="CPU-s", note=note)
            yield Row(what, "", spent.peak, unit="MB")


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark asks."""
    parser.add_argument("--pairs", type=int, default=0, help="in place of the growth, so many pairs through the stages")
    parser.add_argument("--size", type=float, default=1.0, help="times the size of the single work [1]")


if __name__ == "__main__":
    run(__doc__, measure, flags, rounds=1)
