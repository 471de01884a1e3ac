"""Measures work beside a peer's in turns, or in a process of its own; what came out is a table, and JSON."""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GX_ANALYTICS_ENABLED": "false",
}

ROOT = Path(__file__).parents[1]
MB = 1e6  # bytes
LIBRARIES = ("torch", "transformers", "trl", "prefect", "mlflow", "great-expectations")

Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A figure of ours beside one to compare with; `ratio` is above 1 where ours is the better one.

    `least` and `most` are the ratio's range over the rounds. Where the machine cannot run it, `ours` is None, and
    `note` says why.
    """

    what: str
    against: str
    ours: float | None
    theirs: float | None = None
    ratio: float | None = None
    target: str | None = None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    rounds: int = 1
    note: str = ""


@dataclass(frozen=True)
class Side:
    """An implementation: `work` returns how many units it did of what `prepare`, which is not measured, made for it."""

    name: str
    work: Callable[[Any], float]
    prepare: Callable[[], Any] = lambda: None


def rate(side: Side, clock: Clock) -> float:
    """The units per second of one round, on as many threads as before."""
    import torch

    threads = torch.get_num_threads()
    given = side.prepare()
    torch.set_num_threads(threads)  # placing a model may have set others
    started = clock()
    done = side.work(given)
    spent = clock() - started
    torch.set_num_threads(threads)
    return done / spent


def race(
    what: str,
    unit: str,
    ours: Side,
    peers: Mapping[str, Sequence[Side]],
    *,
    targets: Mapping[str, str] | None = None,
    rounds: int = 3,
    clock: Clock = time.process_time,
) -> list[Row]:
    """Run ours and every peer in turn, after a round that warms up; one row for each peer.

    A peer has several settings: all run in the warm-up, and the fastest alone after it. Ratios are taken round by
    round, since whatever slows the machine down slows all.
    """
    rate(ours, clock)
    best = {name: max(sides, key=lambda side: rate(side, clock)) for name, sides in peers.items()}
    found = [{"": rate(ours, clock)} | {name: rate(side, clock) for name, side in best.items()} for _ in range(rounds)]
    rows = []
    for name, side in best.items():
        ratios = [each[""] / each[name] for each in found]
        rows.append(
            Row(
                what,
                name if side.name == name else f"{name}, {side.name}",
                statistics.median(each[""] for each in found),
                statistics.median(each[name] for each in found),
                statistics.median(ratios),
                (targets or {}).get(name),
                unit,
                min(ratios),
                max(ratios),
                rounds,
            )
        )
    return rows


@dataclass(frozen=True)
class Spent:
    """What work took in a process of its own: CPU-seconds with its children's, seconds, MB, and what it returned.

    `peak` is the most memory that the process had, and `before` the most that it had until the work began.
    """

    cpu: float
    wall: float
    peak: float
    before: float
    result: Any


def in_process(function: str, **given: Any) -> Spent:
    """Call `package.module:function` with arguments that JSON knows in a new Python, and measure what that gives to do.

    Raises RuntimeError where that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "spent.json")
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.measure", function, json.dumps(given), str(out)]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{function}: {done.stderr.strip()[-2000:]}")
        return Spent(**json.loads(out.read_text("utf-8")))


def cpu_seconds() -> float:
    """What this process and its children that have ended took of the processors, in user and system mode."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def peak_memory() -> float:
    """The most memory in MB that this process had; `getrusage` also counts what its parent had when it was started."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / MB


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on: processor, memory, system, versions, and the commit."""
    import platform

    import torch

    capabilities = {**torch.cpu.get_capabilities()}
    names = ("avx2", "avx512", "avx512_f", "bf16", "avx512_bf16", "amx_bf16", "neon", "sve")
    has_gpu = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "instructions": [name for name in names if capabilities.get(name)],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "commit": _output("git", "rev-parse", "--short", "HEAD") + ("+" if _output("git", "status", "--short") else ""),
    }


def run(
    doc: str,
    measure: Callable[[argparse.Namespace], Iterator[Row]],
    flags: Callable[[argparse.ArgumentParser], None] = lambda _: None,
    *,
    rounds: int = 3,
    arguments: Sequence[str] | None = None,
) -> list[Row]:
    """The command of a benchmark: measure, print the table, and write `--json`."""
    import torch

    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the machine and the rows to")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds after the one that warms up [{rounds}]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each side [1]")
    parser.add_argument("--only", default="", help="measure only rows whose name holds this text")
    flags(parser)
    asked = parser.parse_args(arguments)
    quiet()
    torch.set_num_threads(asked.threads)
    rows: list[Row] = []
    for row in measure(asked):
        rows.append(row)
        print(f"{row.what}: {figure(row.ours)} {row.unit}; {row.note or 'done'}", file=sys.stderr)
    about = machine(asked.threads)
    show(doc.splitlines()[0], rows, about)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": about, "rows": list(map(asdict, rows))}, indent=1), "utf-8")
    return rows


def show(title: str, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Print the rows as a table of at most 100 columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=one_line(about), caption_justify="left")
    for name in ("what", "against", "ours", "theirs", "ratio", "range", "target"):
        table.add_column(name, justify="left" if name in ("what", "against") else "right", overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    console = Console()
    console.width = min(100, console.width) if console.is_terminal else 100
    console.print(table)
    for note in dict.fromkeys(f"{row.what}: {row.note}" for row in rows if row.note):
        console.print(note, highlight=False)


def cells(row: Row) -> list[str]:
    """A row as a table has it: what it is with its unit, and each figure with three digits."""
    spread = "" if row.least is None or row.most is None else f"{figure(row.least)}–{figure(row.most)}"
    what = f"{row.what}, {row.unit}" if row.unit else row.what
    ours = row.note if row.ours is None else figure(row.ours)
    return [what, row.against, ours, figure(row.theirs), figure(row.ratio), spread, row.target or ""]


def figure(value: float | None) -> str:
    """A number with three digits, or nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def one_line(about: Mapping[str, Any]) -> str:
    """A machine in a line."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['processor']} ({', '.join(about['instructions'])}), {about['cores']} cores, {about['threads']} "
        f"threads, {about['memory_gb']} GB, {about['os']}, Python {about['python']}, {versions}, GPU: "
        f"{about['gpu'] or 'none'}, commit {about['commit']}"
    )


def quiet() -> None:
    """Only the tables are printed."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _version(library: str) -> str:
    """An installed library's version, or nothing: a machine with a GPU need not have the servers."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(function: str, given: str, out: str) -> None:
    """What `in_process` starts; torch, where it is imported, has the threads of the environment."""
    quiet()
    module, name = function.split(":")
    work = getattr(importlib.import_module(module), name)(**json.loads(given))
    before, cpu, wall = peak_memory(), cpu_seconds(), time.perf_counter()
    result = work()
    spent = Spent(cpu_seconds() - cpu, time.perf_counter() - wall, peak_memory(), before, result)
    Path(out).write_text(json.dumps(asdict(spent)), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
