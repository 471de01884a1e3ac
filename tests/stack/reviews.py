"""A registered model with two versions that passed the gates, and what MLflow and Prefect say about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from alignment.config import merge
from flows.settings import QUICKSTART
from tasks.registry import marks
from tests.stack.browser import PICTURES
from tests.stack.machine import Machine, shrunken, wait_for

NAME = "film-reviews"
FINISHED_WITHIN = 600.0  # seconds


@dataclass
class Reviews:
    """The model on a stack."""

    stack: Machine
    passed: tuple[str, str]
    """The versions that passed."""
    refused: str
    """The MLflow run of a policy that the gates refused, and that is no version."""
    client: Any = field(repr=False)

    def aliases(self) -> dict[str, str]:
        """Each alias and its version."""
        found = self.client.get_registered_model(NAME).aliases
        return {alias: str(version) for alias, version in found.items()}

    def tags(self, version: str) -> dict[str, str]:
        """The tags of a version, those among them that MLflow's pages leave out."""
        return marks.read(self.client.get_model_version(NAME, version).tags)

    def settled(self) -> bool:
        """Whether the champion is the one that a promotion, or the receiver, put on record."""
        return bool(
            self.aliases().get("champion") == self.client.get_registered_model(NAME).tags.get("plumbline.champion")
        )

    def make_champion(self, version: str) -> None:
        """See to it that a version is the champion on record."""
        if self.aliases().get("champion") != version:
            self.client.set_registered_model_alias(NAME, "champion", version)
        wait_for(self.settled, 60, "the record of the champion")

    def register_refused(self) -> str:
        """Register the policy that the gates refused, as somebody does by hand; MLFLOW_TRACKING_URI has to be set."""
        source = self.client.get_run(self.refused).data.tags["plumbline.model_uri"]
        model = source.removeprefix("models:/")
        made = self.client.create_model_version(NAME, source, self.refused, model_id=model, await_creation_for=None)
        return str(made.version)

    def other(self) -> str:
        """A version that passed and is not the champion."""
        champion = self.aliases().get("champion")
        return next(version for version in reversed(self.passed) if version != champion)

    def smoke_tested(self, since: str) -> None:
        """Wait until a smoke test that an event started has passed."""

        def passed() -> bool:
            runs = [run for run in runs_of(self.stack, "smoke", since) if run["parameters"].get("model_name") == NAME]
            kinds = [run["state_type"] for run in runs if (run["created_by"] or {}).get("type") == "AUTOMATION"]
            assert not {"FAILED", "CRASHED"} & set(kinds), runs
            return "COMPLETED" in kinds

        wait_for(passed, FINISHED_WITHIN, "the smoke test")


def settings(**groups: Mapping[str, Any]) -> dict[str, Any]:
    """What runs in seconds and passes, or the embedded default where pictures are wanted, with some fields changed."""
    wanted = yaml.safe_load(QUICKSTART.read_text("utf-8")) if PICTURES else shrunken()
    return merge(merge(wanted, {"registry": {"model_name": NAME, "experiment": NAME}}), groups)


def make_reviews(stack: Machine) -> Reviews:
    """Train three policies on the stack: two that pass and one that does not."""
    from mlflow import MlflowClient

    runs = [
        stack.run("align", settings(dpo={"beta": 0.5})),
        stack.run("align", settings(dpo={"beta": 0.6})),
        stack.run("align", settings(dpo={"beta": 0.4}, gates={"min_gain": 100})),
    ]
    assert [stack.end(run, FINISHED_WITHIN) for run in runs] == ["COMPLETED"] * 3
    first, second, refused = (stack.mlflow_runs(run)[0] for run in runs)
    assert "plumbline.registered" not in refused.data.tags
    passed = version_of(first), version_of(second)
    return Reviews(stack, passed, refused.info.run_id, MlflowClient(stack.mlflow))


def version_of(run: Any) -> str:
    """The version that an MLflow run registered."""
    return str(run.data.tags["plumbline.registered"]).rpartition(" v")[2]


def now() -> str:
    """The time, as Prefect's filters take it."""
    return datetime.now(UTC).isoformat()


def runs_of(stack: Machine, name: str, since: str) -> list[dict[str, Any]]:
    """The flow runs of a deployment that were due after a time."""
    wanted = {
        "deployments": {"name": {"any_": [name]}},
        "flow_runs": {"expected_start_time": {"after_": since}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found: list[dict[str, Any]] = stack.api("flow_runs/filter", wanted)
    return found


def events(stack: Machine, name: str, since: str) -> list[dict[str, Any]]:
    """Prefect's events of a name after a time."""
    wanted = {"filter": {"event": {"name": [name]}, "occurred": {"since": since}}}
    found: list[dict[str, Any]] = stack.api("events/filter", wanted)["events"]
    return found
