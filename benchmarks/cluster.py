"""Sampling on a cluster that is not there: a simulation of shards on 1 to 512 workers, some of which are lost.

    python -m benchmarks.cluster
    python -m benchmarks.cluster --figure docs/scale.svg

No card is used and nothing is timed: the seconds of a shard, of a start and of a hand-over are given, and what comes
out is how they add up. docs/scale.md says where each number is from.
"""

import argparse
import heapq
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DAY, HOUR = 86_400.0, 3_600.0
WORKERS = tuple(2**n for n in range(10))
PER_SHARD = (1_000, 250)  # prompts
PROMPTS, SAMPLES, TOKENS, PROMPT_TOKENS = 1_000_000, 8, 512, 128
TOKENS_PER_SECOND = 10_000.0  # of one GPU: assumed
SPREAD = 0.1  # of a shard's seconds, as the standard deviation of their logarithm: assumed
START = 90.0  # seconds until a worker has loaded the model: assumed
REPLACE = 600.0  # seconds until a lost worker's successor is there: assumed
HAND_OVER = 0.05  # seconds that the run spends on a shard, one after the other: assumed; 0.01 of CPU were measured
OVERHEAD = 1.0  # seconds that a worker spends on a shard beside computing it: assumed
LLAMA_3 = 419 / (54 * 16_384)  # losses of a GPU in a day: 419 in 54 days on 16,384 (arXiv 2407.21783, table 5)
PREEMPTIBLE = 4.0  # losses of a worker in a day, where the cloud may take it back: assumed
MOST_TRIES = 4  # a shard is computed again three times at most


@dataclass(frozen=True)
class Cluster:
    """Workers, and how they come and go; times in seconds."""

    workers: int
    losses_per_day: float = 0.0
    """Of one worker."""
    start: float = 0.0
    replace: float = 0.0
    overhead: float = 0.0
    """A worker's time for a shard beside computing it."""
    hand_over: float = 0.0
    """The run's own time for a shard; it hands one over after the other."""


@dataclass(frozen=True)
class Schedule:
    """What became of the shards."""

    seconds: float
    """From the start to the end of the last shard."""
    efficiency: float
    """Of the workers' time, the part that went into shards that were finished, without overheads."""
    losses: int
    """Workers that were lost in the midst of a shard."""
    lost: float
    """Seconds of computing that were lost with them."""
    most_tries: int
    """Of the shard that was begun most often."""


def simulate(shards: Sequence[float], cluster: Cluster, seed: int = 0) -> Schedule:
    """Compute the shards, of so many seconds each, in their order, each on the first worker that is free.

    A worker is lost after a time that is exponential, also while it starts; the shard that it had goes to the end of
    the queue, and a successor is there after `replace` seconds. The same seed gives the same schedule.
    """
    random = np.random.default_rng(seed)
    rate = cluster.losses_per_day / DAY

    def lifetime() -> float:
        return float(random.exponential(1 / rate)) if rate else float("inf")

    free = [(cluster.start, worker) for worker in range(cluster.workers)]  # when each can take a shard
    heapq.heapify(free)
    ends = [lifetime() for _ in range(cluster.workers)]  # when each is lost
    queue = deque(range(len(shards)))
    back: list[tuple[float, int]] = []  # when a shard that was lost is in the queue again
    tries = [0] * len(shards)
    handed, finished, lost, losses = 0.0, 0.0, 0.0, 0
    while queue or back:
        moment, worker = heapq.heappop(free)
        if ends[worker] <= moment:  # lost before it had anything to do
            moment = ends[worker] + cluster.replace + cluster.start
            ends[worker] = ends[worker] + cluster.replace + lifetime()
            heapq.heappush(free, (moment, worker))
            continue
        while back and back[0][0] <= moment:
            queue.append(heapq.heappop(back)[1])
        if not queue:  # a shard may still come back, from a worker that is lost later
            heapq.heappush(free, (back[0][0], worker))
            continue
        shard = queue.popleft()
        tries[shard] += 1
        handed = max(moment, handed) + cluster.hand_over
        end = handed + cluster.overhead + shards[shard]
        if ends[worker] < end:
            losses += 1
            lost += max(0.0, ends[worker] - handed)
            gone = max(ends[worker], handed)
            heapq.heappush(back, (gone, shard))
            ends[worker] = gone + cluster.replace + lifetime()
            heapq.heappush(free, (gone + cluster.replace + cluster.start, worker))
        else:
            finished = max(finished, end)
            heapq.heappush(free, (end, worker))
    efficiency = sum(shards) / (finished * cluster.workers) if finished else 0.0
    return Schedule(finished, efficiency, losses, lost, max(tries, default=0))


