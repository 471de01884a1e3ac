"""The runner of shards, as the environment names it, and what is refused before Ray is asked for anything."""

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.errors import ConfigError, StackError, StoreError
from alignment.stages.store import StageRef
from tasks import jobs, ray_workers, stages
from tasks.home import store
from tasks.ray_workers import compute_parts, require_answer, require_reachable
from tasks.runners import runner, shards_per_job
from tests.tasks.test_running import CONFIG, SAMPLES, rows


@pytest.fixture
def given() -> dict[str, StageRef]:
    return {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}


def test_shards_are_computed_on_threads_unless_the_environment_names_another_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert runner() == "threads"
    for name in ("ray", "jobs"):
        monkeypatch.setenv("PLUMBLINE_RUNNER", name)
        assert runner() == name
    monkeypatch.setenv("PLUMBLINE_RUNNER", "spark")
    with pytest.raises(ConfigError, match=r"^PLUMBLINE_RUNNER spark: is no runner; set it to threads, ray or jobs$"):
        runner()


def test_a_job_has_eight_shards_unless_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shards_per_job() == 8
    monkeypatch.setenv("PLUMBLINE_SHARDS_PER_JOB", "100")
    assert shards_per_job() == 100
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("PLUMBLINE_SHARDS_PER_JOB", wrong)
        with pytest.raises(ConfigError, match=rf"^PLUMBLINE_SHARDS_PER_JOB {wrong}: is no number of shards; give 1 or"):
            shards_per_job()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What workers are asked for, by Ray or as jobs, and compute at once; tasks are called as functions."""
    asked: list[tuple[int, int]] = []

    def compute(stage: Any, config: AlignConfig, refs: Any, ranges: Any) -> list[StageRef]:
        asked.extend(ranges)
        return [store().write("samples-parts", f"k-{first}-{last}", rows(last - first)) for first, last in ranges]

    for module in (ray_workers, jobs):
        monkeypatch.setattr(module, "compute_parts", compute)
    monkeypatch.setattr(stages, "unlinked", lambda given: given)
    task = stages._task
    monkeypatch.setattr(stages, "_task", lambda name: task(name).fn)
    return asked


@pytest.mark.parametrize("name", ["ray", "jobs"])
def test_elsewhere_a_stage_of_one_shard_goes_to_a_worker_too(
    name: str, elsewhere: list[tuple[int, int]], given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that the run is on may have no GPU."""
    monkeypatch.setenv("PLUMBLINE_RUNNER", name)
    config = AlignConfig.model_validate({"sampling": {"shard_prompts": 100}})
    assert stages.compute(SAMPLES, config, given).counts == {"train": 20}
    assert elsewhere == [(0, 20)]


def test_a_stage_that_is_finished_stays_so_where_the_store_deletes_nothing(
    elsewhere: list[tuple[int, int]], given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of other sizes stay then; a bucket that cannot be reached for a moment says so by a StoreError."""

    def discard(*_: Any, **__: Any) -> None:
        raise StoreError("stage store: cannot list it")

    monkeypatch.setenv("PLUMBLINE_RUNNER", "jobs")
    monkeypatch.setattr(type(store()), "discard", discard)
    assert stages.compute(SAMPLES, CONFIG, given).counts == {"train": 20}
    assert elsewhere


def test_ray_that_is_not_installed_is_named_with_the_way_out(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ConfigError, match=r"^PLUMBLINE_RUNNER ray: .* is not installed; in Plumbline's folder: pip install -e '.\[ray"
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
