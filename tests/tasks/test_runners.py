"""The runner of shards, as the environment names it; what a worker cannot see, or would compute otherwise, is said."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.errors import ConfigError, StackError, StoreError
from alignment.stages.plan import lineage
from alignment.stages.store import StageRef
from tasks import ray_workers, stages
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.ray_workers import (
    compute_part,
    compute_parts,
    require_answer,
    require_reachable,
    require_same,
    require_visible,
)
from tasks.runners import runner
from tests.tasks.test_running import CONFIG, SAMPLES, rows


@pytest.fixture
def given() -> dict[str, StageRef]:
    return {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}


def test_shards_are_computed_on_threads_unless_the_environment_names_another_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runner() == "threads"
    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")
    assert runner() == "ray"
    monkeypatch.setenv("PLUMBLINE_RUNNER", "spark")
    with pytest.raises(ConfigError, match=r"^PLUMBLINE_RUNNER spark: is no runner; set it to threads or ray$"):
        runner()


def test_on_ray_a_stage_of_one_shard_goes_to_a_worker_too(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that the run is on may have no GPU."""
    asked: list[Any] = []

    def on_ray(stage: Any, config: AlignConfig, refs: Any, ranges: Any) -> list[StageRef]:
        asked.extend(ranges)
        return [store().write("samples-parts", f"k-{first}-{last}", rows(last - first)) for first, last in ranges]

    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")
    monkeypatch.setattr(ray_workers, "compute_parts", on_ray)
    monkeypatch.setattr(stages, "unlinked", lambda given: given)
    task = stages._task
    monkeypatch.setattr(stages, "_task", lambda name: task(name).fn)
    config = AlignConfig.model_validate({"sampling": {"shard_prompts": 100}})
    assert stages.compute(SAMPLES, config, given).counts == {"train": 20}
    assert asked == [(0, 20)]


def test_ray_that_is_not_installed_is_named_with_the_way_out(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ConfigError, match=r"^PLUMBLINE_RUNNER ray: .* is not installed; pip install 'plumbline\[ray\]'"
    ):
        compute_parts(SAMPLES, CONFIG, given, [(0, 20)])


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nothing_listens_is_refused_at_once(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    with pytest.raises(StackError) as raised:
        require_answer(f"{scheme}127.0.0.1:{free}")
    assert str(raised.value) == (
        f"RAY_ADDRESS {scheme}127.0.0.1:{free}: no Ray answers there (Connection refused); begin one by `ray start "
        "--head`, correct the address, or unset RAY_ADDRESS for workers on this machine alone"
    )


def test_an_address_that_answers_or_is_none_is_left_to_ray(port: int) -> None:
    for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}", f"[::ffff:127.0.0.1]:{port}", "auto", "local"):
        require_answer(address)


def test_workers_of_other_machines_need_a_prefect_that_they_reach() -> None:
    here, others = "10.0.0.5", ["10.0.0.5", "10.0.0.7"]
    for api in ("http://127.0.0.1:4200/api", "http://localhost:4200/api", ""):
        require_reachable(api, [here], here)
        with pytest.raises(StackError, match=r"^Ray: the worker on 10\.0\.0\.7 cannot report .* set PREFECT_API_URL"):
            require_reachable(api, others, here)
    require_reachable("https://prefect.example/api", others, here)


# What a worker does before it computes


def test_a_stage_that_a_worker_does_not_see_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    ref = StageRef(stage="base", key="k", path=tmp_path / "elsewhere", digest="", counts={}, seconds=0.0)
    with pytest.raises(StoreError, match=r"does not see .*elsewhere, which the stage base .*PLUMBLINE_STORE name"):
        require_visible({"base": ref})
    require_visible({"base": ref.model_copy(update={"origin": "s3://bucket"})})


def test_a_worker_with_other_code_or_versions_is_refused(given: dict[str, StageRef]) -> None:
    here = lineage(SAMPLES, CONFIG, given)
    require_same("samples", here, here)
    for change, told in (
        ({"code": "other"}, r"^Ray: the worker on .* has other code for the stage samples than the run; install"),
        ({"libraries": here["libraries"] | {"torch": "9.9.9"}}, r"other libraries .*, such as torch .* for 9\.9\.9; "),
        ({"config": here["config"] | {"seed": 7}}, r"other config .*, such as seed 0 for 7; "),
    ):
        with pytest.raises(StackError, match=told):
            require_same("samples", here | change, here)


def test_how_a_library_was_built_for_a_machine_is_left_to_the_machine(given: dict[str, StageRef]) -> None:
    here = lineage(SAMPLES, CONFIG, given)
    cpu, gpu = (here | {"libraries": {"torch": f"2.13.0+{build}"}} for build in ("cpu", "cu126"))
    require_same("samples", cpu, gpu)


def test_a_worker_writes_under_the_key_of_the_run_and_asks_for_no_slot(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own build of a library is in the key that it would have by itself."""
    wanted = lineage(SAMPLES, CONFIG, given)
    wanted["libraries"] = wanted["libraries"] | {"torch": wanted["libraries"]["torch"].partition("+")[0] + "+other"}
    told: dict[str, Any] = {}

    def run_stage(stage: Any, config: AlignConfig, refs: Any, **options: Any) -> StageRef:
        told.update(options, stage=stage.name)
        return given["base"]

    monkeypatch.setattr(ray_workers, "run_stage", run_stage)
    compute_part((8, 16), "samples", CONFIG, given, wanted)
    assert told == {"stage": "samples", "part": (8, 16), "made_of": wanted, "is_placed": True}


def test_every_stage_in_parts_can_be_asked_for_by_its_name() -> None:
    assert {name for name, stage in PIPELINE.items() if stage.parts} == {"samples", "scores", "pairs", "validation"}
