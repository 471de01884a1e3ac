"""The registered models as people look for them: each version with its verdict, gain, aliases and date."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignment.aliases import ANCHOR
from alignment.errors import ModelError
from tasks.registry import versions
from tasks.registry.candidates import JUDGED_AGAIN, tags_against
from tasks.registry.connection import place
from tasks.registry.versions import RegisteredVersion

Verdict = Literal["pass", "fail", "refused since", "anchor", "not judged"]
GAIN = "delta/reward_gain"


class ListedVersion(BaseModel):
    """One version; the gain is that of the mean reward on held-out prompts, None where its run recorded none."""

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
    registered: datetime
    run_id: str


def list_versions(name: str = "") -> list[ListedVersion]:
    """Every version of the model `name`, or of all models, by name and the newest first.

    Raises ModelError if there is no model of this name, TrackingError if MLflow cannot be reached.
    """
    names = [name] if name else versions.model_names()
    found = [version for each in names for version in versions.all_versions(each)]
    if name and not found:
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
        verdict=_verdict(version),
        reason=tags_against(version),
        reward_gain=metrics.get(GAIN),
        reward_gain_ci=None if low is None or high is None else (low, high),
        registered=datetime.fromtimestamp(version.created / 1_000, UTC),
        run_id=version.run_id,
    )


def _verdict(version: RegisteredVersion) -> Verdict:
    if version.tags.get("plumbline.kind") == ANCHOR:
        return "anchor"
    if "plumbline.verdict" not in version.tags:
        return "not judged"
    if not tags_against(version):
        return "pass"
    return "refused since" if version.tags.get(JUDGED_AGAIN) else "fail"
