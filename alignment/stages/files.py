"""Files of a stage: their hashes, JSON that is written whole, and what a disk may refuse."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import PlumblineError, StoreError

MANIFEST = "manifest.json"
PARTS = "parts.json"
"""In the folder of a stage in parts: where they are, which is nothing of its content. See alignment.stages.parts."""

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, the same for every order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 of every file's path and content below a folder; manifest and list of parts left out."""
    return content(digests(folder))


def content(files: Mapping[str, str]) -> str:
    """The digest of a stage whose files, by their paths, have these digests."""
    return digest({name: found for name, found in files.items() if name != PARTS})


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file's content by its path below a folder, the manifest left out."""
    return {str(file.relative_to(folder)): digest_file(file) for file in files_of(folder)}


def digest_file(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name beside `path`, then rename it."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as stream:  # which is JSON's own escape
            json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False, default=str)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def put_in_place(draft: Path, target: Path) -> None:
    """Rename a whole stage; where it is there already, that one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        if not (target / MANIFEST).exists():
            raise StoreError(
                f"stage store: {target} is in the way and holds no {MANIFEST}; delete it, then run again"
            ) from error


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder but its manifest, by name."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)


@contextmanager
def disk_errors(target: Path, root: Path, instead: str = "") -> Iterator[None]:
    """Turn what a full or read-only disk raises, in whichever library notices it, into one StoreError.

    A refused permission counts only below `root`: elsewhere it is a file that the user gave. `instead` is what else
    frees space there than deleting files.
    """
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno in _DISK_ERRORS else None
        reason = reason or next((os.strerror(code) for code in _DISK_ERRORS if os.strerror(code) in str(error)), None)
        elsewhere = reason == os.strerror(errno.EACCES) and str(root) not in str(error)
        if reason is None or elsewhere:
            raise
        other = f", {instead}" if instead else ""
        raise StoreError(
            f"stage store: cannot write {target}: {reason}; nothing half-written was kept. "
            f"Free some space{other} or point PLUMBLINE_HOME at another disk, then run again"
        ) from error
