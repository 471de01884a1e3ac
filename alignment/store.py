"""The stage store: one folder a finished stage, found by its key, written whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from alignment.errors import PlumblineError, StoreError

MANIFEST = "manifest.json"

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES)
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class StageRef(BaseModel):
    """A reference to a finished stage: this, and never its data, passes between tasks.

    `path` is the folder, `digest` the hash of its content, `counts` what the stage kept and dropped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    path: Path
    digest: str
    counts: dict[str, int]
    seconds: float
    cached: bool = False


class Store:
    """Finished stages under `root/<stage>/<key>`, unfinished work under `root/.work/<stage>-<key>`."""

    def __init__(self, root: Path) -> None:
        """Nothing is made below `root` before the first write."""
        self.root = root

    def find(self, stage: str, key: str) -> StageRef | None:
        """The finished stage with this key, or None. Raises StoreError where its manifest cannot be read."""
        folder = self._folder(stage, key)
        if not (folder / MANIFEST).exists():
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return StageRef(
                stage=stage,
                key=key,
                path=folder,
                digest=manifest["digest"],
                counts=manifest["counts"],
                seconds=manifest["seconds"],
                cached=True,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"stage store: {folder / MANIFEST} is not readable ({reason}); delete {folder} to compute it again"
            ) from error

    def write(
        self,
        stage: str,
        key: str,
        fill: Callable[[Path], Mapping[str, int]],
        *,
        inputs: Mapping[str, Any] | None = None,
    ) -> StageRef:
        """Have `fill` write a stage into a fresh folder, and rename it into place once it is whole.

        `fill` returns the stage's counts; `inputs` (config, parents, code version) goes into the manifest.
        A process that dies in between leaves nothing under the key. Raises StoreError when the disk refuses.
        """
        started = time.monotonic()
        target = self._folder(stage, key)
        draft = self.root / ".draft" / f"{stage}-{key}-{uuid.uuid4().hex[:8]}"
        try:
            with _disk_errors(target):
                draft.mkdir(parents=True)
                counts = dict(fill(draft))
                seconds = time.monotonic() - started
                manifest = {
                    "stage": stage,
                    "key": key,
                    "digest": digest_folder(draft),
                    "counts": counts,
                    "inputs": dict(inputs or {}),
                    "seconds": round(seconds, 3),
                    "written": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                write_json(draft / MANIFEST, manifest)
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
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        found = self.find(stage, key)
        if found is None:
            raise StoreError(f"stage store: {target} vanished while it was written; is another process cleaning it?")
        return found.model_copy(update={"cached": False})

    def work(self, stage: str, key: str) -> Path:
        """A folder for what must survive a crash before the stage is finished, such as checkpoints."""
        folder = self.root / ".work" / f"{stage}-{key}"
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_work(self, stage: str, key: str) -> None:
        """Delete the stage's work folder, once it is finished."""
        shutil.rmtree(self.root / ".work" / f"{stage}-{key}", ignore_errors=True)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, the same for every order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 of every file's path and content below a folder, the manifest left out."""
    return digest({str(file.relative_to(folder)): digest_file(file) for file in _files(folder)})


def digest_file(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name beside `path`, then rename it."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False, default=str)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises, in whichever library notices it, into one StoreError."""
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno in _DISK_ERRORS else None
        reason = reason or next((os.strerror(code) for code in _DISK_ERRORS if os.strerror(code) in str(error)), None)
        if reason is None:
            raise
        raise StoreError(
            f"stage store: cannot write {target}: {reason}; nothing half-written was kept. "
            "Free some space or point PLUMBLINE_HOME at another disk, then run again"
        ) from error
