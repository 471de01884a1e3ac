"""The stage store: one folder a finished stage, found by its key, written whole or not at all."""

import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from alignment.errors import PlumblineError, StoreError
from alignment.locks import alone

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PARTS = "parts.json"
"""In the folder of a stage in parts: where they are, which is nothing of its content. See alignment.stages.parts."""

FOREIGN_DRAFT_DAYS = 7.0  # after which the draft of another host is taken for dead; its processes cannot be asked

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

    @property
    def kept(self) -> Path:
        """A folder for what outlives runs, such as answers that were paid for; who writes to it makes it."""
        return self.root / "kept"

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

    def has(self, stage: str) -> bool:
        """Whether there is any finished result of a stage, whatever its key."""
        return any((self.root / stage).glob(f"*/{MANIFEST}"))

    def earlier(self, stage: str, limit: int = 50) -> list[dict[str, Any]]:
        """The manifests of a stage's newest results, the newest first; what cannot be read is left out."""
        dated: list[tuple[float, Path]] = []
        for file in (self.root / stage).glob(f"*/{MANIFEST}"):
            with suppress(OSError):
                dated.append((file.stat().st_mtime, file))
        found = []
        for _, file in sorted(dated, reverse=True)[:limit]:
            with suppress(OSError, ValueError):
                found.append(json.loads(file.read_text(encoding="utf-8")))
        return [manifest for manifest in found if isinstance(manifest, dict)]

    def write(
        self,
        stage: str,
        key: str,
        fill: Callable[[Path], Mapping[str, int]],
        *,
        inputs: Mapping[str, Any] | None = None,
        spent: float = 0.0,
    ) -> StageRef:
        """Have `fill` write a stage into a fresh folder, and rename it into place once it is whole.

        `fill` returns the stage's counts; `inputs` (config, parents, code version) goes into the manifest, and so do
        the seconds that it took, with those that were `spent` before on parts of it.
        A process that dies in between leaves nothing under the key. Raises StoreError when the disk refuses.
        """
        started = time.monotonic()
        target = self._folder(stage, key)
        self._sweep_drafts()
        draft = self._draft(f"{stage}-{key}")
        try:
            with disk_errors(target, self.root):
                draft.mkdir(parents=True)
                counts = dict(fill(draft))
                seconds = spent + time.monotonic() - started
                manifest = {
                    "stage": stage,
                    "key": key,
                    "digest": digest_folder(draft),
                    "counts": counts,
                    "inputs": dict(inputs or {}),
                    "seconds": round(seconds, 3),
                    "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
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
        with disk_errors(folder, self.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_work(self, stage: str, key: str) -> None:
        """Delete the stage's work folder, once it is finished."""
        shutil.rmtree(self.root / ".work" / f"{stage}-{key}", ignore_errors=True)

    def discard(self, stage: str, prefix: str, keep: Collection[str] = ()) -> None:
        """Delete the finished stages whose key starts with `prefix`, but for some; each is gone at once or whole."""
        for folder in (self.root / stage).glob(f"{prefix}*"):
            if folder.name in keep:
                continue
            draft = self._draft(f"{stage}-{folder.name}")
            with suppress(FileNotFoundError):  # another process discards the same
                draft.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(draft)
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def lock(self, stage: str, key: str, wanted: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Let one process, and one thread of it, compute a stage; others wait, and should look again afterwards.

        Who waits calls `wanted` now and then, which may raise. The lock of a process that died is free.
        """
        path = self.root / ".work" / f"{stage}-{key}.lock"
        with ExitStack() as held:
            with disk_errors(path, self.root):
                held.enter_context(alone(path, f"{stage} is being computed by another process", wanted))
            yield

    def _draft(self, name: str) -> Path:
        """A new name below `.draft` that says whose it is."""
        return self.root / ".draft" / f"{name}@{socket.gethostname()}@{os.getpid()}@{uuid.uuid4().hex[:8]}"

    def _sweep_drafts(self) -> None:
        """Delete the drafts of processes that died."""
        for draft in (self.root / ".draft").glob("*@*@*@*"):
            _, host, pid, _ = draft.name.rsplit("@", 3)
            with suppress(OSError):
                old = time.time() - draft.stat().st_mtime > FOREIGN_DRAFT_DAYS * 86_400
                if not is_alive(int(pid)) if host == socket.gethostname() else old:
                    shutil.rmtree(draft, ignore_errors=True)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, the same for every order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 of every file's path and content below a folder; manifest and list of parts left out."""
    files = (file for file in _files(folder) if file != folder / PARTS)
    return digest({str(file.relative_to(folder)): digest_file(file) for file in files})


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


def is_alive(pid: int) -> bool:
    """Whether a process of this host has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)


@contextmanager
def disk_errors(target: Path, root: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises, in whichever library notices it, into one StoreError.

    A refused permission counts only below `root`: elsewhere it is a file that the user gave.
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
        raise StoreError(
            f"stage store: cannot write {target}: {reason}; nothing half-written was kept. "
            "Free some space or point PLUMBLINE_HOME at another disk, then run again"
        ) from error
