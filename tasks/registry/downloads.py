"""Registered models as local folders: downloaded once, byte for byte, and put into a configuration by their paths."""

import re
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import yaml

from alignment.config import AlignConfig, Group
from alignment.errors import ModelError
from alignment.links import share
from alignment.stages.store import digest, disk_errors
from tasks.registry import bases, copies, versions
from tasks.registry.connection import client, fluent, guard

G = TypeVar("G", bound=Group)


def with_local_models(config: AlignConfig, folder: Path) -> tuple[AlignConfig, dict[str, str]]:
    """The config with each `models:/…` model downloaded below `folder` and replaced by its path; and lineage tags.

    The tags `plumbline.base`, `plumbline.reward` and `plumbline.anchor` name the version that an alias resolved to, and
    so do `plumbline.reward.start`, `plumbline.reward.<part>` and `plumbline.gold.<name>`.
    """
    tags: dict[str, str] = {}

    def local(group: G, tag: str, field: str = "model", **others: Any) -> G:
        named = getattr(group, field)
        if named.startswith("models:/"):
            tags[f"plumbline.{tag}"], path = _local(named, folder)
            others[field] = str(path)
        return group.model_copy(update=others) if others else group

    reward, evaluation = config.reward, config.evaluation
    parts = tuple(local(part, f"reward.{part.name}") for part in reward.parts)
    gold = tuple(local(part, f"gold.{part.name}") for part in evaluation.gold)
    changed = {
        "base": local(config.base, "base"),
        "reward": local(local(reward, "reward", parts=parts), "reward.start", "start"),
        "evaluation": local(evaluation, "anchor", "anchor", gold=gold),
    }
    return config.model_copy(update=changed), tags


def local_model(uri: str, folder: Path) -> Path:
    """The local copy of a registered model below `folder`, downloaded if missing. Raises as `export_model` does."""
    return _local(uri, folder)[1]


def export_model(uri: str, folder: Path, *, link: bool = False) -> dict[str, Any]:
    """Write a registered model as an ordinary `save_pretrained` folder, its weights byte for byte.

    An adapter that was registered apart from its base is merged into it, and the metadata that pins that is returned;
    of any other model it is empty.

    With `link` a folder that nobody writes to: its files may be links to MLflow's where those lie on the same disk.
    Raises ModelError if the model does not exist, is not a transformers model, or its weights are not safetensors, and
    StoreError if the disk refuses.
    """
    from mlflow.artifacts import download_artifacts

    resolved = resolve_model_uri(uri)
    where = folder.parent
    with disk_errors(folder, where):
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=where) as temporary:
            with guard(), disk_errors(folder, where), fluent():
                here = artifacts_here(resolved)
                root = here or Path(download_artifacts(artifact_uri=resolved, dst_path=temporary))
            return _copy_weights(uri, root, folder, link=link or here is None)  # a download goes, so may be linked


def artifacts_here(uri: str) -> Path | None:
    """Where the files of a model lie that a run logged, if that is a folder of this machine."""
    source = uri if versions.LOGGED.fullmatch(uri) else versions.resolve(uri).source
    if not versions.LOGGED.fullmatch(source):
        return None
    location = urlsplit(client().get_logged_model(source.removeprefix("models:/")).artifact_location)
    folder = Path(unquote(location.path))
    return folder if location.scheme in ("", "file") and folder.is_dir() else None


def resolve_model_uri(uri: str) -> str:
    """`models:/name@alias` -> `models:/name/3`, which a later promotion does not move.

    Raises ModelError if the address is malformed, or the model, the version or the alias does not exist.
    """
    return uri if versions.LOGGED.fullmatch(uri) else versions.resolve(uri).uri


def folder_name(name: str) -> str:
    """A folder name for a registered model: short, and different for every name on every file system."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:40]}-{digest(name)[:16]}"


def _local(uri: str, folder: Path) -> tuple[str, Path]:
    """A model's address without an alias, and its local copy, whose path no model of another registry shares.

    Raises ModelError where the copy was made of an adapter and a base, and that base is gone or another one by now.
    """
    if versions.LOGGED.fullmatch(uri):
        resolved, target = uri, folder / uri.removeprefix("models:/")
    else:
        version = versions.resolve(uri)
        resolved, target = version.uri, folder / folder_name(version.name) / f"{version.version}-{version.identity}"
    copies.note_use(target, folder)
    if target.exists():
        bases.require_merged(uri, target)
    else:
        draft = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            if pins := export_model(resolved, draft, link=True):
                bases.note_merged(draft, pins)
            try:
                draft.rename(target)
            except OSError:
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return resolved, target


def _copy_weights(uri: str, root: Path, folder: Path, *, link: bool) -> dict[str, Any]:
    """Copy what MLflow keeps in two folders into one, as it was logged; returns what `export_model` does."""
    parts = [root / "model", *sorted((root / "components").glob("*"))]
    if (root / bases.PEFT).is_dir():
        metadata = yaml.safe_load((root / "MLmodel").read_text(encoding="utf-8")).get("metadata")
        if (base := bases.pinned(uri, metadata)) is not None:
            bases.write_merged(root, base, folder)
            return dict(metadata)
    files = [file for part in parts if part.is_dir() for file in sorted(part.rglob("*")) if file.is_file()]
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(
            f"{uri}: no safetensors weights in it; log it with mlflow.transformers from a `save_pretrained` folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for file in (file for file in files if file.is_relative_to(part)):
            target = folder / file.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            share(file, target, link=link)
    return {}
