"""Stages under the store's lock, parts that are merged and deleted, and what Prefect's server may refuse."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from alignment.config import AlignConfig
from alignment.errors import ConfigError, DataError, Interrupted, ValidationError
from alignment.rows import SAMPLES as TABLE
from alignment.stages.parts import parts_of
from alignment.stages.plan import Pipeline, key_of
from alignment.stages.row_hash import hash_rows
from alignment.stages.store import StageRef, write_json
from flows.planning import make_plan
from tasks import checks, devices, placing, running, slots, stages
from tasks.devices import require_hosted
from tasks.following import following
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.progress import Event, Progress, StageProgress
from tasks.registry import connection, runs
from tasks.running import run_stage
from tasks.stopping import stopping_as_one

CONFIG = AlignConfig.model_validate({"sampling": {"shard_prompts": 8}})


TEXTS = PIPELINE["texts"]
SAMPLES = PIPELINE["samples"]


def rows(count: int) -> Any:
    def fill(folder: Path) -> dict[str, int]:
        blank: dict[str, Any] = dict.fromkeys(TABLE.schema.names)
        TABLE.write(folder, [blank | {"finished": True}] * count)
        hash_rows(folder)
        return {"train": count}

    return fill


def no_slot() -> Any:
    raise AssertionError("a GPU slot was asked for")


# Shards


@pytest.fixture
def refs() -> dict[str, StageRef]:
    """A base and twenty prompts."""
    return {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}


def as_functions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let tasks be plain functions, without a server; gives the parts as they are asked for."""
    asked: list[tuple[int, int]] = []

    class Part:
        def with_options(self, **_: Any) -> "Part":
            return self

        def map(self, ranges: list[tuple[int, int]], *_: Any) -> "Part":
            asked.extend(ranges)
            return self

        def result(self) -> list[StageRef]:
            folder, key = "samples-parts", key_of(SAMPLES, CONFIG, refs_of_parts)
            return [store().write(folder, f"{key}-{one}-{two}", rows(two - one)) for one, two in asked]

    refs_of_parts = {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}
    monkeypatch.setattr(stages, "_part_task", lambda _: Part())
    monkeypatch.setattr(stages, "unlinked", lambda given: given)  # as Prefect gives it to a task
    task = stages._task
    monkeypatch.setattr(stages, "_task", lambda name: task(name).fn)
    return asked


