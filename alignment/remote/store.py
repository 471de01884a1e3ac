"""The stage store in a bucket, with copies on this machine; alignment/remote/layout.py has where things lie."""

import atexit
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from alignment.errors import GoneError, StoreError
from alignment.locks import alone
from alignment.remote.cache import Cache
from alignment.remote.layout import files_of, inside, lease_of, manifest_of, stage_and_key
from alignment.remote.leases import Lease, Leases
from alignment.remote.objects import Bucket
from alignment.remote.paid import Paid
from alignment.remote.saving import EVERY_SECONDS, Saving
from alignment.remote.unfinished import Unfinished
from alignment.remote.uploads import Uploads
from alignment.stages.files import MANIFEST, digest_folder, put_in_place
from alignment.stages.marks import is_dead, this_process
from alignment.stages.store import StageRef, Store, reference
from alignment.stages.stored import Stored, Underway, stored


class RemoteStore(Store):
    """Finished stages in a bucket, with their copies and unfinished work below `root` on this machine.

    Of unfinished work the bucket has a copy, some minutes old, with which another machine goes on. What was filled here
    and could not be uploaded waits below `.pending`, and is uploaded where it is wanted next.
    """

    shared = True
    spares = "bound the copies by PLUMBLINE_STORE_CACHE_GB (or lower it)"

    def __init__(
        self,
        bucket: Bucket,
        root: Path,
        bound: int | None = None,
        leases: Leases | None = None,
        every: float = EVERY_SECONDS,
    ) -> None:
        """`bound` is how many bytes the copies may take; None for as many as the disk has.

        Unfinished work is looked at `every` so many seconds, and uploaded if there is more of it.
        """
        super().__init__(root)
        self.bucket, self.leases = bucket, leases or Leases(bucket)
        self.cache = Cache(root, bound, self.marks)
        self.uploads, self.paid = Uploads(bucket, self.leases), Paid(bucket, self.kept)
        self.unfinished, self.every = Unfinished(bucket, self.leases), every
        self._held: dict[tuple[str, str], Lease] = {}
        self._saving: dict[tuple[str, str], Saving] = {}
        self._used: set[str] = set()
        atexit.register(self._forget)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.bucket.address

    # Finding

    def find(self, stage: str, key: str) -> StageRef | None:
        """See Store. Nothing but the manifest is fetched before the reference's path is asked for."""
        found = self.bucket.get(manifest_of(stage, key))
        if found is None:
            return None
        try:
            ref = reference(found[0], stage, key, self._folder(stage, key), self.place)
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(
                f"stage store: {self.place}/{manifest_of(stage, key)} is not readable ({reason}); delete it to compute "
                "the stage again"
            ) from error
        self._note(stage, key)
        return ref

    def fetch(self, stage: str, key: str, digest: str = "") -> None:
        """Have a whole copy of a stage on this machine, with those that are a part of it; it stays while this runs.

        Raises StoreError where its content has not this `digest`, if one is given.
        """
        told = self._copy(stage, key, digest)
        if digest and told["digest"] != digest:
            raise StoreError(
                f"stage store: {self.place}/{manifest_of(stage, key)} is not what this run has found: it was deleted, "
                "and came out otherwise when it was computed again; run again"
            )
        parents = told["inputs"].get("parents") or {}
        for part in told.get("parts", ()):
            folder, _, name = part.partition("/")
            self._copy(folder, name, parents.get(part, ""))

    def _copy(self, stage: str, key: str, digest: str) -> dict[str, Any]:
        """Its manifest. A copy with another digest is looked up: the bucket's stage may be another by now."""
        target = self._folder(stage, key)
        with self.disk_errors(target):
            found = _manifest_in(target) if self.cache.use(stage, key) else None
            if found is None or (digest and found["digest"] != digest):
                with alone(self.root / ".work" / f"fetch-{stage}-{key}.lock", f"{stage} is being fetched already"):
                    manifest = self._manifest(stage, key)
                    there = json.loads(manifest)["digest"]
                    if (target / MANIFEST).exists() and _manifest_in(target)["digest"] != there:
                        super().delete(stage, key)
                    if not (target / MANIFEST).exists():
                        self._download(stage, key, target, manifest)
                found = _manifest_in(target)
        return found

    def _download(self, stage: str, key: str, target: Path, manifest: bytes) -> None:
        told = json.loads(manifest)
        if self._adopt(stage, key, manifest, target):
            return
        self.cache.make_room(sum(file["bytes"] for file in told["files"].values()))
        draft = self._draft(f"{stage}-{key}")
        try:
            draft.mkdir(parents=True)
            for name, file in told["files"].items():
                found = f"{files_of(stage, key, told['attempt'])}/{name}"
                if self.bucket.download(found, draft / inside(name)) != file["sha256"]:
                    raise StoreError(
                        f"stage store: {self.place}/{found} has not the content that its manifest names; "
                        "`plumbline store verify --delete` deletes what is damaged, and the same run computes it again"
                    )
            (draft / MANIFEST).write_bytes(manifest)
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

    def manifest(self, stage: str, key: str) -> dict[str, Any]:
        """See Store."""
        found: dict[str, Any] = json.loads(self._manifest(stage, key))
        return found

    def _manifest(self, stage: str, key: str) -> bytes:
        found = self.bucket.get(manifest_of(stage, key))
        if found is None:
            raise GoneError(
                f"stage store: {self.place}/{manifest_of(stage, key)} is gone; was it pruned? Run again to compute it, "
                "after `plumbline store verify --delete` where it was a part of a stage"
            )
        return found[0]

    def has(self, stage: str) -> bool:
        """See Store."""
        return next(self.bucket.listing(f"stages/{stage}"), None) is not None

    def earlier(self, stage: str, limit: int = 50) -> list[dict[str, Any]]:
        """See Store."""
        newest = sorted(self.bucket.listing(f"stages/{stage}"), key=lambda each: each.modified, reverse=True)[:limit]
        found = []
        for _, manifest in self.bucket.read(newest):
            with suppress(ValueError):
                found.append(json.loads(manifest))
        return [manifest for manifest in found if isinstance(manifest, dict)]

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
            with self._filled(stage, key, fill, inputs, spent) as draft, self.disk_errors(target):
                put_in_place(draft, pending)
        if (saving := self._saving.get((stage, key))) is not None:
            saving.end(last=False)
        with alone(self._pending_lock(stage, key), f"{stage} is being uploaded by another process"):
            if (pending / MANIFEST).exists():  # who had the lock before has not uploaded it
                won = self.uploads.upload(stage, key, pending)
                with self.disk_errors(target):
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
        return {"files": sizes}

    @contextmanager
    def lock(self, stage: str, key: str, wanted: Callable[[], None] = lambda: None) -> Iterator[None]:
        """See Store: among the processes of this machine by a lock on a file, among machines by a lease."""
        why = f"{stage} is being computed by another process"
        with super().lock(stage, key, wanted), self.leases.hold(lease_of(stage, key), why, wanted) as lease:
            self.paid.pull()
            self._held[stage, key] = lease
            try:
                yield
            finally:
                del self._held[stage, key]
                if (saving := self._saving.pop((stage, key), None)) is not None:
                    saving.end(last=True)
                with suppress(StoreError):
                    self.paid.push()

    def work(self, stage: str, key: str) -> Path:
        """See Store. Where this process has the lock, what another machine has kept of it is here, if it is newer."""
        folder = super().work(stage, key)
        lease = self._held.get((stage, key))
        if lease is not None and (stage, key) not in self._saving:
            saving = Saving(self.bucket, stage, key, folder, lease, self.every)
            with self.disk_errors(folder):
                saving.begin()
            self._saving[stage, key] = saving
        return folder

    def clear_work(self, stage: str, key: str) -> None:
        """See Store; what the bucket has of it is deleted as well, now or when the store is pruned."""
        if (saving := self._saving.pop((stage, key), None)) is not None:
            saving.end(last=False)
        super().clear_work(stage, key)
        with suppress(StoreError):
            self.unfinished.delete(stage, key)

    # Deleting

    def discard(self, stage: str, prefix: str, keep: Collection[str] = ()) -> None:
        """See Store."""
        for each in list(self.bucket.listing(f"stages/{stage}")):
            key = PurePosixPath(each.name).stem
            if key.startswith(prefix) and key not in keep:
                self.delete(stage, key)

    def delete(self, stage: str, key: str) -> None:
        """See Store: the manifest goes first, so that a stage is gone at once, its copy here and its files after it."""
        self.bucket.delete([manifest_of(stage, key)])
        super().delete(stage, key)
        self.bucket.delete([file.name for file in self.bucket.listing(f"files/{stage}/{key}")])

    def stored(self) -> Iterator[Stored]:
        """See Store."""
        for each, manifest in self.bucket.read(self.bucket.listing("stages")):
            stage, key = stage_and_key(each)
            with suppress(ValueError, AttributeError, KeyError, TypeError):
                size = each.size + sum(file["bytes"] for file in json.loads(manifest)["files"].values())
                if (found := stored(manifest, stage, key, size)) is not None:
                    yield found

    def damage(self, each: Stored) -> str:
        """See Store. Every file is read."""
        manifest = self.bucket.get(manifest_of(each.stage, each.key))
        if manifest is None:
            return ""  # discarded meanwhile
        told = json.loads(manifest[0])
        for name, file in told["files"].items():
            path = f"{files_of(each.stage, each.key, told['attempt'])}/{name}"
            if damage := self.bucket.fault(path, file["sha256"]):
                return damage
        return ""

    def damage_here(self, each: Stored) -> str:
        """See Store."""
        return super().damage(each)

    def delete_here(self, each: Stored) -> None:
        """See Store."""
        super().delete(each.stage, each.key)

    def garbage(self, delete: bool) -> tuple[int, int]:
        """See Store: what this machine's dead processes left here, and all that no manifest names in the bucket."""
        count, size = super().garbage(delete)
        for pending in (self.root / ".pending").glob(f"*/{MANIFEST}") if delete else ():
            with suppress(FileNotFoundError):  # another process has just uploaded it
                told = json.loads(pending.read_text(encoding="utf-8"))
                if (manifest := self.bucket.get(manifest_of(told["stage"], told["key"]))) is not None:
                    self._adopt(told["stage"], told["key"], manifest[0], self._folder(told["stage"], told["key"]))
        found = [*self.uploads.garbage(delete), *self.unfinished.garbage(delete)]
        return count + len(found), size + sum(found)

    def underway(self) -> Iterator[Underway]:
        """See Store."""
        return self.unfinished.listed()

    def damage_underway(self, each: Underway) -> str:
        """See Store. Every file is read."""
        return self.unfinished.damage(each)

    def delete_underway(self, each: Underway) -> None:
        """See Store."""
        self.unfinished.delete(each.stage, each.key)

    # Use

    def _note(self, stage: str, key: str) -> None:
        """Note in the bucket that this process uses a stage; who may only read cannot, and deletes nothing either."""
        name = f"used/{this_process()}/{stage}/{key}"
        if name not in self._used:
            self._used.add(name)
            with suppress(StoreError):
                self.bucket.note(name)

    def _forget(self) -> None:
        """Delete the notes of this process, at its end."""
        mine = [name for name in self._used if name.startswith(f"used/{this_process()}/")]
        with suppress(StoreError):
            self.bucket.delete(mine, again_for=0)  # a process that ends waits for nothing

    def used(self) -> set[tuple[str, str]]:
        """See Store. What another machine's process uses counts for a week after it was noted."""
        found, gone = self.marks.alive(), []
        for each in self.bucket.listing("used"):
            _, process, stage, key = each.name.split("/")
            host, _, pid = process.rpartition("@")
            if is_dead(host, pid, each.modified.timestamp()):
                gone.append(each.name)
            else:
                found.add((stage, key))
        self.bucket.delete(gone)
        return found


def _manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a copy."""
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return found
