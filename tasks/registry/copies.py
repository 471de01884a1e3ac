"""This home's copies of registered models: when each was last asked for, and which may be deleted."""

import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from alignment.stages.marks import Marks
from tasks.home import home


@dataclass(frozen=True)
class Copy:
    """A copy, by its path below `models/`; the bytes that no other file shares, and when it was last asked for."""

    name: str
    size: int
    used: datetime


def note_use(copy: Path, folder: Path) -> None:
    """This process uses a copy below `folder`, which is there or to come; so nobody deletes it while it runs."""
    _marks(folder).note(*_named(copy.relative_to(folder).as_posix()))
    with suppress(OSError):  # it is to come, or on a disk that nothing is written to
        os.utime(copy)


def unused(before: datetime) -> list[Copy]:
    """The copies that nobody has asked for since, and no running process uses, by name."""
    folder = home() / "models"
    in_use = _marks(folder).alive()
    folders = (file.parent for depth in ("[!.]*", "[!.]*/[!.]*") for file in folder.glob(f"{depth}/config.json"))
    found = sorted((_read(each, folder) for each in folders), key=lambda each: each.name)
    return [each for each in found if each.used < before and _named(each.name) not in in_use]


def delete(copy: Copy) -> bool:
    """Delete a copy, for others whole or not at all, unless a process has asked for it since."""
    folder = home() / "models"
    if _named(copy.name) in _marks(folder).alive():
        return False
    away = folder / f".deleted-{uuid.uuid4().hex}"
    with suppress(FileNotFoundError):
        (folder / copy.name).rename(away)
    shutil.rmtree(away, ignore_errors=True)
    return True


def _read(copy: Path, folder: Path) -> Copy:
    own = [told.st_size for told in (file.stat() for file in copy.rglob("*") if file.is_file()) if told.st_nlink == 1]
    used = datetime.fromtimestamp(copy.stat().st_mtime, UTC)
    return Copy(copy.relative_to(folder).as_posix(), sum(own), used)


def _named(name: str) -> tuple[str, str]:
    first, _, rest = name.partition("/")
    return first, rest


@cache
def _marks(folder: Path) -> Marks:
    return Marks(folder / ".used")
