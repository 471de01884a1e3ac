"""Keeps in a bucket what a stage under way would go on from, so that another machine can, and fetches it there.

A thread of the process that holds the stage's lease looks at its work folder now and then, and uploads the files that
are new, then the manifest that names them all, then deletes those that it does not name. So what is there is whole, of
one moment, and the newest. Nobody waits for it; what fails is said in one line, and tried again.
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from alignment.errors import GoneError, StoreError
from alignment.remote.layout import inside, snapshot_of, work_of
from alignment.remote.leases import Lease
from alignment.remote.objects import PART_BYTES, Bucket, Tag
from alignment.remote.snapshot import Kept, Snapshot, newest, resumable, same_files
from alignment.remote.unfinished import read_snapshot
from alignment.stages.marks import this_host

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0  # between two looks at a work folder: what ends within a minute uploads nothing
LAST_SECONDS = 20.0  # that the end of a stage that was stopped or failed waits for its last upload: a stop has 30
LOOKS = 10  # at a folder that is being changed, until the next time
LOOK_AGAIN = 0.1  # seconds between these
SAVED, FETCHED = ".saved", ".fetched"
"""In a work folder: the id of the snapshot that it goes on from, and what is on its way."""


class _OverError(Exception):
    """An upload is not wanted any more, or its time is up."""


class Saving:
    """What one stage under way has in a bucket, while this process holds its lease."""

    def __init__(
        self, bucket: Bucket, stage: str, key: str, folder: Path, lease: Lease, every: float = EVERY_SECONDS
    ) -> None:
        """`folder` is the stage's work folder, of which names that begin with a dot are left out."""
        self.bucket, self.stage, self.folder, self.lease, self.every = bucket, stage, folder, lease, every
        self._below, self._manifest = work_of(stage, key), snapshot_of(stage, key)
        self._tag: Tag = None
        self._there: dict[str, Kept] = {}  # what was uploaded, by its path here
        self._named: set[str] = set()  # what of it the manifest names
        self._failed, self._ended, self._until = False, Event(), float("inf")
        run = copy_context().run
        self._thread = Thread(target=run, args=(self._keep,), name=f"saving {stage}", daemon=True)

    def begin(self) -> None:
        """Have in the folder what the bucket has, unless what is here is newer, and keep it up from now on.

        Raises StoreError where the bucket cannot be reached.
        """
        shutil.rmtree(self.folder / FETCHED, ignore_errors=True)
        data = self.bucket.get(self._manifest)
        if data is not None:
            self._tag, found = data[1], read_snapshot(data[0])
            if found is None:
                logger.warning(
                    "stage store: %s/%s is not readable, and is replaced", self.bucket.address, self._manifest
                )
            elif self._goes_on_from(found) or (not self._is_newer_than(found) and self._fetch(found)):
                files = resumable(self.folder)
                self._there = {
                    name: kept for name, kept in found.files.items() if name in files and kept.is_of(files[name])
                }
                self._named = set(found.files)
        self._thread.start()

    def end(self, *, last: bool) -> None:
        """Do not keep it up any more; of what is not finished, upload the `last` that is new, if there is time."""
        if not self._ended.is_set():
            self._until = time.monotonic() + (LAST_SECONDS if last else 0.0)
            self._ended.set()
        self._thread.join()

    # There

    def _keep(self) -> None:
        is_last = False
        while not is_last and not self.lease.lost:
            is_last = self._ended.wait(self.every)
            try:
                self._save()
            except _OverError:
                return
            except (StoreError, OSError) as error:
                if not self._failed:
                    logger.warning(
                        "%s: goes on, but its checkpoints stay on this machine alone (%s)", self.stage, error
                    )
                self._failed = True

    def _save(self) -> None:
        """Upload the folder as it stands, if it has changed; where it is being changed all the time, not now."""
        for _ in range(LOOKS):
            with ExitStack() as opened:
                files = resumable(self.folder)
                new = self._open(files, opened)
                if new is not None and same_files(files, resumable(self.folder)):
                    if not new and set(files) == self._named:
                        return
                    if self._upload(files, new):
                        return
            time.sleep(LOOK_AGAIN)

    def _open(self, files: dict[str, os.stat_result], opened: ExitStack) -> dict[str, IO[bytes]] | None:
        """The files that are not there yet, open, so that they may be deleted meanwhile; None where one is already."""
        with suppress(FileNotFoundError):
            return {
                name: opened.enter_context((self.folder / name).open("rb"))
                for name, file in files.items()
                if name not in self._there or not self._there[name].is_of(file)
            }
        return None

    def _upload(self, files: dict[str, os.stat_result], new: dict[str, IO[bytes]]) -> bool:
        """Upload what is new, then the manifest; False where another process wrote or deleted some of it meanwhile.

        What is deleted at the end was listed before the manifest was written, under the lease: so nothing of it is what
        the next holder has uploaded, should this process stand still in between.
        """
        for name, stream in new.items():
            kept, found = uuid.uuid4().hex, sha256()
            self.bucket.upload(self._pieces(stream, files[name].st_size, found), f"{self._below}/{kept}")
            self._there[name] = Kept(
                object=kept,
                sha256=found.hexdigest(),
                bytes=files[name].st_size,
                changed=files[name].st_mtime_ns,
            )
        there = {each.name for each in self.bucket.listing(self._below)}
        gone = [name for name in files if self._object(name) not in there]
        for name in gone:  # what no manifest named, of a machine that was long unheard of, is garbage to others
            del self._there[name]
        if gone:
            return False
        snapshot = Snapshot(
            id=uuid.uuid4().hex,
            saved=datetime.now(UTC),
            host=this_host()["host"],
            files={name: self._there[name] for name in files},
        )
        if not self._commit(snapshot.model_dump_json(indent=2).encode()):
            return False
        self._there, self._named = dict(snapshot.files), set(snapshot.files)
        (self.folder / SAVED).write_text(snapshot.id, encoding="ascii")
        if self._failed:
            logger.info("%s: its checkpoints are in the store again", self.stage)
        self._failed = False
        with suppress(StoreError):  # the next time, or at the end
            self.bucket.delete(there - {self._manifest, *map(self._object, self._there)})
        return True

    def _object(self, name: str) -> str:
        """Where a file is that was uploaded."""
        return f"{self._below}/{self._there[name].object}"

    def _pieces(self, stream: IO[bytes], size: int, found: Any) -> Iterator[bytes]:
        """The first `size` bytes of a file, which may grow meanwhile, for as long as there is time."""
        while size and (piece := stream.read(min(PART_BYTES, size))):
            self._require_time()
            found.update(piece)
            size -= len(piece)
            yield piece

    def _commit(self, manifest: bytes) -> bool:
        """Write the manifest in the place of the one that this process knows.

        A process that stalled and lost its lease can replace nothing that the next one has written. Whoever finds the
        manifest replaced or deleted cannot count on the files that it has uploaded before.
        """
        self._require_time()
        if not self.lease.renew():
            raise _OverError
        known, put = self._tag, self.bucket
        tag = put.create(self._manifest, manifest) if known is None else put.replace(self._manifest, manifest, known)
        if tag is None:
            found = self.bucket.get(self._manifest)
            self._tag, self._there, self._named = (found[1] if found is not None else None), {}, set()
            return False
        self._tag = tag
        return True

    def _require_time(self) -> None:
        if time.monotonic() > self._until:
            raise _OverError

    # Here

    def _goes_on_from(self, found: Snapshot) -> bool:
        """Whether the folder has what was saved last, or what came of it."""
        with suppress(OSError):
            return (self.folder / SAVED).read_text(encoding="ascii") == found.id
        return False

    def _is_newer_than(self, found: Snapshot) -> bool:
        return newest(resumable(self.folder).values()) > found.newest

    def _fetch(self, found: Snapshot) -> bool:
        """Put a snapshot in the place of what is here; False, with a warning, where it is damaged."""
        ago = (datetime.now(UTC) - found.saved).total_seconds() / 60
        logger.info(
            "%s: goes on from what %s kept in the store %.0f minutes ago (%.1f MB)",
            *(self.stage, found.host, ago, found.size / 1e6),
        )
        draft = self.folder / FETCHED
        draft.mkdir()
        for name, kept in found.files.items():
            path = draft / inside(name)
            try:
                is_whole = self.bucket.download(f"{self._below}/{kept.object}", path) == kept.sha256
            except GoneError:
                is_whole = False
            if not is_whole:
                logger.warning(
                    "%s: what the store has of it is damaged or gone and is not used (%s/%s)",
                    *(self.stage, self.bucket.address, self._below),
                )
                shutil.rmtree(draft)
                return False
            os.utime(path, ns=(kept.changed, kept.changed))
        (self.folder / SAVED).unlink(missing_ok=True)
        for path in self.folder.glob("[!.]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in draft.iterdir():
            path.rename(self.folder / path.name)
        draft.rmdir()
        (self.folder / SAVED).write_text(found.id, encoding="ascii")
        return True
