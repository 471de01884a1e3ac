"""The stage store: one folder a finished stage, found by its key, written whole or not at all."""

import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alignment.errors import GoneError, StoreError
from alignment.locks import alone
from alignment.stages.files import (
    MANIFEST,
    PARTS,
    content,
    digest,
    digest_file,
    digest_folder,
    digests,
    disk_errors,
    files_of,
    put_in_place,
    write_json,
)
from alignment.stages.marks import Marks, of_dead_process, this_process
from alignment.stages.stored import Stored, Underway, stored

__all__ = [
    "MANIFEST",
    "PARTS",
    "StageRef",
    "Store",
    "digest",
    "digest_file",
    "digest_folder",
    "disk_errors",
    "reference",
    "write_json",
]

logger = logging.getLogger(__name__)


class StageRef(BaseModel):
    """A reference to a finished stage: this, and never its data, passes between tasks.

    `path` is the folder, `digest` the hash of its content, `counts` what the stage kept and dropped. `origin` is the
    address of the store that has it, where that is not on this machine's disk.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    stage: str
    key: str
    folder: Path = Field(alias="path")
    """Where `path` is, or will be once it was asked for."""
    digest: str
    counts: dict[str, int]
    seconds: float
    cached: bool = False
    origin: str = Field(default="", exclude=True)

    @property
    def path(self) -> Path:
        """The folder; of a store on other machines it is fetched first. Raises StoreError where it cannot be."""
        if self.origin:
            from alignment.remote.opening import fetch

            fetch(self)
        return self.folder


class Store:
    """Finished stages under `root/<stage>/<key>`, unfinished work under `root/.work/<stage>-<key>`."""

    def __init__(self, root: Path) -> None:
        """Nothing is made below `root` before the first write."""
        self.root = root
        self.marks = Marks(root / ".used")

    shared = False
    """Whether other machines use it too."""
    spares = ""
    """What else than deleting files frees space on this machine's disk."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return str(self.root)

    def disk_errors(self, target: Path) -> AbstractContextManager[None]:
        """Where something below `root` is written: see alignment.stages.files."""
        return disk_errors(target, self.root, self.spares)

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
            ref = reference((folder / MANIFEST).read_bytes(), stage, key, folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"stage store: {folder / MANIFEST} is not readable ({reason}); delete {folder} to compute it again"
            ) from error
        self.marks.note(stage, key)
        return ref

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """What a finished stage was made of, and what is in it. Raises StoreError where it is gone meanwhile."""
        try:
            found: dict[str, Any] = json.loads((self._folder(stage, key) / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise GoneError(f"stage store: {self._folder(stage, key)} is gone; run again to compute it") from error
        return found

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
        target = self._folder(stage, key)
        self._sweep_drafts()
        with self._filled(stage, key, fill, inputs, spent) as draft, self.disk_errors(target):
            put_in_place(draft, target)
        found = self.find(stage, key)
        if found is None:
            raise StoreError(f"stage store: {target} vanished while it was written; is another process cleaning it?")
        return found.model_copy(update={"cached": False})

    @contextmanager
    def _filled(
        self,
        stage: str,
        key: str,
        fill: Callable[[Path], Mapping[str, int]],
        inputs: Mapping[str, Any] | None,
        spent: float,
    ) -> Iterator[Path]:
        """A whole stage with its manifest in a folder of its own, which is deleted if it is not renamed meanwhile."""
        started = time.monotonic()
        draft = self._draft(f"{stage}-{key}")
        try:
            with self.disk_errors(self._folder(stage, key)):
                draft.mkdir(parents=True)
                counts = dict(fill(draft))
                files = digests(draft)
                manifest = {
                    "stage": stage,
                    "key": key,
                    "digest": content(files),
                    "counts": counts,
                    "inputs": dict(inputs or {}),
                    "seconds": round(spent + time.monotonic() - started, 3),
                    "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
                }
                write_json(draft / MANIFEST, manifest | self._told(draft, files) | _parts(draft))
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _told(self, draft: Path, files: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG002 - for a store that needs it
        """What a manifest says besides, of a folder whose `files` have these digests."""
        return {}

    def work(self, stage: str, key: str) -> Path:
        """A folder for what must survive a crash before the stage is finished, such as checkpoints."""
        folder = self.root / ".work" / f"{stage}-{key}"
        with self.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_work(self, stage: str, key: str) -> None:
        """Delete the stage's work folder, once it is finished."""
        shutil.rmtree(self.root / ".work" / f"{stage}-{key}", ignore_errors=True)

    def discard(self, stage: str, prefix: str, keep: Collection[str] = ()) -> None:
        """Delete the finished stages whose key starts with `prefix`, but for some; each is gone at once or whole."""
        for folder in (self.root / stage).glob(f"{prefix}*"):
            if folder.name not in keep:
                self.delete(stage, folder.name)

    def delete(self, stage: str, key: str) -> None:
        """Delete a finished stage, if it is there; it is gone at once or there whole."""
        folder = self._folder(stage, key)
        draft = self._draft(f"{stage}-{key}")
        with suppress(FileNotFoundError):  # another process discards the same
            draft.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)

    def stored(self) -> Iterator[Stored]:
        """Every finished stage, in no order; what cannot be read is left out, with a warning."""
        for file in self.root.glob(f"[!.]*/*/{MANIFEST}"):
            folder = file.parent
            with suppress(FileNotFoundError):  # discarded meanwhile
                size = sum(each.stat().st_size for each in [file, *files_of(folder)])
                if (found := stored(file.read_bytes(), folder.parent.name, folder.name, size)) is not None:
                    yield found

    def damage(self, each: Stored) -> str:
        """What of a finished stage is not as its manifest says, or nothing, also where it is discarded meanwhile."""
        folder = self._folder(each.stage, each.key)
        with suppress(FileNotFoundError):
            found = digest_folder(folder)
            if found != each.digest and (folder / MANIFEST).exists():
                return f"{folder} has the digest {found[:12]}, its manifest {each.digest[:12]}"
        return ""

    def damage_here(self, each: Stored) -> str:  # noqa: ARG002 - for a store that has copies
        """The same of the copy that this machine has, where the store itself is elsewhere."""
        return ""

    def delete_here(self, each: Stored) -> None:
        """Delete that copy alone: it is fetched again."""

    def underway(self) -> Iterator[Underway]:
        """What other machines can go on from; on one disk there is nothing but the work folders."""
        return iter(())

    def damage_underway(self, each: Underway) -> str:  # noqa: ARG002 - for a store that has some
        """What of it is not as its manifest says, or nothing."""
        return ""

    def delete_underway(self, each: Underway) -> None:
        """Delete it: the stage is begun anew, or goes on from what a machine has in its work folder."""

    def used(self) -> set[tuple[str, str]]:
        """Stage and key of what running processes have found here or written."""
        return self.marks.alive()

    def garbage(self, delete: bool) -> tuple[int, int]:
        """How many unfinished results dead processes have left, and their bytes; `delete` deletes them."""
        dead = [draft for draft in (self.root / ".draft").glob("*@*@*@*") if self._is_dead(draft)]
        size = sum(file.stat().st_size for draft in dead for file in draft.rglob("*") if file.is_file())
        for draft in dead if delete else ():
            shutil.rmtree(draft, ignore_errors=True)
        return len(dead), size

    @contextmanager
    def lock(self, stage: str, key: str, wanted: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Let one process, and one thread of it, compute a stage; others wait, and should look again afterwards.

        Who waits calls `wanted` now and then, which may raise. The lock of a process that died is free.
        """
        path = self.root / ".work" / f"{stage}-{key}.lock"
        with ExitStack() as held:
            with self.disk_errors(path):
                held.enter_context(alone(path, f"{stage} is being computed by another process", wanted))
            yield

    def _draft(self, name: str) -> Path:
        """A new name below `.draft` that says whose it is."""
        return self.root / ".draft" / f"{name}@{this_process()}@{uuid.uuid4().hex[:8]}"

    def _sweep_drafts(self) -> None:
        """Delete the drafts and marks of processes that died."""
        self.marks.alive()
        for draft in (self.root / ".draft").glob("*@*@*@*"):
            if self._is_dead(draft):
                shutil.rmtree(draft, ignore_errors=True)

    def _is_dead(self, draft: Path) -> bool:
        _, host, pid, _ = draft.name.rsplit("@", 3)
        return of_dead_process(draft, host, pid)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / stage / key


def reference(manifest: bytes, stage: str, key: str, folder: Path, origin: str = "") -> StageRef:
    """The reference to a stage of this manifest; raises ValueError, KeyError or TypeError where it says too little."""
    told = json.loads(manifest)
    return StageRef(
        stage=stage,
        key=key,
        path=folder,
        digest=told["digest"],
        counts=told["counts"],
        seconds=told["seconds"],
        cached=True,
        origin=origin,
    )


def _parts(folder: Path) -> dict[str, list[str]]:
    from alignment.stages.parts import parts_of

    return {"parts": parts} if (parts := parts_of(folder)) else {}
