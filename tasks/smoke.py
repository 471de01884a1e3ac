"""The tasks of a smoke test: load a registered model, write and score texts, compare with the record, tag it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from pydantic import BaseModel, ConfigDict

from alignment.config import AlignConfig, DataConfig
from alignment.device import on_cpu
from alignment.errors import ModelError, PromotionError, RecordError
from alignment.judging.card import in_markdown
from alignment.judging.report import EvalReport
from alignment.judging.smoke import UNPROMPTED, Asked, SmokeResult, judge_smoke, score, write
from alignment.rewards.function_file import function_file
from alignment.rewards.parts import described, normalises
from alignment.rows import SCALES
from alignment.stages.reward import trains
from alignment.stages.store import StageRef
from tasks import artifacts
from tasks.home import home, store
from tasks.registry import downloads, marks, records, versions
from tasks.registry.aliases import locked
from tasks.registry.current import keep_current
from tasks.running import RETRIES
from tasks.stages import compute_alone

READ = (
    "seed",
    "data",
    "base",
    "reward",
    "prompts",
    "sampling",
    "pairs",
)  # of the configuration: what writing and scoring need


class Subject(BaseModel):
    """A registered version in a local folder, and what its run recorded; no report if it recorded nothing."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    folder: Path
    prompts: tuple[Asked, ...]
    config: AlignConfig
    report: EvalReport | None = None
    reward: StageRef | None = None  # what scored its evaluation, where this store has it
    scores: StageRef | None = None


@task(name="load registered model", **RETRIES)
def load_version(name: str, alias: str) -> Subject:
    """Download the version that `alias` points at, and read its record.

    Raises ModelError if there is none, NewerRecordError if a newer release wrote its record.
    """
    version = versions.find_alias(name, alias)
    if version is None:
        raise ModelError(f"models:/{name}@{alias}: no version has this alias; promote one first, or name another alias")
    folder = downloads.local_model(version.uri, home() / "models")
    bare = Subject(
        name=name,
        version=version.version,
        folder=folder,
        prompts=(Asked(prompt=""),) * UNPROMPTED,
        config=AlignConfig(),
    )
    tags = versions.find_run_tags(version.run_id) if version.run_id else None
    if tags is None or not versions.was_judged(version.run_id):
        return bare
    try:
        config, report, rows = records.read_record(version.run_id, READ)
    except RecordError:  # written by hand
        return bare
    local, _ = downloads.with_local_models(reward_only(config, tags.get("plumbline.reward")), home() / "models")
    prompts = tuple(Asked(**row.model_dump(include=set(Asked.model_fields))) for row in rows)
    lineage = records.read_lineage(version.run_id)
    held: dict[str, Any] = {
        name: store().find(name, lineage[name].key) for name in ("reward", "scores") if name in lineage
    }
    return bare.model_copy(update={"config": local, "report": report, "prompts": prompts, **held})


def reward_of(subject: Subject) -> StageRef | None:
    """What scores its texts: as it scored the evaluation where this store has that, else made again.

    None where there is no record, or where it cannot be made again: SDs are of that run's samples, and a file of code
    that a record names is run only if this store knows it.
    """
    config, report = subject.config, subject.report
    if report is None or not report.has_reward:
        return None
    if normalises(config) and subject.scores is None:
        return None
    names_code = any(each.function and function_file(each.function) for each in described(config))
    if subject.reward is not None or names_code:
        return subject.reward
    return compute_alone("reward", config)


@task(name="write and score", **RETRIES)
def write_and_score(subject: Subject, reward: StageRef | None) -> SmokeResult:
    """Generate texts on held-out prompts, score them, and compare the scores with the record.

    They are few, so it takes no GPU from a training.
    """
    with on_cpu():
        written = write(subject.folder, subject.prompts, subject.config)
        rewards = None
        if reward is not None:
            scales = subject.scores.path / SCALES if subject.scores and normalises(subject.config) else None
            found = {} if scales is None else records.read_json(scales)
            rewards = score(reward.path, written, subject.config, store().kept, found)
    return judge_smoke(written, rewards, subject.report)


@task(name="record smoke", **RETRIES)
def record_smoke(subject: Subject, result: SmokeResult) -> None:
    """Keep the result on the version, and show it as a Markdown artifact."""
    reward = "" if result.reward_mean is None else f"{result.reward_mean:.4f}"
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with locked(subject.name):
        tags = {marks.SMOKE_VERDICT: result.verdict, marks.SMOKE_REWARD: reward, marks.SMOKE_TIME: when}
        versions.tag_version(subject.name, subject.version, tags)
        keep_current(subject.name, subject.version)
    some = result.texts[:: max(1, len(result.texts) // 8)]
    texts = "\n\n".join(f"> {in_markdown(text) if text.strip() else '(nothing)'}" for text in some)
    told = sentence(subject, result)
    artifacts.show("smoke", f"# Smoke test {result.verdict}\n\n{told}\n\n{texts}", told)


def sentence(subject: Subject, result: SmokeResult) -> str:
    """What the test found, and of which version."""
    return f"{subject.name} version {subject.version}: {result.sentence}"


def require_sound(subject: Subject, result: SmokeResult) -> None:
    """Raise PromotionError if the model does not behave as its record says."""
    if result.verdict == "failed":
        raise PromotionError(
            f"smoke test of {subject.name} version {subject.version}: {result.sentence}; look at the texts, "
            "or return to the previous version with `plumbline rollback`"
        )


def reward_only(config: AlignConfig, resolved: str | None) -> AlignConfig:
    """The config without what only other stages read: those files may be gone, and a smoke test does not need them.

    `resolved` is the version that an alias in `reward.model` named at the time.
    """
    reward = config.reward.model_copy(update={"model": resolved or config.reward.model})
    return config.model_copy(
        update={
            "reward": reward,
            "data": config.data if trains(config) else DataConfig(),
            "base": config.base.model_copy(update={"model": "train"}),
            "prompts": config.prompts.model_copy(update={"exclude": ""}),
        }
    )
