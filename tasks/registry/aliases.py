"""Which version stands where: a registered model's aliases, how a decision changes them, and the change itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from alignment.aliases import CHALLENGER, CHAMPION, PREVIOUS
from alignment.errors import ModelError, PlumblineError
from alignment.stages.store import digest
from tasks.home import store
from tasks.registry import versions
from tasks.registry.connection import place

logger = logging.getLogger("plumbline")

RECORDED = "plumbline.champion"
"""The model's tag that names the last champion known here: an alias that says otherwise was moved by hand."""
DECISION = "promotion.decision"
"""A version's tag: what was decided on it last."""


@dataclass(frozen=True)
class Standing:
    """The versions that the aliases point at, and the champion on record; None where there is none."""

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None
    recorded: str | None = None

    def promoted(self, version: str) -> "Standing":
        """`version` as champion, and the one before it as previous.

        Where `version` is the champion already, by hand or by a promotion that died midway, the record says which one
        was before it; so promoting twice is promoting once.
        """
        before = self.recorded if self.champion == version else self.champion
        before = self.previous if before in (None, version) else before
        return Standing(
            champion=version,
            previous=None if before == version else before,
            challenger=None if self.challenger == version else self.challenger,
            recorded=version,
        )

    def rolled_back(self) -> "Standing":
        """Champion and previous exchanged; the same where nothing can come back. A rollback that died is finished."""
        if self.champion is not None and self.champion == self.previous:
            lost = None if self.recorded == self.champion else self.recorded
            return replace(self, previous=lost, recorded=self.champion)
        if self.previous is None:
            return self
        return replace(self, champion=self.previous, previous=self.champion, recorded=self.previous)

    def reverted(self) -> "Standing":
        """The champion on record again, or none where there was none."""
        return replace(self, champion=self.recorded)


def read_standing(name: str) -> Standing:
    """What the registry says now, read in one request. Raises ModelError where no such model is registered."""
    found = versions.read_model(name)
    if found is None:
        raise ModelError(f"models:/{name}: no such model in MLflow at {place().shown}; name a registered one")
    aliases, tags = found
    return Standing(
        champion=aliases.get(CHAMPION),
        previous=aliases.get(PREVIOUS),
        challenger=aliases.get(CHALLENGER),
        recorded=tags.get(RECORDED) or None,
    )


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one process of this home, and one thread of it, decide about a model, or register it, at a time."""
    with store().lock("promotion", digest(name)[:20]):
        yield


def change(name: str, before: Standing, after: Standing) -> None:
    """Move the aliases and the record from `before` to `after`; call it `alone`.

    MLflow has no transaction. The champion moves first and the record last, so that a later promotion finds out which
    one was the champion before. An error puts back what was moved, as far as MLflow lets it, and goes on its way.
    """
    try:
        if before.champion is not None and after.previous == before.champion != before.recorded:
            versions.tag_model(name, RECORDED, before.champion)
        for alias in (CHAMPION, PREVIOUS, CHALLENGER):
            if getattr(before, alias) != getattr(after, alias):
                _point(name, alias, getattr(after, alias))
        if before.recorded != after.recorded:
            versions.tag_model(name, RECORDED, after.recorded or "")
    except BaseException:
        _put_back(name, before, after)
        raise


def _put_back(name: str, before: Standing, after: Standing) -> None:
    try:
        for alias in (CHALLENGER, PREVIOUS, CHAMPION):
            if getattr(before, alias) != getattr(after, alias):
                _point(name, alias, getattr(before, alias))
        versions.tag_model(name, RECORDED, before.recorded or "")
    except PlumblineError as error:
        logger.warning("models:/%s: its aliases may be half moved, look at them before you go on: %s", name, error)


def _point(name: str, alias: str, version: str | None) -> None:
    if version is None:
        versions.drop_alias(name, alias)
    else:
        versions.set_alias(name, alias, version)
