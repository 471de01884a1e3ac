"""Where things lie in a bucket.

stages/STAGE/KEY.json            the manifest, created by the first writer and by no other
files/STAGE/KEY/ATTEMPT/...      the files of one writer's attempt, which a manifest may name
uploads/STAGE/KEY/ATTEMPT        the lease of that writer, for as long as the upload lasts
leases/STAGE/KEY                 the lease of who computes a stage
used/PROCESS/STAGE/KEY           says by its name what a process uses
kept/NAME.jsonl                  answers that were paid for
work/STAGE/KEY/manifest.json     what of a stage under way another machine can go on from, replaced by the newer one
work/STAGE/KEY/OBJECT            a file that this one may name
"""

from pathlib import PurePosixPath

from alignment.errors import StoreError
from alignment.remote.objects import Listed
from alignment.stages.files import MANIFEST


def manifest_of(stage: str, key: str) -> str:
    """The manifest of a stage."""
    return f"stages/{stage}/{key}.json"


def files_of(stage: str, key: str, attempt: str) -> str:
    """The files of one attempt."""
    return f"files/{stage}/{key}/{attempt}"


def upload_of(stage: str, key: str, attempt: str) -> str:
    """The lease of one attempt."""
    return f"uploads/{stage}/{key}/{attempt}"


def lease_of(stage: str, key: str) -> str:
    """The lease of who computes a stage."""
    return f"leases/{stage}/{key}"


def work_of(stage: str, key: str) -> str:
    """All that is there of a stage under way."""
    return f"work/{stage}/{key}"


def snapshot_of(stage: str, key: str) -> str:
    """The manifest of a stage under way."""
    return f"{work_of(stage, key)}/{MANIFEST}"


def attempt_of(each: Listed) -> tuple[str, str, str]:
    """Stage, key and attempt of a file or of the lease of an upload."""
    stage, key, attempt = each.name.split("/")[1:4]
    return stage, key, attempt


def stage_and_key(manifest: Listed) -> tuple[str, str]:
    """Stage and key of a manifest."""
    _, stage, name = manifest.name.split("/")
    return stage, name.removesuffix(".json")


def inside(name: str) -> PurePosixPath:
    """A file's path below a folder; raises StoreError where it would lead out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"stage store: a manifest names the file {name!r}, which is outside of its stage; delete it")
    return path
