"""The stage store in a bucket: a stage is uploaded under a name of its own, and there once its manifest is.

stages/STAGE/KEY.json                 the manifest, created by the first writer and by no other
files/STAGE/KEY/ATTEMPT/...           the files of one writer's attempt, which a manifest may name
uploads/STAGE/KEY/ATTEMPT             the lease of the writer, for as long as the upload lasts
leases/STAGE/KEY                      the lease of who computes a stage
used/HOST@PID/STAGE/KEY               says by its name what a process uses
kept/NAME.jsonl                       answers that were paid for
"""

import atexit
import json
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from alignment.errors import StoreError
from alignment.locks import alone
from alignment.remote.cache import Cache
from alignment.remote.leases import Leases
from alignment.remote.objects import Bucket, Listed
from alignment.stages.marks import FOREIGN_DAYS, is_alive
from alignment.stages.store import (
    MANIFEST,
    StageRef,
    Store,
    Stored,
    digest_folder,
    disk_errors,
    put_in_place,
    reference,
    stored,
)

logger = logging.getLogger(__name__)

AT_ONCE = 16  # small requests


class RemoteStore(Store):
    """Finished stages in a bucket, with their copies and unfinished work below `root` on this machine.

    What was filled here and could not be uploaded waits below `.pending`, and is uploaded where it is wanted next.
    """

    def __init__(self, bucket: Bucket, root: Path, bound: int | None = None, leases: Leases | None = None) -> None:
        """`bound` is how many bytes the copies may take; None for as many as the disk has."""
        super().__init__(root)
        self.bucket, self.leases = bucket, leases or Leases(bucket)
        self.cache = Cache(root, bound, self.marks)
        self._used: set[str] = set()
        atexit.register(self._forget)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.bucket.address

    # Finding

    def find(self, stage: str, key: str) -> StageRef | None:
        """See Store. Nothing but the manifest is fetched before the reference's path is asked for."""
        found = self.bucket.get(_manifest(stage, key))
        if found is None:
            return None
        try:
            ref = reference(found[0], stage, key, self._folder(stage, key), self.place)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"stage store: {self.place}/{_manifest(stage, key)} is not readable ({' '.join(str(error).split())}); "
                "delete it to compute the stage again"
            ) from error
        self._note(stage, key)
        return ref

    def fetch(self, stage: str, key: str) -> None:
        """Have a whole copy of a stage on this machine, with those that are a part of it; it stays while this runs."""
        told = self._copy(stage, key)
        for part in told.get("parts", ()):
            self._copy(*part.split("/"))

    def _copy(self, stage: str, key: str) -> dict[str, Any]:
        target = self._folder(stage, key)
        with disk_errors(target, self.root):
            if not self.cache.use(stage, key):
                with alone(self.root / ".work" / f"fetch-{stage}-{key}.lock", f"{stage} is being fetched already"):
                    if not (target / MANIFEST).exists():
                        self._download(stage, key, target)
            found: dict[str, Any] = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        return found

    def _download(self, stage: str, key: str, target: Path) -> None:
        manifest = self.bucket.get(_manifest(stage, key))
        if manifest is None:
            raise StoreError(
                f"stage store: {self.place}/{_manifest(stage, key)} is gone; was it pruned? Run again to compute it"
            )
        told = json.loads(manifest[0])
        if self._adopt(stage, key, manifest[0], target):
            return
        self.cache.make_room(sum(file["bytes"] for file in told["files"].values()))
        draft = self._draft(f"{stage}-{key}")
        try:
            draft.mkdir(parents=True)
            for name, file in told["files"].items():
                path = draft / _inside(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                found = sha256()
                with path.open("wb") as stream:
                    for piece in self.bucket.pieces(f"{_files_of(stage, key, told['attempt'])}/{name}"):
                        found.update(piece)
                        stream.write(piece)
                if found.hexdigest() != file["sha256"]:
                    raise StoreError(
                        f"stage store: {self.place}/{_files_of(stage, key, told['attempt'])}/{name} has not the "
                        "content that its manifest names; `plumbline store verify` looks at all, and after "
                        f"`plumbline store discard {stage}/{key}` it is computed again"
                    )
            (draft / MANIFEST).write_bytes(manifest[0])
            put_in_place(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _adopt(self, stage: str, key: str, manifest: bytes, target: Path) -> bool:
        """Take for the copy what was filled here, where the process died between its upload and this."""
        with alone(self._pending_lock(stage, key), f"{stage} is being uploaded by another process"):
            pending = self._pending(stage, key)
            with suppress(FileNotFoundError):
                if digest_folder(pending) == json.loads(manifest)["digest"]:
                    (pending / MANIFEST).write_bytes(manifest)
                    put_in_place(pending, target)
            shutil.rmtree(pending, ignore_errors=True)
        return target.exists()

    def has(self, stage: str) -> bool:
        """See Store."""
        return next(self.bucket.listing(f"stages/{stage}"), None) is not None

    def earlier(self, stage: str, limit: int = 50) -> list[dict[str, Any]]:
        """See Store."""
        newest = sorted(self.bucket.listing(f"stages/{stage}"), key=lambda each: each.modified, reverse=True)[:limit]
        found = []
        for _, manifest in self._read(newest):
            with suppress(ValueError):
                found.append(json.loads(manifest))
        return [manifest for manifest in found if isinstance(manifest, dict)]

    def _read(self, listed: Iterable[Listed]) -> Iterator[tuple[Listed, bytes]]:
        listed = list(listed)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for each, found in zip(listed, pool.map(lambda each: self.bucket.get(each.name), listed), strict=True):
                if found is not None:
                    yield each, found[0]

    # Writing

    def write(
        self,
        stage: str,
        key: str,
        fill: Callable[[Path], Mapping[str, int]],
        *,
        inputs: Mapping[str, Any] | None = None,
        spent: float = 0.0,
    ) -> StageRef:
        """See Store. What an earlier attempt filled and could not upload is uploaded, and not filled again."""
        target, pending = self._folder(stage, key), self._pending(stage, key)
        self._sweep_drafts()
        if not (pending / MANIFEST).exists():
            with self._filled(stage, key, fill, inputs, spent) as draft, disk_errors(target, self.root):
                put_in_place(draft, pending)
        with alone(self._pending_lock(stage, key), f"{stage} is being uploaded by another process"):
            if (pending / MANIFEST).exists():  # who had the lock before has not uploaded it
                won = self._upload(stage, key, pending)
                with disk_errors(target, self.root):
                    if won:
                        self.cache.use(stage, key)
                        put_in_place(pending, target)
                    shutil.rmtree(pending, ignore_errors=True)
        self.cache.make_room(0)
        found = self.find(stage, key)
        if found is None:
            raise StoreError(f"stage store: {target} vanished while it was written; is another process pruning it?")
        return found.model_copy(update={"cached": False})

    def _pending(self, stage: str, key: str) -> Path:
        return self.root / ".pending" / f"{stage}-{key}"

    def _pending_lock(self, stage: str, key: str) -> Path:
        return self.root / ".pending" / f"{stage}-{key}.lock"

    def _told(self, draft: Path, files: Mapping[str, str]) -> dict[str, Any]:
        sizes = {name: {"sha256": found, "bytes": (draft / name).stat().st_size} for name, found in files.items()}
        return {"files": sizes, "attempt": uuid.uuid4().hex}

    def _upload(self, stage: str, key: str, folder: Path) -> bool:
        """Upload a filled folder; False where another writer was first, whose result then counts."""
        self.sweep()
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        told["attempt"] = attempt = uuid.uuid4().hex  # one that was broken off may be swept meanwhile
        below = _files_of(stage, key, attempt)
        lease = f"uploads/{stage}/{key}/{attempt}"
        with self.leases.hold(lease, f"{stage} is being uploaded", delete=True) as held:
            if self.bucket.get(_manifest(stage, key)) is not None:
                return False
            try:
                for name in told["files"]:
                    self.bucket.upload(folder / _inside(name), f"{below}/{name}")
                if not held.renew():
                    raise _transient(f"stage store: the upload of {stage}/{key} took its lease too long; run again")
                created = self.bucket.create(_manifest(stage, key), json.dumps(told, indent=2, sort_keys=True).encode())
            except BaseException:
                with suppress(StoreError):
                    if not self._names(stage, key, attempt):
                        self._delete_below(below)
                raise
            if created is None:
                self._delete_below(below)
                return False
        (folder / MANIFEST).write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")
        return True

    def _names(self, stage: str, key: str, attempt: str) -> bool:
        """Whether the manifest of a stage names this attempt."""
        found = self.bucket.get(_manifest(stage, key))
        return found is not None and json.loads(found[0]).get("attempt") == attempt

    def _delete_below(self, prefix: str) -> None:
        self.bucket.delete(each.name for each in self.bucket.listing(prefix))

    @contextmanager
    def lock(self, stage: str, key: str, wanted: Callable[[], None] = lambda: None) -> Iterator[None]:
        """See Store: among the processes of this machine by a lock on a file, among machines by a lease."""
        why = f"{stage} is being computed by another process"
        with super().lock(stage, key, wanted), self.leases.hold(f"leases/{stage}/{key}", why, wanted):
            self.pull()
            try:
                yield
            finally:
                with suppress(StoreError):
                    self.push()

    # Deleting

    def discard(self, stage: str, prefix: str, keep: Collection[str] = ()) -> None:
        """See Store: the manifest goes first, so that a stage is gone at once, its copy here and its files after it."""
        for each in list(self.bucket.listing(f"stages/{stage}")):
            key = PurePosixPath(each.name).stem
            if key.startswith(prefix) and key not in keep:
                self.bucket.delete([each.name])
                if self._folder(stage, key).exists():
                    self._discard(self._folder(stage, key))
                self._delete_below(f"files/{stage}/{key}")

    def stored(self) -> Iterator[Stored]:
        """See Store."""
        for each, manifest in self._read(self.bucket.listing("stages")):
            stage, key = _stage_and_key(each)
            with suppress(ValueError, AttributeError, KeyError, TypeError):
                size = each.size + sum(file["bytes"] for file in json.loads(manifest)["files"].values())
                if (found := stored(manifest, stage, key, size)) is not None:
                    yield found

    def damage(self, each: Stored) -> str:
        """See Store. Every file is read."""
        manifest = self.bucket.get(_manifest(each.stage, each.key))
        if manifest is None:
            return ""  # discarded meanwhile
        told = json.loads(manifest[0])
        for name, file in told["files"].items():
            path, found = f"{_files_of(each.stage, each.key, told['attempt'])}/{name}", sha256()
            try:
                for piece in self.bucket.pieces(path):
                    found.update(piece)
            except StoreError as error:
                if error.transient:
                    raise
                return f"{self.place}/{path} is gone"
            if found.hexdigest() != file["sha256"]:
                return (
                    f"{self.place}/{path} has the digest {found.hexdigest()[:12]}, its manifest {file['sha256'][:12]}"
                )
        folder = self._folder(each.stage, each.key)
        if (folder / MANIFEST).exists() and digest_folder(folder) != each.digest:
            return f"its copy {folder} on this machine is not what its manifest says"
        return ""

    def garbage(self, delete: bool) -> tuple[int, int]:
        """See Store: what this machine's dead processes left here, and all that no manifest names in the bucket."""
        count, size = super().garbage(delete)
        for pending in (self.root / ".pending").glob(f"*/{MANIFEST}") if delete else ():
            told = json.loads(pending.read_text(encoding="utf-8"))
            if (manifest := self.bucket.get(_manifest(told["stage"], told["key"]))) is not None:
                self._adopt(told["stage"], told["key"], manifest[0], self._folder(told["stage"], told["key"]))
        attempts: dict[tuple[str, ...], list[Listed]] = {}
        for each in self.bucket.listing("files"):
            attempts.setdefault(tuple(each.name.split("/")[1:4]), []).append(each)
        if delete:
            self.sweep()
        uploading = {tuple(each.name.split("/")[1:4]) for each in self.bucket.listing("uploads")}
        if not delete:
            uploading = {of for of in uploading if not self.leases.over(f"uploads/{'/'.join(of)}")}
        named = set()
        for each, text in self._read(self.bucket.listing("stages")):
            with suppress(ValueError, KeyError):
                named.add((*_stage_and_key(each), str(json.loads(text)["attempt"])))
        for of, files in attempts.items():
            if of not in named and of not in uploading:
                count, size = count + 1, size + sum(each.size for each in files)
                if delete:
                    self.bucket.delete(each.name for each in files)
        day_ago = datetime.now(UTC) - timedelta(days=1)
        ended = [each.name for each in self.bucket.listing("leases") if each.modified < day_ago]
        self.bucket.delete(name for name in ended if delete and self.leases.over(name))
        return count, size

    def sweep(self) -> None:
        """Delete what the uploads of dead processes have left; they cannot finish them any more."""
        for each in list(self.bucket.listing("uploads")):
            if self.leases.take(each.name):
                stage, key, attempt = each.name.split("/")[1:4]
                if not self._names(stage, key, attempt):
                    self._delete_below(_files_of(stage, key, attempt))
                self.bucket.delete([each.name])

    # Use

    def _note(self, stage: str, key: str) -> None:
        """Note in the bucket that this process uses a stage; who may only read cannot, and deletes nothing either."""
        name = f"used/{socket.gethostname()}@{os.getpid()}/{stage}/{key}"
        if name not in self._used:
            self._used.add(name)
            with suppress(StoreError):
                self.bucket.note(name)

    def _forget(self) -> None:
        """Delete the notes of this process, at its end."""
        mine = [name for name in self._used if name.startswith(f"used/{socket.gethostname()}@{os.getpid()}/")]
        with suppress(StoreError):
            self.bucket.delete(mine)

    def used(self) -> set[tuple[str, str]]:
        """See Store. What another machine's process uses counts for a week after it was noted."""
        found, gone = self.marks.alive(), []
        week_ago = datetime.now(UTC) - timedelta(days=FOREIGN_DAYS)
        for each in self.bucket.listing("used"):
            _, process, stage, key = each.name.split("/")
            host, _, pid = process.rpartition("@")
            here = host == socket.gethostname() and pid.isdecimal()
            if not is_alive(int(pid)) if here else each.modified < week_ago:
                gone.append(each.name)
            else:
                found.add((stage, key))
        self.bucket.delete(gone)
        return found

    # What was paid for

    def pull(self) -> None:
        """Fetch the answers that other machines have paid for and this one has not yet."""
        with self._alone_with_kept(), disk_errors(self.kept, self.root):
            seen = self._kept_names()
            new = [each for each in self.bucket.listing("kept") if each.name not in seen]
            for each, lines in self._read(new):
                for line in lines.decode().splitlines():
                    file, text = json.loads(line)
                    path = self.kept / _inside(file)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not path.exists():
                        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
                        draft.write_text(text, encoding="utf-8")
                        draft.rename(path)
                    seen.add(file)
                seen.add(each.name)
            if new:
                self._note_kept(seen)

    def push(self) -> None:
        """Upload the answers that were paid for here and that no other machine has yet, as one object."""
        if not self.kept.is_dir():
            return
        with self._alone_with_kept():
            seen = self._kept_names()
            files = [str(file.relative_to(self.kept)) for file in self.kept.rglob("*.json") if file.name[0] != "."]
            if new := sorted(set(files) - seen):
                lines = [json.dumps([file, (self.kept / file).read_text(encoding="utf-8")]) for file in new]
                name = f"kept/{uuid.uuid4().hex}.jsonl"
                self.bucket.create(name, "\n".join(lines).encode())
                self._note_kept(seen | set(new) | {name})

    def _alone_with_kept(self) -> AbstractContextManager[None]:
        return alone(self.root / ".work" / "kept.lock", "another process shares what was paid for", level=logging.DEBUG)

    def _kept_names(self) -> set[str]:
        """What of the kept answers is both here and in the bucket: files here, and objects there."""
        with suppress(FileNotFoundError):
            return set((self.root / ".kept").read_text(encoding="utf-8").splitlines())
        return set()

    def _note_kept(self, names: set[str]) -> None:
        draft = self.root / f".kept.{uuid.uuid4().hex[:8]}"
        draft.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
        draft.rename(self.root / ".kept")


def _manifest(stage: str, key: str) -> str:
    return f"stages/{stage}/{key}.json"


def _files_of(stage: str, key: str, attempt: str) -> str:
    return f"files/{stage}/{key}/{attempt}"


def _stage_and_key(each: Listed) -> tuple[str, str]:
    _, stage, name = each.name.split("/")
    return stage, name.removesuffix(".json")


def _inside(name: str) -> PurePosixPath:
    """A file's path below a folder; raises StoreError where it would lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"stage store: a manifest names the file {name!r}, which is outside of its stage; delete it")
    return path


def _transient(message: str) -> StoreError:
    error = StoreError(message)
    error.transient = True
    return error
