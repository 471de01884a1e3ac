"""The ordinary accidents of long jobs: each is noticed, loses nothing, and ends as an undisturbed run does."""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.stack.cluster import SERVERS, stack_on
from tests.stack.machine import FINAL, Machine, shrunken, wait_for

pytestmark = pytest.mark.stack

STEPS = 800
SETTINGS = shrunken(steps=STEPS, learning_rate=1e-5, stop_chosen_drop=0, checkpoint_every=50, log_every=50)


@pytest.fixture(scope="module", params=SERVERS)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with stack_on(request.param, tmp_path_factory.mktemp("accidents")) as found:
        yield found


@dataclass(frozen=True)
class Undisturbed:
    """What a run makes that nothing happens to."""

    policy: str
    report: str


def result(here: Machine) -> Undisturbed:
    (policy,), (report,) = here.manifests("policy"), here.manifests("report")
    return Undisturbed(policy["digest"], report["digest"])


@pytest.fixture(scope="module")
def undisturbed(here: Machine) -> Undisturbed:
    run = here.run("align", SETTINGS)
    assert here.end(run) == "COMPLETED"
    return result(here)


@pytest.fixture
def training(here: Machine, undisturbed: Undisturbed) -> str:
    """A flow run in the middle of training the same policy again."""
    for stage in ("policy", "after", "report"):
        shutil.rmtree(here.home / "store" / stage)
    run = here.run("align", SETTINGS)
    wait_for(lambda: here.checkpoint() >= 100, 120, "a checkpoint")
    assert here.slots() == 1
    return run


def test_a_cancelled_run_stops_at_once_and_the_next_goes_on_from_its_checkpoint(
    here: Machine, training: str, undisturbed: Undisturbed, figures: Any
) -> None:
    (process, *_) = here.pids(training)
    here.set_state(training, "CANCELLING", "Cancelling")
    seconds = wait_for(
        lambda: here.kind(training) == "CANCELLED" and not Path(f"/proc/{process}").exists(), 45, "the end"
    )
    kept = here.checkpoint()
    assert "press Retry" in here.artifact(training, "run")["description"]

    assert 0 < kept < STEPS
    assert [run.info.status for run in here.mlflow_runs(training)] == ["KILLED"]
    assert here.slots() == 0
    again = here.run("align", SETTINGS)
    assert here.end(again) == "COMPLETED"
    assert result(here) == undisturbed
    figures("cancelled in the UI", seconds, f"nothing: it went on from step {kept} of {STEPS}, where it stopped")


def test_a_flow_process_that_is_killed_crashes_and_a_retry_goes_on(
    here: Machine, training: str, undisturbed: Undisturbed, figures: Any
) -> None:
    kept = here.checkpoint()
    for pid in here.pids(training):
        os.kill(pid, signal.SIGKILL)
    seconds = wait_for(lambda: here.kind(training) == "CRASHED", 60, "Crashed")

    here.retry(training)
    assert here.end(training) == "COMPLETED"
    assert result(here) == undisturbed
    assert sorted(run.info.status for run in here.mlflow_runs(training)) == ["FAILED", "FINISHED"]
    assert here.slots() == 0
    figures("the flow's process killed with -9", seconds, f"at most the steps since checkpoint {kept} of {STEPS}")


def test_a_worker_killed_with_its_flow_is_found_by_the_missing_heartbeats(
    here: Machine, training: str, undisturbed: Undisturbed, figures: Any
) -> None:
    kept = here.checkpoint()
    worker = here.service("worker")
    here.kill("worker")
    for pid in here.pids(training):
        os.kill(pid, signal.SIGKILL)
    seconds = wait_for(lambda: here.kind(training) == "CRASHED", 180, "Crashed")

    here.retry(training)
    assert here.end(training) == "COMPLETED"
    again = here.service("worker")
    assert again
    assert set(again).isdisjoint(worker)
    assert result(here) == undisturbed
    assert here.slots() == 0
    figures("worker and flow killed with -9", seconds, f"at most the steps since checkpoint {kept} of {STEPS}")


def test_a_server_that_dies_comes_back_and_the_run_lives_on(
    here: Machine, training: str, undisturbed: Undisturbed, figures: Any
) -> None:
    server = here.service("prefect")
    here.kill("prefect")
    seconds = wait_for(lambda: here.kind(training) != "", 60, "an answer")

    assert here.end(training) == "COMPLETED"
    again = here.service("prefect")
    assert again
    assert set(again).isdisjoint(server)
    assert [run.info.status for run in here.mlflow_runs(training)] == ["FINISHED"]
    assert result(here) == undisturbed
    wait_for(lambda: here.slots() == 0, 90, "the free slot")
    figures("Prefect's server killed with -9", seconds, "nothing: the run went on meanwhile")


def test_twenty_runs_at_once_share_one_slot(here: Machine, undisturbed: Undisturbed, figures: Any) -> None:
    """Each has a policy of its own to train; the stages before are shared."""
    stages = ("policy", "after")
    before = {found["key"] for stage in stages for found in here.manifests(stage)}
    runs = [here.run("align", shrunken(steps=40, beta=round(0.1 + number / 100, 2))) for number in range(20)]
    most, waited = 0, ""

    def all_ended() -> bool:
        nonlocal most, waited
        most = max(most, here.slots())
        waited = waited or next(iter(here.messages("WaitingForSlot").values()), "")
        return set(here.kinds(runs)) <= FINAL

    seconds = wait_for(all_ended, 1_500, "the end of 20 runs", every=2)
    found = [made for stage in stages for made in here.manifests(stage) if made["key"] not in before]

    assert here.kinds(runs) == ["COMPLETED"] * 20
    assert len(found) == 2 * 20
    assert most == 1
    assert waited.startswith("Waits for a GPU slot")
    assert overlapping(found) == []
    assert here.slots() == 0
    figures("20 runs at once, one slot", seconds, f"none lost; never more than {most} slot taken")


def overlapping(manifests: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of stages that were computed at one time."""
    from datetime import datetime, timedelta

    spans = []
    for found in manifests:
        end = datetime.fromisoformat(found["written"])
        spans.append((end - timedelta(seconds=found["seconds"]), end, found["key"]))
    spans.sort()
    return [(one[2], other[2]) for one, other in pairwise(spans) if other[0] < one[1]]
