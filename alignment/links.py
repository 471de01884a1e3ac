"""Copies of large files that share their blocks on the disk where it allows that: by a reference, or by a link."""

import os
import shutil
import sys
from pathlib import Path

FICLONE = 0x40049409
"""Linux's request to share a file's blocks until one of the two is written to; Btrfs, XFS and others know it."""


def share(source: Path, target: Path, *, link: bool = False) -> None:
    """Make `target` a copy of a file, by reference where the file system does that; with `link` else by a hard link.

    A link is for what nobody writes to in place: neither name's content may change any more. Otherwise, and on another
    disk, the bytes are copied.
    """
    if _referred(source, target):
        return
    if link:
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)


def _referred(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    from fcntl import ioctl

    with source.open("rb") as given, target.open("xb") as copy:
        try:
            ioctl(copy.fileno(), FICLONE, given.fileno())
        except OSError:
            pass
        else:
            return True
    target.unlink()
    return False
