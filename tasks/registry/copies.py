"""This home's copies of registered models, and drafts of models: when each was last used, and which may be deleted."""

import errno
import logging
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from alignment.stages.marks import Marks
from tasks.home import home

logger = logging.getLogger("plumbline")

DRAFT = re.compile(r"\..+-\w{8,}")
"""The name of what is written under it and then renamed, of a temporary folder, and of what is being deleted."""

DRAFTS = ("models/.*", "models/[!.]*/.*", "bases/.*", ".model-*")
"""Where they lie below a home."""

QUIET = timedelta(days=1)  # in which whoever writes one has written something


@dataclass(frozen=True)
class Copy:
    """A folder by its path below this home; the bytes that no other file shares, and when it was last used."""

    name: str
    size: int
    used: datetime


def note_use(copy: Path, folder: Path) -> None:
    """This process uses a copy below `folder`, which is there or to come; so nobody deletes it while it runs."""
    _marks(folder).note(*_named(copy.relative_to(folder)))
    with suppress(OSError):  # it is to come, or on a disk that nothing is written to
        os.utime(copy)


def unused(before: datetime) -> list[Copy]:
    """The copies that nobody has asked for since, and no running process uses, by name."""
    folder = home() / "models"
    in_use = _marks(folder).alive()
    folders = (file.parent for depth in ("[!.]*", "[!.]*/[!.]*") for file in folder.glob(f"{depth}/config.json"))
    spare = [each for each in folders if _named(each.relative_to(folder)) not in in_use]
    found = [Copy(_below_home(each), _own(told), _written(told[:1])) for each in spare if (told := _entries(each))]
    return sorted((each for each in found if each.used < before), key=lambda each: each.name)


def drafts(before: datetime) -> list[Copy]:
    """Drafts that nobody has written to since, nor for a day: of processes that died. By name."""
    before = min(before, datetime.now(UTC) - QUIET)
    folders = (each for depth in DRAFTS for each in home().glob(depth) if DRAFT.fullmatch(each.name) and each.is_dir())
    found = [Copy(_below_home(each), _own(told), _written(told)) for each in folders if (told := _entries(each))]
    return sorted((each for each in found if each.used < before), key=lambda each: each.name)


def delete(copy: Copy) -> bool:
    """Delete a copy, for others whole or not at all, unless a process has asked for it since.

    Returns whether it did. Where the disk refuses, as with a copy that another user made, a warning says so.
    """
    folder, place = home() / "models", home() / copy.name
    if _named(place.relative_to(folder)) in _marks(folder).alive():
        return False

    def go() -> None:
        if place.exists() and not os.access(place, os.W_OK):  # it might be renamed, and its files not deleted
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        away = folder / f".deleted-{uuid.uuid4().hex}"
        place.rename(away)
        shutil.rmtree(away, ignore_errors=True)

    return _done(go, place)


def delete_draft(draft: Copy) -> bool:
    """Delete a draft; returns and tells as `delete` does."""
    place = home() / draft.name
    return _done(lambda: shutil.rmtree(place), place)


def _done(go: Callable[[], None], place: Path) -> bool:
    """Whether a deletion came to its end; what the disk refuses is told in one line."""
    try:
        go()
    except FileNotFoundError:  # somebody else has deleted it meanwhile
        return False
    except OSError as error:
        logger.warning(
            "store prune: %s cannot be deleted (%s) and is kept; whoever made it may delete it", place, error.strerror
        )
        return False
    return True


def _entries(folder: Path) -> list[os.stat_result]:
    """What the disk says of a folder, first, and of all below it; nothing of what is gone or may not be read."""
    paths = [str(folder), *(f"{at}/{name}" for at, below, files in os.walk(folder) for name in (*below, *files))]
    found = []
    for path in paths:
        with suppress(OSError):
            found.append(os.lstat(path))
    return found


def _own(found: list[os.stat_result]) -> int:
    return sum(each.st_size for each in found if stat.S_ISREG(each.st_mode) and each.st_nlink == 1)


def _written(found: list[os.stat_result]) -> datetime:
    return datetime.fromtimestamp(max(each.st_mtime for each in found), UTC)


def _below_home(folder: Path) -> str:
    return folder.relative_to(home()).as_posix()


def _named(copy: Path) -> tuple[str, str]:
    """How the marks name a copy, by its path below `models/`."""
    first, _, rest = copy.as_posix().partition("/")
    return first, rest


@cache
def _marks(folder: Path) -> Marks:
    return Marks(folder / ".used")
