"""The local copies of a remote store's stages, within a bound: the least recently used go first, and none in use."""

import logging
import os
import shutil
import uuid
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from alignment.locks import alone
from alignment.stages.marks import Marks
from alignment.stages.store import MANIFEST

logger = logging.getLogger(__name__)


class Cache:
    """Folders `root/STAGE/KEY`, each a whole copy. The time of its manifest is when it was last asked for."""

    def __init__(self, root: Path, bound: int | None, marks: Marks) -> None:
        """`bound` is in bytes; None for as many as the disk takes. `marks` say what running processes use."""
        self.root, self.bound, self.marks = root, bound, marks

    def use(self, stage: str, key: str) -> bool:
        """Keep a copy, there or to come, for as long as this process lives; whether it is there."""
        with self._alone():
            self.marks.note(stage, key)
            try:
                os.utime(self.root / stage / key / MANIFEST)
            except OSError:
                return (self.root / stage / key / MANIFEST).exists()
            return True

    def make_room(self, needed: int) -> None:
        """Delete copies that no process uses, the least recently used first, until `needed` more bytes fit."""
        if self.bound is None:
            return
        away = self.root / ".draft" / f"evicted-{uuid.uuid4().hex}"
        with self._alone():
            used = self.marks.alive()
            copies = self._copies()
            over = sum(size for _, _, size in copies) + needed - self.bound
            for _, folder, size in sorted(copies):
                if over > 0 and (folder.parent.name, folder.name) not in used:
                    away.mkdir(parents=True, exist_ok=True)
                    folder.rename(away / uuid.uuid4().hex)
                    over -= size
        shutil.rmtree(away, ignore_errors=True)
        if over > 0:
            logger.warning(
                "the store's cache %s is %.1f GB over PLUMBLINE_STORE_CACHE_GB: running processes use what is in it",
                self.root,
                over / 1e9,
            )

    def warn_of_a_smaller_disk(self) -> None:
        """Say so where the disk would be full before the bound is reached, and any copy deleted."""
        if self.bound is None:
            return
        with suppress(OSError):
            there = next(folder for folder in (self.root, *self.root.parents) if folder.is_dir())
            free = shutil.disk_usage(there).free
            if self.bound > free and self.bound > (room := free + sum(size for _, _, size in self._copies())):
                logger.warning(
                    "PLUMBLINE_STORE_CACHE_GB %g: the disk of %s has room for %.1f GB of copies, those that are there "
                    "included, and is full before any is deleted; set it lower",
                    self.bound / 1e9,
                    self.root,
                    room / 1e9,
                )

    def _copies(self) -> list[tuple[float, Path, int]]:
        """When each copy was last asked for, its folder and its bytes."""
        copies = []
        for manifest in self.root.glob(f"[!.]*/*/{MANIFEST}"):
            with suppress(OSError):
                size = sum(file.stat().st_size for file in manifest.parent.rglob("*") if file.is_file())
                copies.append((manifest.stat().st_mtime, manifest.parent, size))
        return copies

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self.root / ".cache.lock", "another process looks through the store's cache", level=logging.DEBUG)
