"""The registered models as people look for them: each version with its verdict, figures, aliases and decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignment.aliases import ANCHOR
from alignment.errors import ModelError
from alignment.judging.headline import METRICS
from tasks.registry import marks, recorded, versions
from tasks.registry.candidates import tags_against
from tasks.registry.connection import place
from tasks.registry.recorded import GATE
from tasks.registry.versions import RegisteredVersion

Verdict = Literal["pass", "fail", "refused since", "anchor", "not judged"]
REFUSED = 20  # runs, the newest, that are listed


class Figures(BaseModel):
    """The headlines of a run, None where it recorded none.

    As JSON one that is not finite is a text, for which JSON has no number.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    reward_gain: float | None = None
    win_rate: float | None = None
    perplexity_ratio: float | None = None
    kl_per_token: float | None = None
    length_change: float | None = None
    preference_accuracy: float | None = None
    preference_margin: float | None = None


class ListedVersion(Figures):
    """One version; its figures are those of the run that it came from.

    The gain is that of the mean reward on held-out prompts. `decision` is the last one on it, in one word, with who
    decided it when and why; empty where nobody did.
    """

    name: str
    version: str
    uri: str
    aliases: tuple[str, ...]
    verdict: Verdict
    reason: str
    """Why it may not be promoted, as far as its tags say; empty for one that passed."""
    reward_gain_ci: tuple[float, float] | None
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
    low, high = (metrics.get(f"{METRICS['reward_gain']}_{end}") for end in ("low", "high"))
    return ListedVersion(
        name=version.name,
        version=version.version,
        uri=version.uri,
        aliases=version.aliases,
        verdict=verdict_of(version),
        reason=tags_against(version),
        **_figures(metrics),
        reward_gain_ci=None if low is None or high is None else (low, high),
        registered=datetime.fromtimestamp(version.created / 1_000, UTC),
        run_id=version.run_id,
        decision=version.tags.get(marks.DECISION, ""),
        approver=version.tags.get(marks.APPROVER, ""),
        decided=_time(version.tags.get(marks.TIME, "")),
        decision_reason=version.tags.get(marks.REASON, ""),
        smoke=version.tags.get(marks.SMOKE_VERDICT, ""),
    )


class RefusedRun(Figures):
    """A run that the gates refused, which is no version."""

    run_id: str
    name: str
    model_name: str
    started: datetime
    gates: tuple[str, ...]
    """Those that refused it."""
    reason: str


@dataclass(frozen=True)
class Refused:
    """The newest runs that the gates refused, and how many more there are, of which at most 1,000 are counted."""

    newest: list[RefusedRun]
    more: int


def list_refused(name: str = "", limit: int = REFUSED) -> Refused:
    """The newest runs that the gates refused, of the model `name` or of all: at most `limit`."""
    found = []
    runs = recorded.refused_runs(name)
    for run in runs[:limit]:
        tags, metrics = run.data.tags, run.data.metrics
        found.append(
            RefusedRun(
                run_id=run.info.run_id,
                name=run.info.run_name or "",
                model_name=tags.get("plumbline.model_name", ""),
                started=datetime.fromtimestamp(run.info.start_time / 1_000, UTC),
                gates=tuple(key.removeprefix(GATE) for key in metrics if key.startswith(GATE) and not metrics[key]),
                reason=tags.get("plumbline.reason", ""),
                **_figures(metrics),
            )
        )
    return Refused(found, len(runs) - len(found))


def _figures(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: metrics.get(metric) for name, metric in METRICS.items()}


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
