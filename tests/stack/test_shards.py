"""Shards as jobs of a work pool: the same bytes as on threads, also where one is killed; a cancel takes them along."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.config import merge
from alignment.yaml_file import read_yaml
from flows.settings import QUICKSTART
from tasks.runners import TAG
from tests.stack.machine import Machine, machine, shrunken, wait_for

pytestmark = pytest.mark.stack

SETTINGS = shrunken() | {"sampling": {"shard_prompts": 8, "total_tokens": 40}}
SHARDED = ("samples", "scores", "pairs")
COMPARED = ("base", "reward", "prompts", *SHARDED)
WITHIN = 900.0


def digests(home: Path) -> dict[str, list[str]]:
    """The digests of the sharded stages of a home, and of what they read."""
    return {
        name: [json.loads(file.read_text())["digest"] for file in home.glob(f"store/{name}/*/manifest.json")]
        for name in COMPARED
    }


@pytest.fixture(scope="module")
def on_threads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("threads")
    same = merge(read_yaml(QUICKSTART), SETTINGS)  # what the deployment makes of them
    (folder / "small.yaml").write_text(yaml.safe_dump(same), encoding="utf-8")
    home = folder / "home"
    env = {name: value for name, value in os.environ.items() if name not in {"PREFECT_API_URL", "MLFLOW_TRACKING_URI"}}
    subprocess.run(
        [sys.executable, "-c", "from flows.cli.commands import main; main()", "run", "--config", folder / "small.yaml"],
        env=env | {"PLUMBLINE_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "CUDA_VISIBLE_DEVICES": ""},
        check=True,
        capture_output=True,
    )
    return digests(home)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(
        tmp_path_factory.mktemp("jobs") / "home", PLUMBLINE_RUNNER="jobs", PLUMBLINE_SHARDS_PER_JOB="2"
    ) as found:
        yield found


@pytest.fixture
def run(here: Machine) -> str:
    """A run of which nothing but its shards, and what comes after them, is to be computed."""
    for name in SHARDED:
        for folder in (name, f"{name}-parts"):
            shutil.rmtree(here.home / "store" / folder, ignore_errors=True)
    return here.run("align", SETTINGS)


def jobs(here: Machine, run: str, *kinds: str) -> list[dict[str, Any]]:
    """The jobs that a run has started, those in states of some types alone where such are named."""
    wanted: dict[str, Any] = {"parent_flow_run_id": {"any_": [run]}}
    if kinds:
        wanted["state"] = {"type": {"any_": kinds}}
    found: list[dict[str, Any]] = here.api("flow_runs/filter", {"flow_runs": wanted})
    return found


def a_job_at_samples(here: Machine, run: str) -> dict[str, Any]:
    """A job whose process has a shard of samples under way."""

    drafts = here.home / "store" / ".draft"

    def begun() -> list[dict[str, Any]]:
        at = {int(draft.name.rsplit("@", 3)[2]) for draft in drafts.glob("samples-parts-*@*@*@*")}
        return [job for job in jobs(here, run, "RUNNING") if at & set(here.pids(job["id"]))] if at else []

    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = begun()
        return bool(found)

    wait_for(is_there, WITHIN, "a job at a shard", every=0.02)
    return found[0]


def test_jobs_make_what_threads_make(here: Machine, run: str, on_threads: dict[str, list[str]]) -> None:
    assert here.end(run, WITHIN) == "COMPLETED", here.api(f"flow_runs/{run}")["state"]["message"]
    assert digests(here.home) == on_threads
    found = jobs(here, run)
    assert sorted(job["name"].rpartition(": ")[2] for job in found if "samples" in job["name"]) == [
        "samples 0-16",
        "samples 16-32",
        "samples 32-48",
    ]
    assert {job["state_type"] for job in found} == {"COMPLETED"}
    assert {tuple(job["tags"]) for job in found} == {(TAG,)}
    assert here.slots() == 0


def test_a_job_that_is_killed_is_started_again(
    here: Machine, run: str, on_threads: dict[str, list[str]], figures: Any
) -> None:
    job = a_job_at_samples(here, run)
    for pid in here.pids(job["id"]):
        os.kill(pid, signal.SIGKILL)
    seconds = wait_for(lambda: here.kind(job["id"]) == "CRASHED", 60, "Crashed")
    assert here.end(run, WITHIN) == "COMPLETED", here.api(f"flow_runs/{run}")["state"]["message"]
    assert digests(here.home) == on_threads
    figures("a job of shards killed with -9", seconds, "the shard that it was at")


def test_a_cancelled_run_takes_its_jobs_along(here: Machine, run: str, figures: Any) -> None:
    a_job_at_samples(here, run)
    started = jobs(here, run)
    here.set_state(run, "CANCELLING", "Cancelling")
    seconds = wait_for(
        lambda: here.kind(run) == "CANCELLED" and set(here.kinds([job["id"] for job in started])) <= {"CANCELLED"},
        90,
        "the end of the run and of its jobs",
    )
    wait_for(lambda: not any(here.pids(job["id"]) for job in started), 60, "the end of their processes")
    assert here.slots() == 0
    figures("a run cancelled in the UI, with its jobs", seconds, "nothing that was finished")
