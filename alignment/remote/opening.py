"""Opens the store that an address names, and fetches what a reference of it points to."""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

from alignment.errors import ConfigError
from alignment.remote.objects import Bucket
from alignment.remote.shared import SharedStore
from alignment.remote.store import RemoteStore
from alignment.stages.store import StageRef, Store

SCHEMES = ("s3", "gs", "az")


def open_store(address: str, home: Path, cache_gb: str = "") -> Store:
    """The store at `s3://BUCKET/PREFIX`, `gs://...`, `az://...` or in a shared folder; copies are kept below `home`.

    Raises ConfigError where the address or the bound of the copies, in GB, is none, and where no folder can be there.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        folder = Path(address).expanduser()
        if not folder.is_absolute():
            raise ConfigError(f"PLUMBLINE_STORE {address}: is no absolute path; give one that is the same everywhere")
        _require_place(folder)
        return SharedStore(folder)
    if scheme not in SCHEMES or not rest.strip("/"):
        raise ConfigError(
            f"PLUMBLINE_STORE {address}: is no address of a store; give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
            "az://CONTAINER/PREFIX or a folder"
        )
    address = address.rstrip("/")
    return _remote(address, copies_of(address, home), _bytes(cache_gb))


def is_there(folder: Path) -> bool:
    """Whether there is such a folder, as far as this process may see."""
    return os.path.isdir(folder)  # noqa: PTH112 - Path's own raises where it may not look


def _require_place(folder: Path) -> None:
    """Raise ConfigError where a file is in the folder's place, or the folder that it would be made in is not there."""
    if is_there(folder):
        return
    if os.path.lexists(folder):
        raise ConfigError(f"PLUMBLINE_STORE {folder}: is no folder; give one that all machines mount, or leave it out")
    if not is_there(folder.parent):
        raise ConfigError(
            f"PLUMBLINE_STORE {folder}: neither this folder nor {folder.parent} is there; mount the disk, make the "
            "folder, or correct the path"
        )


def copies_of(address: str, home: Path) -> Path:
    """Where a home has its copies of a remote store."""
    return home / "copies" / sha256(address.encode()).hexdigest()[:12]


def fetch(ref: StageRef) -> None:
    """Have on this machine what a reference of a remote store points to."""
    _remote(ref.origin, ref.folder.parents[1], _BOUNDS.get(ref.folder.parents[1])).fetch(ref.stage, ref.key, ref.digest)


_BOUNDS: dict[Path, int | None] = {}
"""Of the copies below each folder, as they were opened with."""


@cache
def _remote(address: str, root: Path, bound: int | None) -> RemoteStore:
    _BOUNDS[root] = bound
    found = RemoteStore(Bucket(address), root, bound)
    found.cache.warn_of_a_smaller_disk()
    return found


def _bytes(gigabytes: str) -> int | None:
    if not gigabytes:
        return None
    try:
        found = float(gigabytes)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ConfigError(
            f"PLUMBLINE_STORE_CACHE_GB {gigabytes}: is no number of gigabytes above 0; leave it out for no bound"
        )
    return int(found * 1e9)
