"""The stage store in a folder that several machines mount: as on one disk, with leases in place of locks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.remote.folder import Folder
from alignment.remote.leases import Leases
from alignment.stages.store import Store


class SharedStore(Store):
    """A store whose disk may know no `flock`. A folder is renamed at once for all; checkpoints are there for all."""

    shared = True

    def __init__(self, root: Path, leases: Leases | None = None) -> None:
        """Nothing is made below `root` before the first write."""
        super().__init__(root)
        self.leases = leases or Leases(Folder(root / ".leases"))

    @contextmanager
    def lock(self, stage: str, key: str, wanted: Callable[[], None] = lambda: None) -> Iterator[None]:
        """See Store. The lease of a process that died on another machine is free after a minute."""
        why = f"{stage} is being computed by another process"
        with self.leases.hold(f"{stage}-{key}", why, wanted, delete=True):
            yield
