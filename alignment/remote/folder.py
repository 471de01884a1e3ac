"""Small objects in a folder of a shared disk, by what every disk does alike: a link to a name that is free."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from alignment.errors import StoreError
from alignment.remote.objects import Listed, Tag


class Folder:
    """Objects, each a folder of numbered versions of which the highest counts.

    A version is made by a hard link, which fails where the name is taken, on NFS too; no `flock` is needed.
    """

    def __init__(self, root: Path) -> None:
        """Nothing is made before the first write."""
        self.root, self.address = root, str(root)

    def get(self, name: str) -> tuple[bytes, Tag] | None:
        """See Objects."""
        while (version := self._newest(name)) > 0:
            with suppress(FileNotFoundError):  # replaced between the two looks
                return (self.root / name / str(version)).read_bytes(), version
        return None

    def create(self, name: str, data: bytes) -> Tag | None:
        """See Objects."""
        return self.replace(name, data, 0) if self._newest(name) == 0 else None

    def replace(self, name: str, data: bytes, tag: Tag) -> Tag | None:
        """See Objects."""
        folder, made = self.root / name, int(tag) + 1
        draft = self.root / f".{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(draft, folder / str(made))
            except (FileExistsError, FileNotFoundError):  # somebody was first, with a version or to delete the object
                return None
            newest = self._newest(name)
            if newest > made:  # a version that is gone was to be replaced
                (folder / str(made)).unlink(missing_ok=True)
                return None
            for old in self._versions(name):
                if old < made:
                    (folder / str(old)).unlink(missing_ok=True)
            return made
        except OSError as error:
            raise StoreError(
                f"stage store: cannot write {folder}: {error.strerror or error}; the folder of PLUMBLINE_STORE must "
                "be one that you may write, on a disk with hard links"
            ) from error
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def listing(self, prefix: str) -> Iterator[Listed]:
        """See Objects."""
        below = self.root / prefix
        for folder in sorted(below.iterdir()) if below.is_dir() else ():
            name = str(folder.relative_to(self.root))
            with suppress(OSError):
                if version := self._newest(name):
                    state = (folder / str(version)).stat()
                    yield Listed(name, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

    def delete(self, names: Iterable[str]) -> None:
        """See Objects."""
        for name in names:
            for version in self._versions(name):
                with suppress(OSError):
                    (self.root / name / str(version)).unlink(missing_ok=True)
            with suppress(OSError):
                (self.root / name).rmdir()

    def discard(self, name: str, tag: Tag) -> None:
        """See Objects; what has taken the version's place meanwhile stays."""
        with suppress(OSError):
            (self.root / name / str(tag)).unlink(missing_ok=True)
            (self.root / name).rmdir()

    def _versions(self, name: str) -> list[int]:
        with suppress(OSError):
            return [int(file.name) for file in (self.root / name).iterdir() if file.name.isdecimal()]
        return []

    def _newest(self, name: str) -> int:
        return max(self._versions(name), default=0)