def test_samples_that_are_there_are_not_drawn_again(
    refs: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    monkeypatch.setattr(slots, "_limit", no_slot)
    asked = as_functions(monkeypatch)
    left_over = store().write("samples-parts", f"{key_of(SAMPLES, CONFIG, refs)}-0-12", rows(12))
    whole = stages.compute(SAMPLES, CONFIG, refs)
    assert asked == [(0, 8), (8, 16), (16, 20)]
    assert (whole.counts, TABLE.count(whole.path)) == ({"train": 20}, 20)
    assert [(store().root / part).exists() for part in parts_of(whole.path)] == [True] * 3
    assert not left_over.path.exists(), "of a run that was cut otherwise, and was stopped"
    parents = json.loads((whole.path / "manifest.json").read_text())["inputs"]["parents"]
    assert set(parts_of(whole.path)) < set(parents), "so that what keeps a stage keeps its parts"

    asked.clear()
    assert stages.compute(SAMPLES, CONFIG, refs).path == whole.path
    assert asked == []
    assert [event.kind for event in events] == ["started", "computed", "cached"]


def test_what_another_process_finished_meanwhile_is_not_computed(
    monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    @contextmanager
    def lock(*_: Any) -> Iterator[None]:
        store().write("texts", key_of(TEXTS, CONFIG, {}), rows(3))
        yield

    monkeypatch.setattr("alignment.stages.store.Store.lock", lock)
    assert run_stage(TEXTS, CONFIG, {}).cached
    assert [event.kind for event in events] == ["started", "cached"]


def test_a_stage_that_waited_for_a_slot_says_when_it_begins(
    monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    """Long before its first progress, as a model is loaded first."""

    @contextmanager
    def after_a_wait(_: int, on_wait: Any, on_go: Any) -> Iterator[None]:
        on_wait("another run")
        on_go()
        yield

    seen = []

    def body(job: Any) -> dict[str, int]:
        seen.append(progress.stages["texts"].state)
        count: dict[str, int] = rows(3)(job.out)
        return count

    monkeypatch.setattr(placing, "gpu_slot", after_a_wait)
    with following(Progress([StageProgress("texts", "write texts")])) as progress:
        run_stage(replace(TEXTS, slots=lambda _: 1, body=body), CONFIG, {})
    assert [event.kind for event in events] == ["started", "waiting", "started", "computed"]
    assert seen == ["running"]


SEVERAL = replace(TEXTS, slots=lambda _: 1, processes=lambda _: 2)


@pytest.mark.parametrize(("names", "slots"), [("", 1), ("0,1,2", 2)])
def test_a_stage_takes_a_slot_for_each_device(monkeypatch: pytest.MonkeyPatch, names: str, slots: int) -> None:
    """Its processes share a CPU, which is one."""
    monkeypatch.setenv("PLUMBLINE_DEVICES", names)
    assert placing.slots_of(SEVERAL, CONFIG) == slots
    assert placing.slots_of(TEXTS, CONFIG) == 0


def test_more_devices_than_there_are_are_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_DEVICES", "0")
    with pytest.raises(
        ConfigError, match=r"texts: dpo\.processes = 2 takes as many devices, and this host has 1 \(0\)"
    ):
        require_hosted(Pipeline(SEVERAL), CONFIG, store())
    store().write("texts", key_of(SEVERAL, CONFIG, {}), rows(3))
    require_hosted(Pipeline(SEVERAL), CONFIG, store())


def test_a_plan_is_refused_as_its_run_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_DEVICES", "0")
    config = AlignConfig.model_validate({"dpo": {"processes": 2, "global_batch": 8}})
    with pytest.raises(ConfigError, match=r"dpo\.processes = 2 takes as many devices, and this host has 1 \(0\)"):
        make_plan(config, store())


@pytest.mark.skipif(sys.platform != "linux", reason="the end of a parent is told by Linux alone")
def test_a_stage_on_a_device_is_computed_by_a_process_and_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: list[Event]
) -> None:
    """It waits for the device, which a stage of another home holds, and says so."""
    config = AlignConfig.model_validate({"data": {"rows": 300}})
    here = run_stage(TEXTS, config, {})
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLUMBLINE_DEVICES", "simulated")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(slots, "_limit", lambda: None)
    other = devices.bound(1, ("simulated",), lambda: None, pytest.fail)
    other.__enter__()

    def leave(event: Event) -> None:
        if event.kind == "waiting":
            other.__exit__(None, None, None)

    running.LISTENERS.append(leave)
    try:
        there = run_stage(replace(TEXTS, slots=lambda _: 1), config, {})
    finally:
        running.LISTENERS.remove(leave)
    assert (there.digest, there.counts) == (here.digest, here.counts)
    assert [event.kind for event in events[2:] if event.kind != "progress"] == [
        "started",
        "waiting",
        "started",
        "computed",
    ]


def test_a_file_that_changes_after_its_key_was_made_is_not_kept_under_it(tmp_path: Path) -> None:
    """The key is made once, before any wait for another process or a GPU slot."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfine,1\ndull,0\n")
    config = AlignConfig.model_validate({"data": {"path": str(path)}})
    key = key_of(TEXTS, config, {})

    def edit(event: Event) -> None:
        if event.kind == "started":
            path.write_text("text,label\nother,1\ndull,0\n")

    running.LISTENERS.append(edit)
    try:
        with pytest.raises(DataError, match="a file changed while it was read"):
            run_stage(TEXTS, config, {})
    finally:
        running.LISTENERS.remove(edit)
    assert store().find("texts", key) is None


def test_labels_are_asked_for_only_where_a_reward_model_is_trained_on_them() -> None:
    def fill(folder: Path) -> dict[str, int]:
        write_json(folder / "labels.json", {})
        return {"kept": 3}

    refs = {"texts": store().write("texts", "k1", fill)}
    config = AlignConfig.model_validate({"data": {"label_column": ""}})
    with pytest.raises(DataError, match=r"reward\.model = train needs labels"):
        checks.require_labels(config, refs, "")
    given = config.model_copy(update={"reward": config.reward.model_copy(update={"model": "a/model"})})
    checks.require_labels(given, refs, "")


def test_every_stage_is_a_task_of_the_name_that_its_declaration_gives() -> None:
    found = {name: stages._task(name) for name in PIPELINE}
    assert [task.name for task in found.values()] == [stage.title for stage in PIPELINE.values()]
    assert stages._part_task("samples").name == "sample shard"
    assert len({task.task_key for task in found.values()}) == len(PIPELINE)


# Stopping


def test_a_run_that_is_asked_to_stop_does_not_wait_for_another_process() -> None:
    with suppress(KeyboardInterrupt), stopping_as_one():
        of_the_run = copy_context()
        raise KeyboardInterrupt
    with store().lock("texts", key_of(TEXTS, CONFIG, {})), pytest.raises(Interrupted):
        of_the_run.run(run_stage, TEXTS, CONFIG, {})


# Validation


@pytest.fixture
def validated(tmp_path: Path) -> StageRef:
    def fill(folder: Path) -> dict[str, int]:
        check = {"name": "accepted_pairs", "scope": "set", "severity": "critical", "observed": 3, "bound": ">= 9"}
        problem = "accepted pairs 3, must be at least validation.min_pairs = 9"
        write_json(folder / "checks.json", {"checks": [check | {"passed": False}], "problem": problem})
        for name in ("accepted", "quarantined"):
            parquet.write_table(pa.table({"gap": [0.1]}), folder / f"{name}.parquet")
        return {"pairs": 4, "accepted": 3, "quarantined": 1}

    return store().write("validation", "k1", fill)


def test_a_run_that_validation_stops_shows_why_in_mlflow(
    validated: StageRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_place", connection.Place(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "files"))
    refs = {"texts": store().write("texts", "k1", rows(5)), "validation": validated}
    counts = {name: ref.counts for name, ref in refs.items()}
    with (
        pytest.raises(ValidationError, match=r"min_pairs = 9; the quarantined pairs, with reasons, are in /") as raised,
        runs.run(CONFIG, "stopped") as run_id,
    ):
        checks.require_valid.fn(validated, counts, run_id, 0.0)
    assert Path(str(raised.value).rpartition(" in ")[2]).exists()
    client = connection.client()
    files = {item.path for item in client.list_artifacts(run_id, "validation")}
    assert files == {"validation/checks.json", "validation/quarantined.parquet"}
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {
        "counts/texts/train": 5.0,
        "counts/validation/pairs": 4.0,
        "counts/validation/accepted": 3.0,
        "counts/validation/quarantined": 1.0,
    }
