"""What a store lists of its finished stages, and which of them nothing needs any more."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Underway:
    """What a store has of a stage that is not finished, so that another machine can go on: checkpoints and the like.

    It was `saved` by `host`, has so many bytes, and `held` says whether somebody computes the stage now.
    """

    stage: str
    key: str
    saved: datetime
    size: int
    host: str
    held: bool


@dataclass(frozen=True)
class Stored:
    """A finished stage as a store lists it: when it was written, its size in bytes, and the content that it needed."""

    stage: str
    key: str
    digest: str
    written: datetime
    size: int
    parents: Mapping[str, str]
    """Digests by stage."""
    parts: tuple[str, ...] = ()
    """`STAGE/KEY` of those whose files are a part of it."""


def stored(manifest: bytes, stage: str, key: str, size: int) -> Stored | None:
    """A stage as its store lists it, or None, with a warning, where its manifest says too little."""
    try:
        told = json.loads(manifest)
        written, parents = datetime.fromisoformat(told["written"]), told["inputs"].get("parents") or {}
        return Stored(stage, key, told["digest"], written, size, parents, tuple(told.get("parts", ())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning(
            "stage store: the manifest of %s/%s is not readable (%s)", stage, key, " ".join(str(error).split())
        )
        return None


def unneeded(
    listed: Iterable[Stored], wanted: Iterable[tuple[str, str]], used: Iterable[tuple[str, str]], before: datetime
) -> list[Stored]:
    """The stages that were written before a moment and that nothing needs, those first that need others.

    `wanted` are stages and digests that are needed for good, `used` stages and keys that running processes use. What
    is younger is needed, and of all that is needed whatever it was made from, and its parts.
    """
    listed = list(listed)
    by_digest: dict[tuple[str, str], list[Stored]] = {}
    for each in listed:
        by_digest.setdefault((each.stage, each.digest), []).append(each)
    by_key = {(each.stage, each.key): each for each in listed}
    waiting = [each for each in listed if each.written >= before]
    waiting += [each for of in wanted for each in by_digest.get(of, ())]
    waiting += [by_key[of] for of in used if of in by_key]
    needed: set[tuple[str, str]] = set()
    while waiting:
        each = waiting.pop()
        if (each.stage, each.key) not in needed:
            needed.add((each.stage, each.key))
            waiting += [parent for of in each.parents.items() for parent in by_digest.get(of, ())]
            waiting += [by_key[of] for of in (_stage_and_key(part) for part in each.parts) if of in by_key]
    spare = [each for each in listed if (each.stage, each.key) not in needed]
    return sorted(spare, key=lambda each: each.written, reverse=True)


def _stage_and_key(part: str) -> tuple[str, str]:
    stage, _, key = part.partition("/")
    return stage, key
