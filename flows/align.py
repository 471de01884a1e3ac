"""The main flow: from prompts to a registered, aligned model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel

from alignment.config import AlignConfig
from alignment.config.label import label
from alignment.judging.card import gates_table, in_markdown, result_table
from alignment.judging.report import EvalReport, Judgement
from alignment.stages.plan import Pipeline
from alignment.stages.stage import Refs
from alignment.stages.store import StageRef
from flows.flow import work_begins
from flows.form import config_flow
from flows.shards import require_startable
from tasks.checks import require_labels, require_new, require_valid, warn_of_reward
from tasks.curve import complete_curve
from tasks.devices import require_hosted
from tasks.evaluation import apply_gates, read_report, require_gates
from tasks.following import expected_progress, following
from tasks.home import home, prepare_environment, store, tracking_uri
from tasks.pipeline import PIPELINE
from tasks.progress import ALONE, Points
from tasks.publishing import log_model, record_run
from tasks.refusals import announce_refusal
from tasks.registry import runs
from tasks.registry.downloads import with_local_models
from tasks.registry.registration import Registration
from tasks.reports import PAGE
from tasks.run_page import page_of_run, run_page
from tasks.showing import linked, show_result
from tasks.stages import compute, unlinked
from tasks.stopping import stopping_as_one

Then = Callable[[AlignConfig, Refs, str], None]

AFTER: dict[str, Then] = {
    "texts": require_labels,
    "reward": warn_of_reward,
    "prompts": require_new,
    "validation": lambda config, refs, run_id: require_valid(
        refs["validation"],
        unlinked({name: ref.counts for name, ref in refs.items()}),
        run_id,
        config.validation.min_gap,
    ),
    "policy": lambda _, refs, run_id: complete_curve(refs["policy"], run_id),
    "trajectory": lambda _, refs, run_id: complete_curve(refs["trajectory"], run_id),
}
"""What is done once a stage is finished, whether it was computed or found in the store; it may stop the run."""

R = TypeVar("R")


@dataclass(frozen=True)
class Judged:
    """A policy that was trained and judged: its finished stages and the verdict."""

    refs: dict[str, StageRef]
    judgement: Judgement


class AlignResult(BaseModel):
    """What a finished run reports: to the command line, to Prefect, to Python, and to `--json`."""

    run_id: str
    experiment: str
    where: str
    model: dict[str, Any] | None  # the version that passed
    registered: str  # what became of it in the registry, in words; of a refused one too that is a version already
    report: EvalReport
    judgement: Judgement
    pairs: dict[str, int]
    seconds: dict[str, float]
    cached: list[str]
    folders: dict[str, str] = {}  # each stage's folder in the store

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """What the gates made of it."""
        return self.judgement.verdict

    @property
    def version(self) -> str | None:
        """The address of the registered version, `models:/name/3`; None where a gate refused it."""
        return None if self.model is None else str(self.model["uri"])

    @property
    def figures(self) -> dict[str, float | tuple[float, float] | None]:
        """The aligned model against the base: each figure, and its interval as `<name>_ci`, where it has one."""
        return self.report.delta.model_dump()

    def __repr__(self) -> str:
        """What matters most, on one line."""
        return f"AlignResult(verdict={self.verdict!r}, version={self.version!r}, run_id={self.run_id!r})"

    def _repr_markdown_(self) -> str:
        """The result and the gates as tables, in a notebook."""
        sentence = self.judgement.sentence
        return "\n\n".join((f"**{sentence}**", result_table(self.report), gates_table(self.judgement), self.registered))


def run_name(config: AlignConfig) -> str:
    """What a run is: the model that it makes, and what sets it apart from others."""
    return f"{config.registry.model_name}: {label(config)}"


@config_flow("align", run_name)
def align(config: AlignConfig) -> AlignResult | State[Any]:
    """Align a causal language model to a reward model, judge the result, and register it if it deserves it."""
    return ended(tracked(config, run_stages))


def ended(result: AlignResult) -> State[Any]:
    """The state that a run ends in once it is judged: Completed, or Refused by a gate, with the verdict in words."""
    told = in_words(result.judgement, result.registered)
    return Completed(name="Completed" if result.verdict == "pass" else "Refused", message=told, data=result)


def in_words(judgement: Judgement, registered: str) -> str:
    """The verdict, and what became of the model in the registry."""
    return f"{judgement.sentence} {registered}".strip()


def connect() -> None:
    """Make sure, before any work, that MLflow can be reached."""
    prepare_environment()
    runs.configure(tracking_uri(), home() / "artifacts")
    runs.check()


def tracked(config: AlignConfig, body: Callable[[AlignConfig, str], R]) -> R:
    """Run `body` under one MLflow run, which ends FINISHED, FAILED after an error, or KILLED after a cancellation."""
    connect()
    work_begins()
    prefect_run = {
        "prefect.flow_run_id": flow_run.id or "",
        "prefect.flow_run_name": flow_run.name or "",
        "prefect.flow_run_url": flow_run.ui_url or "",
    }
    with (
        stopping_as_one(),
        runs.run(config, run_name=flow_run.name or "align", tags=prefect_run) as run_id,
        run_page(about(config, run_id)),
    ):
        return body(config, run_id)


def about(config: AlignConfig, run_id: str) -> dict[str, str]:
    """What a run is about, for its page: each a name and a value in Markdown."""
    data = ", ".join(source.path for source in config.data.mixture) or config.data.path
    where = runs.run_url(run_id)
    return {
        "Model": in_markdown(config.registry.model_name),
        "Base": "trained here" if config.base.model == "train" else in_markdown(config.base.model),
        "Training": label(config),
        "Data": in_markdown(data),
        "Reward": in_markdown(config.reward.kind),
        "MLflow": linked("curves, figures and artifacts", where),
    }


def run_stages(given: AlignConfig, run_id: str) -> AlignResult:
    """Train and judge a policy, then register it if it deserves it."""
    judged = judge_policy(given, run_id)
    return publish(given, judged, run_id)


def judge_policy(
    given: AlignConfig, run_id: str, *, points: Points = ALONE, refs: dict[str, StageRef] | None = None
) -> Judged:
    """Every stage of the pipeline in its order, then the verdict.

    `points` says which of a sweep's points it is; `refs` is as in `compute_all`.

    Registered models are loaded into local folders first; the record names them as they were given.
    """
    config, lineage = with_local_models(given, home() / "models")
    runs.tag(run_id, lineage)
    refs = compute_all(PIPELINE, config, run_id, points=points, refs=refs)
    judgement = apply_gates(unlinked(config), refs["report"])
    record_run(unlinked(given), unlinked(refs), judgement, run_id)
    return Judged(refs, judgement)


def compute_all(
    pipeline: Pipeline,
    config: AlignConfig,
    run_id: str,
    *,
    points: Points = ALONE,
    refs: dict[str, StageRef] | None = None,
) -> dict[str, StageRef]:
    """Every stage of a pipeline in its order, each with what is done after it.

    A dictionary that is given as `refs` gets each stage as it is finished, so after an error it has those before.
    """
    pipeline.require_usable(config)
    require_gates()
    require_hosted(pipeline, config, store())
    require_startable(pipeline, config)
    refs = {} if refs is None else refs
    with following(expected_progress(config, points=points, pipeline=pipeline)):
        for stage in pipeline.wanted(config):
            refs[stage.name] = compute(stage, config, refs, run_id)
            if then := AFTER.get(stage.name):
                then(config, refs, run_id)
    return refs


def publish(config: AlignConfig, judged: Judged, run_id: str) -> AlignResult:
    """Keep the policy, register it where every gate passed, and show the result."""
    refs, judgement = judged.refs, judged.judgement
    found = log_model(unlinked(config), unlinked(refs), judgement, run_id)
    where = runs.run_url(run_id)
    registered = "" if found is None else found.sentence
    links = {"Full report": runs.artifact_url(run_id, PAGE), "Run in MLflow": where}
    show_result(config, refs, judgement, registered, links)
    if judgement.verdict == "fail":
        announce_refusal(config.registry.model_name, judgement, read_report(refs["report"]), where)
    if page := page_of_run():
        page.outcome = in_words(judgement, registered)
    return AlignResult(
        run_id=run_id,
        experiment=config.registry.experiment,
        where=where,
        model=_shown(found) if found is not None and judgement.verdict == "pass" else None,
        registered=registered,
        report=read_report(refs["report"]),
        judgement=judgement,
        pairs={
            "built": refs["pairs"].counts["built"],
            "accepted": refs["validation"].counts["accepted"],
            "quarantined": refs["validation"].counts["quarantined"],
        },
        seconds={name: ref.seconds for name, ref in refs.items()},
        cached=[name for name, ref in refs.items() if ref.cached],
        folders={name: str(ref.folder) for name, ref in refs.items()},
    )


def _shown(found: Registration) -> dict[str, Any]:
    return {"name": found.name, "version": found.version, "uri": found.uri, "aliases": list(found.aliases)}
