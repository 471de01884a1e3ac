"""Puts a filled stage into a bucket so that it is there whole or not at all, and deletes what dead writers left."""

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alignment.errors import StoreError
from alignment.remote.layout import attempt_of, files_of, inside, manifest_of, stage_and_key, upload_of
from alignment.remote.leases import Leases
from alignment.remote.objects import Bucket, Listed
from alignment.stages.files import MANIFEST

ENDED_DAYS = 1  # after which a lease that was given back is deleted; nobody waits for it any more


class Uploads:
    """Uploads under names of their own, each with a lease for as long as it lasts; the manifest is created last."""

    def __init__(self, bucket: Bucket, leases: Leases) -> None:
        """Nothing is asked yet."""
        self.bucket, self.leases = bucket, leases
        self._ended: set[str] = set()

    def upload(self, stage: str, key: str, folder: Path) -> bool:
        """Upload a filled folder with its manifest; False where another writer was first, whose result then counts.

        The manifest here becomes the one there. Raises StoreError where it failed, and leaves the folder as it is.
        """
        self.sweep()
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        attempt = uuid.uuid4().hex  # one that was broken off may be swept meanwhile
        text = json.dumps(told | {"attempt": attempt}, indent=2, sort_keys=True).encode()
        with self.leases.hold(upload_of(stage, key, attempt), f"{stage} is being uploaded", delete=True) as held:
            if self.bucket.get(manifest_of(stage, key)) is not None:
                return False
            created = None
            try:
                for name in told["files"]:
                    self.bucket.upload(folder / inside(name), f"{files_of(stage, key, attempt)}/{name}")
                if not held.renew():
                    raise _may_pass(f"stage store: the upload of {stage}/{key} took its lease too long; run again")
                created = self.bucket.create(manifest_of(stage, key), text)
            finally:
                if created is None:
                    self._ended.add(held.name)
                    with suppress(StoreError):  # they are swept later
                        self._delete_unless_named(stage, key, attempt)
        if created is not None:
            (folder / MANIFEST).write_bytes(text)
        return created is not None

    def sweep(self) -> None:
        """Delete what uploads have left that failed here, or whose processes are dead and cannot finish them."""
        for each in list(self.bucket.listing("uploads")):
            if each.name in self._ended or self.leases.take(each.name):
                self._delete_unless_named(*attempt_of(each))
                self.bucket.delete([each.name])

    def garbage(self, delete: bool) -> Iterator[int]:
        """The bytes of each attempt that no manifest names and nobody uploads; `delete` deletes them, and old leases.

        What is looked at first comes into being last: files that are listed and have neither a lease nor, after that,
        a manifest never get one.
        """
        attempts: dict[tuple[str, str, str], list[Listed]] = {}
        for each in self.bucket.listing("files"):
            attempts.setdefault(attempt_of(each), []).append(each)
        if delete:
            self.sweep()
        uploading = {
            attempt_of(each) for each in self.bucket.listing("uploads") if delete or not self.leases.over(each.name)
        }
        named = set()
        for each, text in self.bucket.read(self.bucket.listing("stages")):
            with suppress(ValueError, KeyError, TypeError):
                named.add((*stage_and_key(each), str(json.loads(text)["attempt"])))
        for of, files in attempts.items():
            if of not in named and of not in uploading:
                if delete:
                    self.bucket.delete(each.name for each in files)
                yield sum(each.size for each in files)
        long_ago = datetime.now(UTC) - timedelta(days=ENDED_DAYS)
        ended = [each.name for each in self.bucket.listing("leases") if delete and each.modified < long_ago]
        self.bucket.delete(name for name in ended if self.leases.over(name))

    def _delete_unless_named(self, stage: str, key: str, attempt: str) -> None:
        """Delete the files of an attempt, unless it was finished and nobody heard of it."""
        found = self.bucket.get(manifest_of(stage, key))
        if found is None or json.loads(found[0]).get("attempt") != attempt:
            self.bucket.delete(each.name for each in self.bucket.listing(files_of(stage, key, attempt)))


def _may_pass(message: str) -> StoreError:
    error = StoreError(message)
    error.transient = True
    return error
