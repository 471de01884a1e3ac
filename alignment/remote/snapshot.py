"""The unfinished work of a stage as it stood at one moment: which files it has, and which objects hold them."""

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel


class Kept(BaseModel):
    """A file of a snapshot: its object, its content's SHA-256 and length, and when it was changed last, in ns."""

    object: str
    sha256: str
    bytes: int
    changed: int

    def is_of(self, file: os.stat_result) -> bool:
        """Whether a file has not been changed since."""
        return (self.bytes, self.changed) == (file.st_size, file.st_mtime_ns)


class Snapshot(BaseModel):
    """What lies in a bucket as the manifest of a stage's unfinished work; `host` is whose it is, for people."""

    id: str
    saved: datetime
    host: str
    files: dict[str, Kept]

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def newest(self) -> int:
        """When the last of its files was changed, in ns by the clock of the machine that wrote it."""
        return max((file.changed for file in self.files.values()), default=0)


def resumable(folder: Path) -> dict[str, os.stat_result]:
    """The files of a work folder from which a stage goes on, by their paths; names that begin with a dot are not."""
    found: dict[str, os.stat_result] = {}
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        for path in (Path(where, name) for name in files if name[0] != "."):
            try:
                found[str(path.relative_to(folder))] = path.stat()
            except FileNotFoundError:  # replaced meanwhile
                continue
    return found


def same_files(one: dict[str, os.stat_result], other: dict[str, os.stat_result]) -> bool:
    """Whether two looks at a folder found the same files, of which some may have grown."""
    return _numbers(one) == _numbers(other)


def newest(files: Iterable[os.stat_result]) -> int:
    """When the last of some files was changed, in ns; 0 without any."""
    return max((file.st_mtime_ns for file in files), default=0)


def _numbers(files: dict[str, os.stat_result]) -> dict[str, int]:
    return {name: file.st_ino for name, file in files.items()}
