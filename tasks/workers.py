"""What a worker on another machine does with a shard: it sees what the run sees, computes the same, or refuses.

A worker is given references and the run's own lineage, and writes to the store under the run's key.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import task

from alignment.config import AlignConfig
from alignment.errors import StackError, StoreError
from alignment.stages.files import MANIFEST
from alignment.stages.plan import lineage
from alignment.stages.stage import Refs
from alignment.stages.store import StageRef
from tasks.home import store
from tasks.pipeline import STAGES
from tasks.running import RETRIES, run_stage

Range = tuple[int, int]
Ranges = Sequence[Range]
Named = Mapping[str, Mapping[str, str]]
"""Finished stages by name, each as its stage, key and digest: what of a reference is the same on every machine."""


def compute_part(
    part: Range,
    name: str,
    config: AlignConfig,
    refs: Refs,
    made_of: dict[str, Any],
    is_placed: bool = True,
) -> StageRef:
    """One part of a stage, on a worker: from the store that the run uses, under the key that the run has for it.

    `is_placed` is as in `run_stage`.
    """
    stage = STAGES[name]
    require_visible(refs)
    require_same(name, made_of, lineage(stage, config, refs))
    return run_stage(stage, config, refs, part=part, made_of=made_of, is_placed=is_placed)


PART = task(**RETRIES)(compute_part)


def require_visible(refs: Refs) -> None:
    """Raise StoreError where this machine does not see a stage that the run has finished."""
    for name, ref in refs.items():
        if not ref.origin and not (ref.folder / MANIFEST).exists():
            raise _unseen(name, str(ref.folder))


def named(refs: Refs) -> dict[str, dict[str, str]]:
    """References as JSON, without where they lie on this machine."""
    return {name: {"stage": ref.stage, "key": ref.key, "digest": ref.digest} for name, ref in refs.items()}


def look_up(refs: Named) -> dict[str, StageRef]:
    """What `named` names, in the store that this process uses. Raises StoreError where it has not the same."""
    seen: dict[str, StageRef] = {}
    for name, given in refs.items():
        stage, key, here = given["stage"], given["key"], store()
        ref = here.find(stage, key) if stage in STAGES and key.isalnum() else None
        if ref is None or ref.digest != given["digest"]:
            raise _unseen(name, f"{here.place}/{stage}/{key}")
        seen[name] = ref
    return seen


def require_same(stage: str, wanted: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise StackError where what decides a stage's result is other on a worker than where the run is.

    How a library was built for a machine, as `+cpu` behind its version, is left to the machine.
    """
    for what in ("code", "libraries", "kinds", "config", "parents", "stage"):
        asked, found = _plain(wanted[what]), _plain(here[what])
        if asked != found:
            names = sorted(name for name in asked if asked[name] != found.get(name)) if isinstance(asked, dict) else []
            told = f", such as {names[0]} {found.get(names[0])} for {asked[names[0]]}" if names else ""
            raise StackError(
                f"{stage}: the worker on {socket.gethostname()} has other {what} for this stage than the run{told}; "
                "install the same release of Plumbline there, with the same versions of libraries and plug-ins, and "
                "give files that the configuration names by a path that all machines have"
            )


def _plain(value: Any) -> Any:
    """JSON values with the builds of versions left out, as they stand in a manifest."""
    if isinstance(value, Mapping):
        return {name: _plain(found) for name, found in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(found) for found in value]
    return re.sub(r"^(\d[\w.]*)\+\w+$", r"\1", value) if isinstance(value, str) else value


def _unseen(name: str, where: str) -> StoreError:
    return StoreError(
        f"stage store: the worker on {socket.gethostname()} does not see {where}, which the stage {name} has made; put "
        "PLUMBLINE_HOME on a disk that all machines have at this path, or have PLUMBLINE_STORE name a store that all "
        "of them reach"
    )