def shards_of(prompts_per_shard: int, seed: int = 0) -> list[float]:
    """The seconds of each shard of the whole work, with a mean of what its tokens take."""
    count = -(-PROMPTS // prompts_per_shard)
    mean = prompts_per_shard * SAMPLES * TOKENS / TOKENS_PER_SECOND
    drawn = np.random.default_rng(seed).lognormal(-(SPREAD**2) / 2, SPREAD, count)
    return [float(mean * each) for each in drawn]


@dataclass(frozen=True)
class Cell:
    """One simulated setting."""

    workers: int
    per_shard: int
    losses_per_day: float
    schedule: Schedule


def grid(workers: Sequence[int] = WORKERS, per_shard: Sequence[int] = PER_SHARD) -> Iterator[Cell]:
    """Every setting of the table."""
    for size in per_shard:
        shards = shards_of(size)
        for count in workers:
            for rate in (0.0, LLAMA_3, PREEMPTIBLE):
                cluster = Cluster(count, rate, START, REPLACE, OVERHEAD, HAND_OVER)
                yield Cell(count, size, rate, simulate(shards, cluster, seed=count))


def row_bytes(rows: int = 4_096) -> dict[str, float]:
    """Bytes of a row of the large tables, measured on synthetic rows of this work's lengths, as the stages write them.

    The texts are random words, and the ids random by a power law; real ones compress otherwise.
    """
    from alignment.rows import PAIRS
    from alignment.rows import PROMPTS as PROMPT_ROWS
    from alignment.rows import SAMPLES as SAMPLE_ROWS

    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("etaoinshrdlu"), size)) for size in random.integers(1, 9, 20_000)]

    def ids(count: int) -> list[int]:
        return [int(each) for each in np.minimum(random.zipf(1.2, count), 127_999)]

    def text(count: int) -> str:
        return " ".join(words[each % len(words)] for each in ids(count * 3 // 4))

    prompts: list[dict[str, Any]] = [
        {"prompt_id": f"{n:016x}", "prompt": text(PROMPT_TOKENS), "prompt_ids": ids(PROMPT_TOKENS), "split": "train",
         "messages": "", "columns": ""}
        for n in range(rows // SAMPLES)
    ]  # fmt: skip
    samples = [
        prompt | {"index": n, "ids": ids(TOKENS), "completion": (said := text(TOKENS)), "finished": True,
                  "text": prompt["prompt"] + said, "logprob": float(random.normal(-600, 50)), "exact_logprob": True}
        for prompt in prompts for n in range(SAMPLES)
    ]  # fmt: skip
    pairs = [
        prompt | {"pair_id": prompt["prompt_id"], "chosen": one["text"], "rejected": two["text"],
                  "chosen_ids": one["ids"], "rejected_ids": two["ids"], "chosen_score": float(random.normal()),
                  "rejected_score": float(random.normal()), "gap": float(random.normal()), "chosen_tokens": TOKENS,
                  "rejected_tokens": TOKENS, "strategy": "best_worst", "chosen_logprob": one["logprob"],
                  "rejected_logprob": two["logprob"], "exact_logprob": True, "fault": ""}
        for prompt, one, two in zip(prompts, samples[::SAMPLES], samples[1::SAMPLES], strict=True)
    ]  # fmt: skip
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, table, made in (
            ("prompts", PROMPT_ROWS, prompts),
            ("samples", SAMPLE_ROWS, samples),
            ("pairs", PAIRS, pairs),
        ):
            kept = [{key: value for key, value in row.items() if key in table.schema.names} for row in made]
            table.write(Path(folder), kept)
            found[name] = (Path(folder) / table.file).stat().st_size / len(kept)
    return found


def draw(cells: Sequence[Cell], path: Path) -> None:
    """The efficiency of each setting against the number of workers."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "plumbline"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    names = {0.0: "no loss", LLAMA_3: "losses as in Llama 3's training", PREEMPTIBLE: "4 losses a worker and day"}
    for size, style in zip(PER_SHARD, ("-", "--"), strict=True):
        for rate, colour in zip(names, ("#2b6cb0", "#2f855a", "#c05621"), strict=True):
            chosen = [cell for cell in cells if cell.per_shard == size and cell.losses_per_day == rate]
            axes.plot([cell.workers for cell in chosen], [100 * cell.schedule.efficiency for cell in chosen],
                      style, color=colour, marker=".", label=f"{size:,} prompts a shard, {names[rate]}")  # fmt: skip
    axes.set(xscale="log", xlabel="workers, one GPU each", ylabel="useful part of the GPUs' time, %", ylim=(0, 102))
    axes.set_xticks(WORKERS, [str(each) for each in WORKERS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def table(cells: Sequence[Cell]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield (
        "| workers | prompts a shard | hours, no loss | useful | hours, as Llama 3 | hours, 4 losses a day | useful "
        "| most tries |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    by = {(cell.per_shard, cell.workers, cell.losses_per_day): cell.schedule for cell in cells}
    for size, workers in dict.fromkeys((cell.per_shard, cell.workers) for cell in cells):
        none, llama, often = (by[size, workers, rate] for rate in (0.0, LLAMA_3, PREEMPTIBLE))
        yield (
            f"| {workers} | {size:,} | {none.seconds / HOUR:.2f} | {none.efficiency:.0%} | {llama.seconds / HOUR:.2f} "
            f"| {often.seconds / HOUR:.2f} | {often.efficiency:.0%} | {often.most_tries} |"
        )


def main() -> None:
    """Print the table and the bytes of a row; draw the figure where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, help="an SVG file to draw the efficiency in")
    asked = parser.parse_args()
    cells = list(grid())
    print("\n".join(table(cells)))
    print({name: round(each) for name, each in row_bytes().items()})
    if asked.figure:
        draw(cells, asked.figure)


if __name__ == "__main__":
    main()
