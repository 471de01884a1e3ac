"""What a bucket has of stages under way: listed, checked, and deleted where nobody goes on from it any more."""

from collections.abc import Iterator

from alignment.remote.layout import lease_of, manifest_of, snapshot_of, work_of
from alignment.remote.leases import Leases
from alignment.remote.objects import Bucket, Listed
from alignment.remote.snapshot import Snapshot
from alignment.stages.files import MANIFEST
from alignment.stages.stored import Underway


class Unfinished:
    """The snapshots below `work` that alignment/remote/saving.py writes."""

    def __init__(self, bucket: Bucket, leases: Leases) -> None:
        """Nothing is asked yet."""
        self.bucket, self.leases = bucket, leases

    def listed(self) -> Iterator[Underway]:
        """Each stage that has some and is not finished, in no order; what cannot be read is garbage."""
        manifests = [each for each in self.bucket.listing("work") if each.name.endswith(f"/{MANIFEST}")]
        for each, data in self.bucket.read(manifests):
            stage, key = _of(each)
            if (found := read_snapshot(data)) is not None and self.bucket.get(manifest_of(stage, key)) is None:
                held = not self.leases.over(lease_of(stage, key))
                yield Underway(stage, key, found.saved, each.size + found.size, found.host, held)

    def damage(self, each: Underway) -> str:
        """What is not as the manifest says, or nothing, also where it is replaced meanwhile. Every file is read."""
        name = snapshot_of(each.stage, each.key)
        data = self.bucket.get(name)
        found = read_snapshot(data[0]) if data is not None else None
        for file in found.files.values() if found is not None else ():
            if damage := self.bucket.fault(f"{work_of(each.stage, each.key)}/{file.object}", file.sha256):
                return damage if self.bucket.get(name) == data else ""
        return ""

    def delete(self, stage: str, key: str) -> None:
        """Delete all of a stage's, the manifest first."""
        names = [each.name for each in self.bucket.listing(work_of(stage, key))]
        self.bucket.delete([name for name in names if name == snapshot_of(stage, key)])
        self.bucket.delete([name for name in names if name != snapshot_of(stage, key)])

    def garbage(self, delete: bool) -> Iterator[int]:
        """The bytes of each stage's unfinished work that is none: finished stages', and what no manifest names.

        Where somebody computes the stage there is none. What is listed before its lease is over was written by who
        cannot name it any more.
        """
        stages: dict[tuple[str, str], list[Listed]] = {}
        for each in self.bucket.listing("work"):
            stages.setdefault(_of(each), []).append(each)
        for (stage, key), files in stages.items():
            if self.leases.over(lease_of(stage, key)):
                named = self._named(stage, key)
                spare = [each for each in files if each.name not in named]
                if delete:
                    self.bucket.delete(each.name for each in spare)
                if spare:
                    yield sum(each.size for each in spare)

    def _named(self, stage: str, key: str) -> set[str]:
        """What somebody may go on from."""
        if self.bucket.get(manifest_of(stage, key)) is not None:
            return set()
        data = self.bucket.get(snapshot_of(stage, key))
        found = read_snapshot(data[0]) if data is not None else None
        if found is None:
            return set()
        below = work_of(stage, key)
        return {snapshot_of(stage, key), *(f"{below}/{file.object}" for file in found.files.values())}


def read_snapshot(data: bytes) -> Snapshot | None:
    """A snapshot from its manifest; None where it cannot be read."""
    try:
        return Snapshot.model_validate_json(data)
    except ValueError:
        return None


def _of(each: Listed) -> tuple[str, str]:
    _, stage, key, _ = each.name.split("/")
    return stage, key
