"""`plumbline run` on the quickstart, in a home of its own: cold, again with all stages cached, and beside a server.

    python -m benchmarks.flow

CPU-seconds are those of the command with all processes that it starts; seconds are those of the clock. The stages of
the cold run are listed by the clock: most of them compute on one thread.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import ROOT, Row, cpu_seconds, run

BIN = Path(sys.executable).parent
TARGETS = {  # CPU-seconds, seconds
    "cold": ("≤ 90 CPU-s", None),
    "again": ("≤ 12 CPU-s", "≤ 12 s"),
    "again, a server is running": ("≤ 3 CPU-s", None),
}
COMPUTED = (0, 3)  # exit codes: registered, or refused by a gate
READY_WITHIN = 120.0  # seconds

Flags = Mapping[str, str]


@dataclass(frozen=True)
class Taken:
    """What a run took: CPU-seconds, seconds, and what it reported."""

    cpu: float
    wall: float
    result: dict[str, Any]


def plumbline(home: Path, flags: Flags, **settings: str) -> Taken:
    """Run the pipeline in a home. Raises RuntimeError where it fails."""
    out = home.parent / "result.json"
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    own = {"PLUMBLINE_HOME": str(home), "HOME": str(home.parent)}
    cpu, wall = cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        [BIN / "plumbline", "run", "--json", out, *given],
        cwd=ROOT,
        env=of_others() | own | settings,
        capture_output=True,
        text=True,
    )
    taken = cpu_seconds() - cpu, time.perf_counter() - wall
    if done.returncode not in COMPUTED:
        raise RuntimeError(f"plumbline run: {(done.stderr or done.stdout).strip()[-2000:]}")
    return Taken(*taken, json.loads(out.read_text("utf-8")))


def of_others() -> dict[str, str]:
    """The environment without what would lead to servers or databases of the caller's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A Prefect server of its own on a free port, and the address of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
    command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with subprocess.Popen(
        command, env=of_others() | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as started:
        try:
            address = f"http://127.0.0.1:{port}/api"
            until = time.monotonic() + READY_WITHIN
            while not answers(f"{address}/health"):
                if started.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("prefect server start: it does not answer")
                time.sleep(0.5)
            yield address
        finally:
            started.terminate()


def answers(url: str) -> bool:
    """Whether a server answers at an address of this machine, whatever proxy is set."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def rows(name: str, found: list[Taken]) -> Iterator[Row]:
    """What a run took, as rows of the table."""
    cpu, wall = TARGETS[name]
    again = sorted({stage for each in found for stage in computed(each)}) if name != "cold" else []
    note = f"not cached, since the code was edited meanwhile: {', '.join(again)}" if again else ""
    yield Row(name, "", median(each.cpu for each in found), target=cpu, unit="CPU-s", rounds=len(found), note=note)
    yield Row(name, "", median(each.wall for each in found), target=wall, unit="s", rounds=len(found), note=note)


def compare(rounds: int, flags: Flags) -> Iterator[Row]:
    """The rows of a cold run, its stages, and of cached runs without and with a server."""
    names = iter(TARGETS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder, "home")
        cold = plumbline(home, flags)
        yield from rows(next(names), [cold])
        for stage, seconds in cold.result["seconds"].items():
            yield Row(f"cold, {stage}", "", float(seconds), unit="s")
        yield from rows(next(names), [plumbline(home, flags) for _ in range(rounds)])
        with server(Path(folder, "prefect")) as address:
            api = {"PREFECT_API_URL": address, "NO_PROXY": "127.0.0.1,localhost"}
            yield from rows(next(names), [plumbline(home, flags, **api) for _ in range(rounds)])


def computed(taken: Taken) -> set[str]:
    """The stages that were not in the store."""
    return set(taken.result["seconds"]) - set(taken.result["cached"])


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """All rows."""
    yield from compare(asked.rounds, {})


if __name__ == "__main__":
    run(__doc__, measure, rounds=2)
