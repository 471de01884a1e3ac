"""The registered models as people look for them: each version with its verdict, figures, aliases and decision."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignment.aliases import ANCHOR
from alignment.errors import ModelError
from tasks.registry import marks, recorded, versions
from tasks.registry.candidates import tags_against
from tasks.registry.connection import place
from tasks.registry.versions import RegisteredVersion

Verdict = Literal["pass", "fail", "refused since", "anchor", "not judged"]
GAIN = "delta/reward_gain"
FIGURES = ("reward_gain", "win_rate", "perplexity_ratio", "kl_per_token", "length_change")
"""Those of the aligned model against the base, of the run's metrics `delta/…`."""
REFUSED = 20  # runs, the newest, that are listed


class ListedVersion(BaseModel):
    """One version; its figures are those of the run that it came from, None where that recorded none.

    The gain is that of the mean reward on held-out prompts. `decision` is the last one on it, in one word, with who
    decided it when and why; empty where nobody did.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    uri: str
    aliases: tuple[str, ...]
    verdict: Verdict
    reason: str
    """Why it may not be promoted, as far as its tags say; empty for one that passed."""
    reward_gain: float | None
    reward_gain_ci: tuple[float, float] | None
    win_rate: float | None = None
    perplexity_ratio: float | None = None
    kl_per_token: float | None = None
    length_change: float | None = None
    decision: str = ""
    approver: str = ""
    decided: datetime | None = None
    decision_reason: str = ""
    smoke: str = ""
    """What the last smoke test found: passed, failed, not comparable, or empty."""
    registered: datetime
    run_id: str


def list_versions(name: str = "", *, must_exist: bool = True) -> list[ListedVersion]:
    """Every version of the model `name`, or of all models, by name and the newest first.

    Raises ModelError if there is no model of this name, TrackingError if MLflow cannot be reached.
    """
    names = [name] if name else versions.model_names()
    found = [version for each in names for version in versions.all_versions(each)]
    if name and not found and must_exist:
        there = ", ".join(versions.model_names())
        raise ModelError(
            f"no version is registered as {name!r} in MLflow at {place().shown}; "
            f"{f'there are {there}' if there else 'nothing is registered there yet'}"
        )
    return [_listed(version) for version in found]


def _listed(version: RegisteredVersion) -> ListedVersion:
    metrics = versions.find_run_metrics(version.run_id) if version.run_id else {}
    low, high = metrics.get(f"{GAIN}_low"), metrics.get(f"{GAIN}_high")
    return ListedVersion(
        name=version.name,
        version=version.version,
        uri=version.uri,
        aliases=version.aliases,
        verdict=verdict_of(version),
        reason=tags_against(version),
        **{name: metrics.get(f"delta/{name}") for name in FIGURES},
        reward_gain_ci=None if low is None or high is None else (low, high),
        registered=datetime.fromtimestamp(version.created / 1_000, UTC),
        run_id=version.run_id,
        decision=version.tags.get(marks.DECISION, ""),
        approver=version.tags.get(marks.APPROVER, ""),
        decided=_time(version.tags.get(marks.TIME, "")),
        decision_reason=version.tags.get(marks.REASON, ""),
        smoke=version.tags.get(marks.SMOKE_VERDICT, ""),
    )


class RefusedRun(BaseModel):
    """A run that the gates refused, which is no version; figures as of a version."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    name: str
    model_name: str
    started: datetime
    gates: tuple[str, ...]
    """Those that refused it."""
    reason: str
    reward_gain: float | None = None
    win_rate: float | None = None
    perplexity_ratio: float | None = None
    kl_per_token: float | None = None
    length_change: float | None = None


def list_refused(name: str = "", limit: int = REFUSED) -> list[RefusedRun]:
    """The newest runs that the gates refused, of the model `name` or of all: at most `limit`."""
    found = []
    for run in recorded.refused_runs(name, limit):
        tags, metrics = run.data.tags, run.data.metrics
        found.append(
            RefusedRun(
                run_id=run.info.run_id,
                name=run.info.run_name or "",
                model_name=tags.get("plumbline.model_name", ""),
                started=datetime.fromtimestamp(run.info.start_time / 1_000, UTC),
                gates=tuple(
                    key.removeprefix("gate/") for key in metrics if key.startswith("gate/") and not metrics[key]
                ),
                reason=tags.get("plumbline.reason", ""),
                **{each: metrics.get(f"delta/{each}") for each in FIGURES},
            )
        )
    return found


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def verdict_of(version: RegisteredVersion) -> Verdict:
    """What became of a version, as its tags have it."""
    if version.tags.get(marks.KIND) == ANCHOR:
        return "anchor"
    if marks.JUDGED not in version.tags:
        return "not judged"
    if not tags_against(version):
        return "pass"
    return "refused since" if version.tags.get(marks.JUDGED_AGAIN) else "fail"
