"""A frontier through the real flow: a training that ends, one that diverges, and what MLflow and Prefect have of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, FrontierConfig, build_config, merge
from alignment.errors import ConfigError, InputError, TrackingError, TrainingError
from alignment.judging.frontier import CurvePoint, FrontierPoint, Reference
from alignment.training import dpo
from flows import library
from flows.cli.frontier import show
from flows.frontier import FrontierResult, frontier
from tasks import running
from tasks.progress import Event
from tasks.registry import reasons, records
from tasks.registry.listing import list_refused
from tests.flows.cli.screen import screen
from tests.flows.small import OPEN_GATES, SMALL

NAME = "walked"
TRIED = FrontierConfig(losses=("hinge",), betas=(0.5, 5.0), evaluate_every=4, held_out=10, ceiling_samples=4)
DIVERGES = 5.0


def config(**overrides: Any) -> AlignConfig:
    values = merge(SMALL, {"gates": OPEN_GATES, "registry": {"model_name": NAME, "experiment": NAME}})
    return build_config(merge(values, overrides))


@dataclass(frozen=True)
class Story:
    """A frontier of one training that ends and one that diverges; MLflow was away when the first was to be recorded."""

    result: FrontierResult
    events: list[Event]
    table: Any


@pytest.fixture(scope="module")
def story(shared_home: Path, prefect_server: None) -> Story:
    from prefect.client.orchestration import get_client

    train = dpo.train

    def diverging(model: Any, pairs: Any, settings: Any, **options: Any) -> Any:
        if settings.beta == DIVERGES:
            raise TrainingError("training diverged: loss nan at step 5; lower the learning rate")
        return train(model, pairs, settings, **options)

    log_json, away = records.log_json, ["points.json", "frontier.json"]

    def log_json_later(run_id: str, name: str, value: Any) -> None:
        if name in away:
            away.remove(name)
            refusal = TrackingError("MLflow: connection refused")
            refusal.transient = True
            raise refusal
        log_json(run_id, name, value)

    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "log_json", log_json_later)
        patch.setenv("PLUMBLINE_HOME", str(shared_home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(dpo, "train", diverging)
        running.LISTENERS.append(events.append)
        try:
            wanted = config()
            groups = {name: getattr(wanted, name) for name in AlignConfig.model_fields}
            result: FrontierResult = frontier(**groups, frontier=TRIED)
        finally:
            running.LISTENERS.remove(events.append)
        assert not away, "each was tried again"
        with get_client(sync_client=True) as client:
            (table,) = [item for item in client.read_latest_artifacts() if item.key == "frontier"]
    return Story(result, events, table)


@pytest.fixture
def client(at_home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{at_home / 'mlflow.db'}")


def points(story: Story) -> list[FrontierPoint]:
    return [FrontierPoint.of(row) for row in story.result.found[0]["points"]]


def test_each_training_is_a_child_of_one_run_and_measured_on_its_way(story: Story, client: Any) -> None:
    where = client.get_experiment_by_name(NAME).experiment_id
    found = client.search_runs([where], f"tags.`mlflow.parentRunId` = '{story.result.run_id}'")
    ends = {float(run.data.params["dpo.beta"]): run.info.status for run in found}
    assert ends == {0.5: "FINISHED", DIVERGES: "FAILED"}
    (ended,) = [run for run in found if run.info.status == "FINISHED"]
    curve = client.get_metric_history(ended.info.run_id, "Frontier/kl")
    assert [(item.step, item.value) for item in curve] == [(point.step, point.kl) for point in points(story)]
    assert [item.step for item in client.get_metric_history(ended.info.run_id, "Training/loss")] == [2, 4, 6, 8]
    assert ended.data.params["frontier.evaluate_every"] == "4"


def test_points_have_both_kls_their_errors_and_what_the_gates_make_of_them(story: Story) -> None:
    found = points(story)
    assert [(point.loss, point.beta, point.step) for point in found] == [("hinge", 0.5, 4), ("hinge", 0.5, 8)]
    for point in found:
        assert point.kl > 0
        assert min(point.reward_se, point.kl_se, point.kl_sampled_se) > 0
        assert (point.passed, point.refused_by) == (True, ())
    assert found[1].kl > found[0].kl, "it went further from the reference"


def test_what_needs_no_training_is_beside_them(story: Story) -> None:
    ceiling = [CurvePoint.of(row) for row in story.result.found[0]["ceiling"]]
    assert {0.5, 5.0} <= {point.setting for point in ceiling}, "each beta that was tried has its optimum"
    assert [CurvePoint.of(row).setting for row in story.result.found[0]["best_of_n"]] == [1, 2, 4]
    reference = Reference.of(story.result.found[0]["reference"])
    assert (reference.prompts, reference.samples) == (10, 4)
    first = CurvePoint.of(story.result.found[0]["best_of_n"][0])
    assert reference.reward == pytest.approx(first.reward), "the best of one is the reference itself"
    assert reference.reward_se == pytest.approx(first.reward_se)


def test_the_trainings_share_what_comes_before_the_policy(story: Story) -> None:
    computed = [event.stage for event in story.events if event.kind == "computed"]
    once = ("texts", "base", "reward", "scores", "pairs", "reference", "before", "reference_samples")
    assert {stage: computed.count(stage) for stage in once} == dict.fromkeys(once, 1)
    headings = [event.stage for event in story.events if event.kind == "heading"]
    assert headings == [
        "point 1 of 2: hinge, beta 0.5, lr 0.0003, seed 0",
        "point 2 of 2: hinge, beta 5, lr 0.0003, seed 0",
    ]


def test_all_of_it_is_in_mlflow_and_the_points_are_a_table_in_prefect(story: Story, client: Any) -> None:
    run_id = story.result.run_id
    kept = json.loads(Path(client.download_artifacts(run_id, "frontier.json")).read_text(encoding="utf-8"))
    assert kept == story.result.found
    figure = Path(client.download_artifacts(run_id, "plots/frontier.png")).read_bytes()
    assert figure.startswith(b"\x89PNG")
    page = Path(client.download_artifacts(run_id, "frontier.html")).read_text(encoding="utf-8")
    assert NAME in page
    table = json.loads(story.table.data)
    assert [(row["trained"], row["step"], row["gates"]) for row in table] == [
        ("hinge, β 0.5", "4", "passed"),
        ("hinge, β 0.5", "8", "passed"),
    ]
    assert story.table.description == story.result.told
    assert client.get_run(run_id).data.tags["plumbline.reason"] == story.result.told
    assert not client.search_registered_models(f"name = '{NAME}'"), "nothing is registered"


def test_neither_the_frontier_nor_its_training_has_a_verdict(story: Story, client: Any) -> None:
    """Nothing was registered, so nothing was passed or refused."""
    where = client.get_experiment_by_name(NAME).experiment_id
    ended = client.search_runs([where], "attributes.status = 'FINISHED'")
    assert len(ended) == 2
    for run in ended:
        tags = run.data.tags
        assert not {"verdict", "plumbline.verdict"} & tags.keys()
        assert tags["mlflow.note.content"].startswith("**Measured** · [frontier](#/experiments/")
        assert f"{story.result.run_id}/artifacts/frontier.html" in tags["mlflow.note.content"]
    with library.registry():
        assert not list_refused().newest


def test_what_shows_judged_runs_says_that_it_is_a_frontier_and_where_its_page_is(story: Story, client: Any) -> None:
    where = client.get_experiment_by_name(NAME).experiment_id
    run_id = story.result.run_id
    children = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'FINISHED'"
    (training,) = client.search_runs([where], children)
    asked = (library.report, library.explain, library.ratings, library.ratings_page, reasons.tell)
    for ask in asked:
        with library.registry(), pytest.raises(InputError, match="is a frontier, which") as refused:
            ask(run_id)
        assert story.result.page in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=f"is a training of the frontier {run_id[:8]}"):
        library.compare(training.info.run_id, run_id)


def test_the_terminal_shows_each_training_and_the_best_within_each_kl(story: Story) -> None:
    text = screen(lambda console: show(story.result, console), 80)
    assert max(map(len, text.splitlines()[:12])) <= 80
    assert "1 trainings" not in text
    assert "failed hinge, beta 5, lr 0.0003, seed 0: training diverged: loss nan" in " ".join(text.split())
    assert story.result.told.split(";")[0] in " ".join(text.split())


def test_samples_that_are_not_the_policy_s_own_stop_it_before_anything_is_computed(story: Story, at_home: Path) -> None:
    wanted = config(sampling={"temperature": 0.5}, registry={"experiment": "never"})
    with pytest.raises(ConfigError, match=r"sampling\.temperature = 0\.5"):
        frontier(wanted, frontier=TRIED)
