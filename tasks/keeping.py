"""What the store holds, what needs it, and what of it may be deleted: what nothing and nobody needs any more."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from alignment.errors import GoneError, InputError, StoreError
from alignment.stages.stored import Stored, Underway, unneeded
from tasks.home import store
from tasks.registry import copies, elsewhere, records, versions
from tasks.registry.connection import is_new, place
from tasks.registry.copies import Copy

UNITS = {"h": 1, "d": 24, "w": 7 * 24}
"""Hours."""

_PART = re.compile(r"(.+)-\d+-\d+")
"""The key of a shard, as `tasks.running` makes it of its stage's."""


@dataclass(frozen=True)
class Held:
    """A finished stage of the store, and what needs it: registered versions, running processes, other stages."""

    stored: Stored
    versions: tuple[str, ...]
    used: bool
    stages: int
    """How many stages were made from it, or have it as a part."""


@dataclass(frozen=True)
class Row:
    """What a list shows on one line: a finished stage, or all shards of one stage, of which it has so many.

    `key` is the stage's own, also of its shards. `written` is when the newest was, `size` the bytes of all.
    """

    stage: str
    key: str
    shards: int
    size: int
    written: datetime
    versions: tuple[str, ...]
    used: bool
    stages: int


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be: stages, copies of registered models, what was left unfinished, with its bytes."""

    stages: tuple[Stored, ...]
    copies: tuple[Copy, ...]
    unfinished: int
    unfinished_size: int

    @property
    def size(self) -> int:
        """All bytes."""
        stages, copied = (each.size for each in self.stages), (each.size for each in self.copies)
        return self.unfinished_size + sum(stages) + sum(copied)


class Checked(NamedTuple):
    """What was read whole: what of it is not as its manifest says, or nothing, and whether it was deleted for that."""

    each: Stored | Underway
    damage: str
    deleted: bool


def listed() -> list[Held]:
    """Every finished stage, the newest first. Raises TrackingError where MLflow cannot say what its versions need."""
    here, found = store(), registered()
    used, stored = here.used(), sorted(here.stored(), key=lambda each: each.written, reverse=True)
    parents = Counter(of for each in stored for of in each.parents.items())
    parts = Counter(part for each in stored for part in each.parts)
    return [
        Held(
            each,
            tuple(found.get((each.stage, each.digest), ())),
            (each.stage, each.key) in used,
            parents[each.stage, each.digest] + parts[f"{each.stage}/{each.key}"],
        )
        for each in stored
    ]


def rows(found: Iterable[Held]) -> list[Row]:
    """Finished stages in the order that they are given in, the shards of one together where its first one stands."""
    groups: dict[tuple[str, str, bool], list[Held]] = {}
    for each in found:
        stage, key = each.stored.stage, each.stored.key
        part = _PART.fullmatch(key) if stage.endswith("-parts") else None
        groups.setdefault((stage, part[1] if part else key, part is not None), []).append(each)
    return [
        Row(
            stage,
            key,
            len(group) if is_shards else 0,
            sum(each.stored.size for each in group),
            max(each.stored.written for each in group),
            tuple(dict.fromkeys(version for each in group for version in each.versions)),
            any(each.used for each in group),
            max(each.stages for each in group),
        )
        for (stage, key, is_shards), group in groups.items()
    ]


def underway() -> list[Underway]:
    """What other machines can go on from, of stages that are not finished, the newest first."""
    return sorted(store().underway(), key=lambda each: each.saved, reverse=True)


def damaged_underway(delete: bool) -> Iterator[Checked]:
    """As `damaged`, of stages that are not finished; what is computed now is not deleted, and replaced soon."""
    here = store()
    for each in here.underway():
        found = here.damage_underway(each)
        goes = bool(found) and delete and not each.held
        if goes:
            here.delete_underway(each)
        yield Checked(each, found, goes)


def damaged(delete: bool) -> Iterator[Checked]:
    """Each finished stage, read whole; `delete` deletes what is damaged.

    So is a stage whose part is damaged or gone: it would be found, and could not be read. Where only this
    machine's copy of a stage is damaged, that alone is deleted.
    """
    here = store()
    is_whole: dict[str, bool] = {}
    for each in sorted(here.stored(), key=lambda each: bool(each.parts)):
        lost = [part for part in each.parts if not (is_whole[part] if part in is_whole else _is_there(part))]
        found = here.damage(each) or (f"its part {lost[0]} is damaged or gone" if lost else "")
        is_whole[f"{each.stage}/{each.key}"] = not found
        if found and delete:
            here.delete(each.stage, each.key)
        elif not found and (damage := here.damage_here(each)):
            found = f"its copy on this machine: {damage}"
            if delete:
                here.delete_here(each)
        yield Checked(each, found, bool(found) and delete)


def _is_there(part: str) -> bool:
    """Whether the store has a part that was not listed; it may be younger than the list."""
    try:
        store().manifest(*part.split("/"))
    except (GoneError, ValueError):
        return False
    return True


def prune(older_than: timedelta, *, dry_run: bool, only_this_mlflow: bool = False) -> Pruned:
    """Delete what was written so long ago and nothing needs, and what dead processes have left unfinished.

    So are this home's copies of registered models that nobody has asked for since: the next use makes them anew. Copies
    and drafts of models that the disk does not let go stay, and a warning names each.

    Checkpoints from which another machine could go on are kept as long as stages, and while one does.

    What a registered version was made from is needed, whatever running processes have found or written, and whatever
    any of these was made from. Raises StoreError where other machines use the store and this MLflow is a file of this
    one, or where this home has registered versions in another MLflow, unless `only_this_mlflow` says that those do not
    count; TrackingError where MLflow cannot be asked.
    """
    here = store()
    if here.shared and place().database is not None and not only_this_mlflow:
        raise StoreError(
            f"store prune: {here.place} is used by several machines, and MLflow at {place().shown} is a file of this "
            "one, so what others have registered is not known: set MLFLOW_TRACKING_URI to the MLflow of all, or pass "
            "--only-this-mlflow where nobody else registers models"
        )
    if not only_this_mlflow and (others := elsewhere.others()):
        raise StoreError(
            f"store prune: this home has used the MLflow at {others[0]} too, and what is registered there is not known "
            f"at {place().shown}: pass --only-this-mlflow where nobody needs what those versions were made from"
        )
    wanted, before = registered(), datetime.now(UTC) - older_than
    stages = unneeded(list(here.stored()), wanted, here.used(), before)
    if not dry_run:
        stages = [each for each in stages if _deleted(each)]
    count, size = here.garbage(delete=not dry_run)
    left = [each for each in here.underway() if each.saved < before and not each.held]
    for each in left if not dry_run else ():
        here.delete_underway(each)
    copied, drafts = copies.unused(before), copies.drafts(before)
    if not dry_run:
        copied = [copy for copy in copied if copies.delete(copy)]
        drafts = [draft for draft in drafts if copies.delete_draft(draft)]
    spare = [each.size for each in left] + [each.size for each in drafts]
    return Pruned(tuple(stages), tuple(copied), count + len(spare), size + sum(spare))


def _deleted(each: Stored) -> bool:
    """Delete a stage, unless a process has found it since the others were looked at."""
    if (each.stage, each.key) in store().used():
        return False
    store().delete(each.stage, each.key)
    return True


def registered() -> dict[tuple[str, str], list[str]]:
    """The registered versions, as `name 3`, that were made from a stage of this name and digest."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in () if is_new() else versions.model_names():
        for version in versions.all_versions(name):
            for ref in records.read_lineage(version.run_id).values() if version.run_id else ():
                found.setdefault((ref.stage, ref.digest), []).append(f"{name} {version.version}")
    return found


def duration(text: str) -> timedelta:
    """`30d`, `12h` or `2w`. Raises InputError for anything else."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    if found is None:
        raise InputError(f"--older-than {text}: give a number of days, hours or weeks, such as 30d, 12h or 2w")
    return timedelta(hours=int(found[1]) * UNITS[found[2]])
