"""Registers a judged policy as one version, and sets the alias on it unless a newer version holds that alias."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from alignment.aliases import CHAMPION
from tasks.registry import models, versions
from tasks.registry.aliases import locked
from tasks.registry.candidates import tags_against
from tasks.registry.current import keep_current
from tasks.registry.marks import DECISION, JUDGED_AGAIN, PASSED, REFUSED_SINCE, VERDICT
from tasks.registry.versions import RegisteredVersion

UNDECIDED = {"", "approved", "failed"}
"""The values of a version's decision tag if nobody has decided on it, or its promotion died midway."""


class Registration(BaseModel):
    """The version that a policy is registered as, whether this run registered it, and a note on its alias."""

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
        """The version, its aliases and the note, in one line."""
        known = "" if self.new else f"this policy is version {self.version} already"
        return "; ".join(part for part in (self.title, known, self.note) if part)

    @property
    def title(self) -> str:
        """The version by name and number, with its aliases."""
        return f"{self.name} version {self.version} ({', '.join(self.aliases) or 'no alias'})"


def register(
    run_id: str, model_uri: str, name: str, alias: str, *, key: str, description: str, tags: Mapping[str, str]
) -> Registration:
    """Register the policy `key` as a version of `name`, unless it is one already, and set `alias` on it if allowed.

    A version is written once: its run's judgement, and what people wrote on it since, stays. Two runs of one home never
    make two versions of a policy, nor take the alias from a newer version; runs of homes that share no store may, if
    they register in the same second.
    """
    with locked(name):
        version = find_registered(name, key)
        new = version is None or version.run_id == run_id
        if version is None:
            version = versions.create_version(run_id, model_uri, name, key=key, description=description, tags=tags)
        elif version.tags.get(JUDGED_AGAIN):
            versions.tag_version(name, version.version, {JUDGED_AGAIN: "", VERDICT: PASSED})
        reason = why_no_alias(version, versions.find_alias(name, alias), versions.find_alias(name, CHAMPION))
        if not reason and alias not in version.aliases:
            versions.set_alias(name, alias, version.version)
        keep_current(name, version.version)
        version = versions.get_version(name, version.version)
    note = f"it does not become `{alias}`: {reason}" if alias not in version.aliases else ""
    return Registration(name=name, version=version.version, aliases=version.aliases, new=new, note=note)


def refuse(run_id: str, name: str, *, key: str, sentence: str) -> Registration | None:
    """Tag the version of the policy `key`, which passed other gates before, as refused; None if it is no version.

    No alias moves. A promotion refuses the version by that tag, until a run in which it passes clears the tag.
    """
    with locked(name):
        version = find_registered(name, key)
        if version is None:
            return None
        again = {JUDGED_AGAIN: f"Run {run_id}: {sentence}", VERDICT: REFUSED_SINCE}
        versions.tag_version(name, version.version, again)
        keep_current(name, version.version)
    note = "it passed other gates then, and is not promoted until it passes again"
    return Registration(name=name, version=version.version, aliases=version.aliases, new=False, note=note)


def find_registered(name: str, key: str) -> RegisteredVersion | None:
    """The version of the policy `key`, if any.

    A version whose run or model was deleted does not count, nor one whose run judged another model: neither can be
    promoted.
    """
    found = versions.find_version(name, key)
    if found is None or not found.run_id:
        return None
    judged = (versions.find_run_tags(found.run_id) or {}).get("plumbline.model_uri")
    return found if judged == found.source and models.is_ready(found.source) else None


def why_no_alias(
    version: RegisteredVersion, holder: RegisteredVersion | None, champion: RegisteredVersion | None
) -> str:
    """Why a version may not take an alias from `holder`; empty if it may, or holds it already."""
    if champion is not None and champion.version == version.version:
        return f"it is the `{CHAMPION}`"
    decision = version.tags.get(DECISION, "")
    if decision not in UNDECIDED:
        return f"it was {decision}"
    if holder is not None and int(holder.version) > int(version.version) and not tags_against(holder):
        return f"the newer version {holder.version} is"
    return ""
