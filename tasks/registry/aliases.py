"""A registered model's aliases: which versions they name, what a decision makes of them, and moving them in MLflow."""

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
"""The model's tag with the champion that was last decided on here; a champion alias that differs was set by hand."""


@dataclass(frozen=True)
class Aliases:
    """The versions that the aliases point at, and the champion on record; None for an alias that is not set."""

    champion: str | None = None
    previous: str | None = None
    challenger: str | None = None
    recorded: str | None = None

    def after_promotion(self, version: str) -> "Aliases":
        """The aliases with `version` as champion, and the champion before it as previous.

        If `version` is the champion already, set by hand or by a promotion that died midway, the record says which
        version was champion before it. So promoting twice is the same as promoting once.
        """
        before = self.recorded if self.champion == version else self.champion
        before = self.previous if before in (None, version) else before
        return Aliases(
            champion=version,
            previous=None if before == version else before,
            challenger=None if self.challenger == version else self.challenger,
            recorded=version,
        )

    def after_rollback(self) -> "Aliases":
        """The aliases with champion and previous exchanged, if there is a previous; completes a rollback that died."""
        if self.champion is not None and self.champion == self.previous:
            lost = None if self.recorded == self.champion else self.recorded
            return replace(self, previous=lost, recorded=self.champion)
        if self.previous is None:
            return self
        return replace(self, champion=self.previous, previous=self.champion, recorded=self.previous)

    def after_revert(self) -> "Aliases":
        """The aliases with the champion on record as champion, or with none if none is on record."""
        return replace(self, champion=self.recorded)


def read_aliases(name: str) -> Aliases:
    """A model's aliases now, read in one request. Raises ModelError if no such model is registered."""
    found = versions.read_model(name)
    if found is None:
        raise ModelError(f"models:/{name}: no such model in MLflow at {place().shown}; name a registered one")
    return Aliases(
        champion=found.aliases.get(CHAMPION),
        previous=found.aliases.get(PREVIOUS),
        challenger=found.aliases.get(CHALLENGER),
        recorded=found.tags.get(RECORDED) or None,
    )


@contextmanager
def locked(name: str) -> Iterator[None]:
    """A lock per model: one thread of one process of this home decides on it, or registers a version, at a time."""
    with store().lock("promotion", digest(name)[:20]):
        yield


def move_aliases(name: str, before: Aliases, after: Aliases) -> None:
    """Move the aliases and the record from `before` to `after`; the caller holds the lock.

    MLflow has no transactions. The champion moves first and the record last, so that a later promotion can tell which
    version was champion before. After an error what was moved is put back, as far as MLflow allows, and it is raised.
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


def _put_back(name: str, before: Aliases, after: Aliases) -> None:
    try:
        for alias in (CHALLENGER, PREVIOUS, CHAMPION):
            if getattr(before, alias) != getattr(after, alias):
                _point(name, alias, getattr(before, alias))
        versions.tag_model(name, RECORDED, before.recorded or "")
    except PlumblineError as error:
        logger.warning("models:/%s: its aliases may be half moved, check them before you go on: %s", name, error)


def _point(name: str, alias: str, version: str | None) -> None:
    if version is None:
        versions.drop_alias(name, alias)
    else:
        versions.set_alias(name, alias, version)
