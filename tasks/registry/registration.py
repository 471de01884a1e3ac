"""Registers a judged policy once, and gives its version the alias where no better one stands in its way."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from alignment.aliases import CHAMPION
from tasks.registry import models, versions
from tasks.registry.aliases import DECISION, alone
from tasks.registry.candidates import JUDGED_AGAIN, tags_against
from tasks.registry.versions import RegisteredVersion

UNDECIDED = {"", "approved", "failed"}
"""What stands on a version that nobody decided on, or whose promotion died midway."""


class Registration(BaseModel):
    """The version that a policy is, whether this run made it, and what else there is to say of it."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    aliases: tuple[str, ...]
    new: bool
    note: str = ""

    @property
    def uri(self) -> str:
        """The address that stays this version's for good."""
        return f"models:/{self.name}/{self.version}"

    @property
    def sentence(self) -> str:
        """What was registered, or is already, in one line."""
        known = "" if self.new else f"this policy is version {self.version} already"
        version = f"{self.name} version {self.version} ({', '.join(self.aliases) or 'no alias'})"
        return "; ".join(part for part in (version, known, self.note) if part)


def register(
    run_id: str, model_uri: str, name: str, alias: str, *, key: str, description: str, tags: Mapping[str, str]
) -> Registration:
    """Make the policy `key` a version of `name`, unless it is one already, and point `alias` at it where it may.

    A version is written once: what its run judged, and what people wrote on it since, stays. Two runs of one home never
    make two versions of a policy, nor take the alias from each other's newer one; those of homes that share no store
    may, where they register in the same second.
    """
    with alone(name):
        version = find_registered(name, key)
        new = version is None or version.run_id == run_id
        if version is None:
            version = versions.create_version(run_id, model_uri, name, key=key, description=description, tags=tags)
        elif version.tags.get(JUDGED_AGAIN):
            versions.tag_version(name, version.version, {JUDGED_AGAIN: ""})
        reason = why_no_alias(version, versions.find_alias(name, alias), versions.find_alias(name, CHAMPION))
        if not reason and alias not in version.aliases:
            versions.set_alias(name, alias, version.version)
        version = versions.get_version(name, version.version)
    note = f"it does not become `{alias}`: {reason}" if alias not in version.aliases else ""
    return Registration(name=name, version=version.version, aliases=version.aliases, new=new, note=note)


def refuse(run_id: str, name: str, *, key: str, sentence: str) -> Registration | None:
    """Write a refusal on the version that the policy `key` is since it passed other gates; None where it is none.

    No alias moves: a promotion refuses the version by that tag, until a run in which it passes takes the tag away.
    """
    with alone(name):
        version = find_registered(name, key)
        if version is None:
            return None
        versions.tag_version(name, version.version, {JUDGED_AGAIN: f"Run {run_id}: {sentence}"})
    note = "it passed other gates then, and is not promoted until it passes again"
    return Registration(name=name, version=version.version, aliases=version.aliases, new=False, note=note)


def find_registered(name: str, key: str) -> RegisteredVersion | None:
    """The version that the policy `key` is, if any.

    One whose run or model was deleted does not count, nor one whose run judged another model: it is of no use.
    """
    found = versions.find_version(name, key)
    if found is None or not found.run_id:
        return None
    judged = (versions.find_run_tags(found.run_id) or {}).get("plumbline.model_uri")
    return found if judged == found.source and models.is_ready(found.source) else None


def why_no_alias(
    version: RegisteredVersion, holder: RegisteredVersion | None, champion: RegisteredVersion | None
) -> str:
    """Why a version may not take an alias from `holder`; empty where it may, or has it."""
    if champion is not None and champion.version == version.version:
        return f"it is the `{CHAMPION}`"
    decision = version.tags.get(DECISION, "")
    if decision not in UNDECIDED:
        return f"it was {decision}"
    if holder is not None and int(holder.version) > int(version.version) and not tags_against(holder):
        return f"the newer version {holder.version} is"
    return ""
