"""Bases of adapters that are registered apart: kept on this machine, pinned by their content, merged for use."""

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from alignment import adapters
from alignment.config import AlignConfig
from alignment.device import on_cpu
from alignment.errors import ModelError
from alignment.models import save
from alignment.rows import ADAPTER, MODEL
from alignment.stages.sources import digest_model
from alignment.stages.stage import Refs
from alignment.stages.store import digest, write_json
from tasks.home import home
from tasks.registry import serving

BASE = "plumbline.base"
"""In a logged model's metadata: the folder of its base, and the digest of what is in it."""

TOLD = "the adapter alone, over a base that is pinned"
"""What a run says of such a version."""

PEFT = "peft"
"""Where MLflow keeps an adapter among a model's files."""


MERGED = ".merged.json"
"""In a copy of an adapter and its base as one model: what the adapter's metadata says of its base."""


class Apart(NamedTuple):
    """An adapter that is to be registered apart from its base: both as folders."""

    adapter: Path
    base: Path


def apart(config: AlignConfig, refs: Refs) -> Apart | None:
    """The two of a run, where it wants them apart."""
    if config.registry.adapter == "merged":
        return None
    return Apart(refs["policy"].path / ADAPTER, refs["base"].path / MODEL)


def keep(base: Path, config: AlignConfig) -> tuple[Path, str]:
    """The base set to sample as in training, in a folder of this home that stays; and the digest of what is in it."""
    name = digest([digest_model(base), config.sampling.model_dump(), config.prompts.model_dump()])[:20]
    target = home() / "bases" / name
    if not target.exists():
        draft = target.with_name(f".{name}-{uuid.uuid4().hex[:8]}")
        try:
            serving.prepare(base, config, draft)
            draft.rename(target)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target, digest_model(target)


def pinned(uri: str, metadata: dict[str, Any] | None) -> Path | None:
    """The base that a logged model's metadata pins; None where it pins none.

    Raises ModelError where it is not there, or is another one by now.
    """
    told = (metadata or {}).get(BASE)
    if told is None:
        return None
    folder = Path(told["folder"])
    if not folder.is_dir():
        raise ModelError(
            f"{uri}: is an adapter, and its base is not at {folder}: use it on the machine where it was registered, "
            "have that folder, a copy of it or a link to it at this path, or register it with registry.adapter = merged"
        )
    if digest_model(folder) != told["digest"]:
        raise ModelError(
            f"{uri}: is an adapter over the base {told['digest'][:12]}, and {folder} holds another one: put the right "
            "one back, or register it again"
        )
    return folder


def note_merged(copy: Path, metadata: dict[str, Any]) -> None:
    """Write into a copy of the two as one model of which base it was made, as the adapter's metadata says it."""
    write_json(copy / MERGED, {BASE: metadata[BASE]})


def require_merged(uri: str, copy: Path) -> None:
    """Raise as `pinned` does, where a model's copy was made of an adapter and a base."""
    if (copy / MERGED).is_file():
        pinned(uri, json.loads((copy / MERGED).read_text(encoding="utf-8")))


def write_merged(root: Path, base: Path, folder: Path) -> None:
    """Write the model that an adapter among MLflow's files makes of its base, whole.

    The one who needs it merges it, a run without a slot as well: on the CPU, so no GPU is taken from a training, and
    one machine writes what another does.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".merging-") as temporary:
        place = Path(temporary) / ADAPTER
        shutil.copytree(root / PEFT, place)
        adapters.name_base(place, str(base.absolute()))
        with on_cpu():
            save(adapters.load_merged(place), folder)
