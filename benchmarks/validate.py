"""Validation: the suites on pairs as the stage runs them, beside ten plain expectations of Great Expectations.

    python -m benchmarks.validate

Each in a process of its own, which has validated a few pairs before. The peer has its pairs in memory as a frame, and
ours reads them from a table and writes accepted and quarantined ones; both judge the same 1,000,000 pairs.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, Spent, in_process, run

PLAIN = "ten plain expectations"
OURS = "benchmarks.stages:stage"
COLUMNS = ["pair_id", "prompt", "chosen", "rejected", "chosen_tokens", "rejected_tokens", "gap", "strategy"]


def plain(root: str, count: int) -> Callable[[], dict[str, Any]]:
    """Ten expectations that Great Expectations ships, on a frame of the same pairs."""
    import great_expectations as gx
    import pyarrow.parquet as pq
    from great_expectations import expectations as gxe

    from alignment.rows import PAIRS

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    whole = (
        context.data_sources.add_pandas("pairs").add_dataframe_asset("pairs").add_batch_definition_whole_dataframe("a")
    )
    suite = gx.ExpectationSuite(
        "plain",
        [
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in ("pair_id", "prompt", "chosen", "rejected")),
            gxe.ExpectColumnValuesToBeUnique(column="pair_id"),
            *(
                gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=10_000)
                for name in ("chosen_tokens", "rejected_tokens", "gap")
            ),
            gxe.ExpectColumnValuesToBeInSet(column="strategy", value_set=["best_vs_worst"]),
            gxe.ExpectColumnMeanToBeBetween(column="gap", min_value=0, max_value=10),
        ],
    )

    def frame(rows: int) -> Any:
        return pq.read_table(Path(root, str(rows), "pairs", PAIRS.file), columns=COLUMNS).to_pandas()

    def judge(pairs: Any) -> dict[str, Any]:
        found = whole.get_batch({"dataframe": pairs}).validate(suite)
        assert found.success
        assert len(found.results) == 10
        return {"pairs": len(pairs)}

    from benchmarks.stages import TINY

    judge(frame(TINY))
    pairs = frame(count)
    return lambda: judge(pairs)


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """Time a pair at a tenth of the pairs and at all, and time and memory at all beside the plain expectations."""
    tenth, whole = max(1, asked.pairs // 10), asked.pairs
    found: dict[str, list[Spent]] = {"tenth": [], "whole": [], "plain": []}
    with tempfile.TemporaryDirectory() as root:
        in_process("benchmarks.stages:prepare", root=root, name="validation", counts=[tenth, whole])
        for _ in range(asked.rounds):
            found["tenth"].append(in_process(OURS, root=root, name="validation", count=tenth))
            found["whole"].append(in_process(OURS, root=root, name="validation", count=whole))
            found["plain"].append(in_process("benchmarks.validate:plain", root=root, count=whole))
    cpu = {name: median(each.cpu for each in rounds) for name, rounds in found.items()}
    peak = {name: median(each.peak for each in rounds) for name, rounds in found.items()}
    for name, count in (("tenth", tenth), ("whole", whole)):
        yield Row(f"{count:,} pairs, each", "", cpu[name] / count * 1e6, unit="CPU-µs", rounds=asked.rounds)
    ratios = [other.cpu / one.cpu for one, other in zip(found["whole"], found["plain"], strict=True)]
    yield Row(
        f"{whole:,} pairs", PLAIN, cpu["whole"], cpu["plain"], median(ratios), "≤ 12 CPU-s", "CPU-s",
        min(ratios), max(ratios), asked.rounds,
    )  # fmt: skip
    yield Row(
        f"{whole:,} pairs", PLAIN, peak["whole"], peak["plain"], peak["plain"] / peak["whole"], "≤ 1,200 MB", "MB",
        rounds=asked.rounds, note=f"{found['whole'][0].before:,.0f} MB of ours stood before the work: the imports",
    )  # fmt: skip


def flags(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark asks."""
    parser.add_argument("--pairs", type=int, default=1_000_000, help="how many pairs [1000000]")


if __name__ == "__main__":
    run(__doc__, measure, flags, rounds=1)
