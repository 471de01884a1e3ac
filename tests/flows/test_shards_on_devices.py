"""On a device, the parts of a stage are computed by one process, and are what they are without a device."""

import sys
from typing import Any

import pytest
from prefect import flow

from alignment.stages.launch import Worker
from alignment.stages.store import StageRef
from tasks import placing, slots
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.stages import compute
from tests.alignment.chain import config


@flow(name="a few shards")
def samples() -> dict[str, StageRef]:
    refs: dict[str, StageRef] = {}
    for stage in PIPELINE.wanted(config(), "samples"):
        refs[stage.name] = compute(stage, config(), refs)
    return refs


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="the end of a parent is told by Linux alone")
def test_on_a_device_all_parts_are_computed_by_one_process_and_are_the_same(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = samples()
    for name in ("samples", "samples-parts"):
        store().discard(name, here["samples"].key)
    monkeypatch.setenv("PLUMBLINE_DEVICES", "simulated")
    monkeypatch.setattr(slots, "_limit", lambda: None)
    started, computed = [], []

    class Counted(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

        def compute(self, *arguments: Any) -> Any:
            made = super().compute(*arguments)
            assert self._child is not None
            computed.append(self._child.pid)
            return made

    monkeypatch.setattr(placing, "Worker", Counted)
    there = samples()
    assert there["samples"].digest == here["samples"].digest
    assert len(started) == 1
    assert len(computed) == 3
    assert len(set(computed)) == 1
