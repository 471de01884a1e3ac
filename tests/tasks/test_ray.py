"""Shards on Ray's workers: what they make is what threads make, also where a worker is killed at its work."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from alignment.config import AlignConfig, build_config, merge
from alignment.errors import Interrupted, StoreError
from alignment.stages.parts import parts_of
from alignment.stages.store import StageRef
from expectations import stage as validation
from tasks import running
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.progress import Event
from tasks.stages import compute
from tests.flows.small import SMALL

pytestmark = pytest.mark.full
ray = pytest.importorskip("ray")

GOAL = "validation"
SHARDED = ("samples", "scores", "pairs", "validation")
CHANGES: dict[str, Any] = {
    "base": {"steps": 20, "width": 32},
    "reward": {"steps": 10},
    "prompts": {"count": 64},
    "sampling": {"shard_prompts": 16},
}
CONFIG = build_config(merge(SMALL, CHANGES))


@pytest.fixture(scope="module", autouse=True)
def _prefect() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all of these tests: a Ray keeps the environment that it began with."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def _few_pairs_a_part() -> Iterator[None]:
    """Where the run is; a worker is told the range of its part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "PART", 24)
        yield


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_HOME", str(folder))
    return folder


@flow(name="shards")
def shards(config: AlignConfig) -> dict[str, StageRef]:
    refs: dict[str, StageRef] = {}
    for stage in PIPELINE.wanted(config, GOAL):
        refs[stage.name] = compute(stage, config, refs)
    return refs


def forget(refs: dict[str, StageRef]) -> None:
    """Have the sharded stages computed anew."""
    for name in SHARDED:
        store().discard(name, refs[name].key)
        store().discard(f"{name}-parts", refs[name].key)


@pytest.fixture(scope="module")
def on_threads(folder: Path) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(folder))
        patch.delenv("PLUMBLINE_RUNNER", raising=False)
        refs = shards(CONFIG)
        forget(refs)
    return {name: ref.digest for name, ref in refs.items()}


def test_ray_makes_what_threads_make(on_threads: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")
    events: list[Event] = []
    running.LISTENERS.append(events.append)
    try:
        refs = shards(CONFIG)
    finally:
        running.LISTENERS.remove(events.append)
    assert {name: ref.digest for name, ref in refs.items()} == on_threads
    assert len(parts_of(refs["samples"].path)) == 4
    assert len(parts_of(refs["validation"].path)) == -(-refs["pairs"].counts["built"] // 24) > 1
    told = [event.stage for event in events if event.kind == "computed" and event.stage.startswith("samples ")]
    assert sorted(told) == ["samples 0-16", "samples 16-32", "samples 32-48", "samples 48-64"]
    forget(refs)


def test_the_shard_of_a_killed_worker_is_computed_again(
    on_threads: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")
    killed: list[int] = []
    thread = threading.Thread(target=kill_a_writer, args=(killed,), daemon=True)
    thread.start()
    refs = shards(CONFIG)
    thread.join(1.0)
    assert killed, "a worker was killed between the begin and the end of a part"
    assert {name: ref.digest for name, ref in refs.items()} == on_threads
    forget(refs)


def kill_a_writer(killed: list[int]) -> None:
    """Kill the first process of another number that has a draft of a shard of samples; the draft's name says which."""
    ends = time.monotonic() + 240
    while time.monotonic() < ends and not killed:
        for draft in (store().root / ".draft").glob("samples-parts-*@*@*@*"):
            pid = int(draft.name.rsplit("@", 3)[2])
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
        time.sleep(0.002)


def test_a_run_that_is_stopped_takes_its_shards_from_the_workers(
    on_threads: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")

    def stop(event: Event) -> None:
        if event.kind == "computed" and event.stage.startswith("samples "):
            raise Interrupted("the run was asked to stop")

    running.LISTENERS.append(stop)
    try:
        with pytest.raises(Interrupted):
            shards(CONFIG)
    finally:
        running.LISTENERS.remove(stop)
    time.sleep(5.0)
    finished = list((store().root / "samples-parts").iterdir())
    assert 1 <= len(finished) < 4, "the last shard waited for a worker, and is not begun"
    refs = shards(CONFIG)
    assert {name: ref.digest for name, ref in refs.items()} == on_threads
    forget(refs)


def test_what_a_worker_raises_is_raised_here_in_its_own_words(
    on_threads: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks.ray_workers import compute_parts

    @flow(name="blind")
    def blind() -> Any:
        elsewhere = StageRef(stage="base", key="k", path=tmp_path / "gone", digest="", counts={}, seconds=0.0)
        return compute_parts(
            PIPELINE["samples"], CONFIG, {"base": elsewhere, "prompts": elsewhere}, [(0, 16), (16, 32)]
        )

    with pytest.raises(StoreError, match=r"^stage store: the worker on .* does not see .*gone"):
        blind()
