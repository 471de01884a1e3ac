"""The versions in MLflow's model registry: created, found by tag or alias, tagged, and downloaded as local folders."""

import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.errors import ModelError
from alignment.stages.store import digest, disk_errors
from tasks.registry.connection import client, error_code, fluent, guard, place
from tasks.registry.records import REPORT

KEY = "plumbline.key"
MAX_DESCRIPTION = 5_000  # characters, the column's width in MLflow's database
NOT_THERE = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"}
REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
LOGGED = re.compile(r"models:/m-[0-9a-f]+")


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model, and the aliases that point at it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]
    source: str = ""
    """The address of the model that was registered, `models:/m-…`."""
    identity: str = ""
    """A hash that differs for every version, also for one of the same name and number in another registry."""

    @property
    def uri(self) -> str:
        """The address of this version, which no alias changes."""
        return f"models:/{self.name}/{self.version}"


def create_version(
    run_id: str, model_uri: str, name: str, *, key: str, description: str = "", tags: Mapping[str, str] | None = None
) -> RegisteredVersion:
    """Register a model as the next version of `name`, which carries `key`; no alias moves.

    `description` is Markdown, cut to MLflow's 5,000 characters. The tags are part of the same request, so no version
    exists without them. Raises TrackingError if MLflow cannot be reached or refuses the name.
    """
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            client().create_registered_model(name)
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        with fluent():
            made = client().create_model_version(
                name,
                source=model_uri,
                run_id=run_id,
                model_id=model_uri.removeprefix("models:/") if LOGGED.fullmatch(model_uri) else None,
                description=_fit(description),
                tags={**(tags or {}), KEY: key},
            )
        return get_version(name, str(made.version))


def find_version(name: str, key: str) -> RegisteredVersion | None:
    """The newest version of `name` that carries `key`, or None."""
    return find_tagged(name, KEY, key)


def find_tagged(name: str, tag: str, value: str) -> RegisteredVersion | None:
    """The newest version of `name` with this tag, or None."""
    with guard():
        found = client().search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
        newest = max((int(item.version) for item in found), default=None)
        return None if newest is None else get_version(name, str(newest))


def find_alias(name: str, alias: str) -> RegisteredVersion | None:
    """The version that `alias` points at, or None if the model or the alias does not exist."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            found = client().get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return None
            raise
        return get_version(name, str(found.version))


def get_version(name: str, version: str) -> RegisteredVersion:
    """One version with its aliases. Raises TrackingError if there is none."""
    with guard():
        item = client().get_model_version(name, version)
        return RegisteredVersion(
            name=str(item.name),
            version=str(item.version),
            aliases=tuple(sorted(item.aliases)),
            run_id=str(item.run_id or ""),
            tags=dict(item.tags),
            source=str(item.source or ""),
            identity=digest([item.run_id, item.model_id, item.source, item.creation_timestamp])[:12],
        )


def read_model(name: str) -> tuple[dict[str, str], dict[str, str]] | None:
    """The aliases of a registered model, each with its version, and its tags; None if there is no such model."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            found = client().get_registered_model(name)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return None
            raise
        return {alias: str(version) for alias, version in found.aliases.items()}, dict(found.tags)


def models_with_tag(key: str) -> list[str]:
    """The names of the registered models that carry a tag."""
    found: list[str] = []
    token = None
    with guard():
        while True:
            page = client().search_registered_models(page_token=token)
            found += [str(model.name) for model in page if key in model.tags]
            token = page.token
            if not token:
                return found


def find(name: str, version: str) -> RegisteredVersion | None:
    """One version with its aliases, or None if there is none."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            client().get_model_version(name, version)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return None
            raise
        return get_version(name, version)


def find_run_tags(run_id: str) -> dict[str, str] | None:
    """The tags of the run that a version came from, or None if that run does not exist."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            run = client().get_run(run_id)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return None
            raise
        return None if run.info.lifecycle_stage == "deleted" else dict(run.data.tags)


def was_judged(run_id: str) -> bool:
    """Whether the run holds the report of an evaluation."""
    with guard():
        return any(item.path == REPORT for item in client().list_artifacts(run_id))


def is_ours(name: str) -> bool:
    """Whether Plumbline has registered a version of `name`: an MLflow server may hold models of other programs."""
    if "'" in name:  # which the configuration refuses
        return False
    with guard():
        return any(KEY in item.tags for item in client().search_model_versions(f"name = '{name}'"))


def tag_version(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags on a version; an empty value is set as well, so that it replaces an older one."""
    with guard():
        for tag, value in tags.items():
            client().set_model_version_tag(name, version, tag, value)


def tag_model(name: str, tag: str, value: str) -> None:
    """Set a tag on a registered model."""
    with guard():
        client().set_registered_model_tag(name, tag, value)


def set_alias(name: str, alias: str, version: str) -> None:
    """Set `alias` on a version, which takes it from the version that had it."""
    with guard():
        client().set_registered_model_alias(name, alias, version)


def drop_alias(name: str, alias: str) -> None:
    """Remove `alias`, if it exists."""
    with guard():
        client().delete_registered_model_alias(name, alias)


def resolve_model_uri(uri: str) -> str:
    """`models:/name@alias` -> `models:/name/3`, which a later promotion does not move.

    Raises ModelError if the address is malformed, or the model, the version or the alias does not exist.
    """
    return uri if LOGGED.fullmatch(uri) else _resolve(uri).uri


def export_model(uri: str, folder: Path) -> None:
    """Write a registered model as an ordinary `save_pretrained` folder, its weights byte for byte.

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
                root = Path(download_artifacts(artifact_uri=resolved, dst_path=temporary))
            _copy_weights(uri, root, folder)


def with_local_models(config: AlignConfig, folder: Path) -> tuple[AlignConfig, dict[str, str]]:
    """The config with each `models:/…` model downloaded below `folder` and replaced by its path; and lineage tags.

    The tags `plumbline.base`, `plumbline.reward` and `plumbline.anchor` name the version that an alias resolved to.
    """
    changed: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for field, group in (("base", config.base), ("reward", config.reward)):
        if group.model.startswith("models:/"):
            tags[f"plumbline.{field}"], path = _local(group.model, folder)
            changed[field] = group.model_copy(update={"model": str(path)})
    if config.evaluation.anchor.startswith("models:/"):
        tags["plumbline.anchor"], path = _local(config.evaluation.anchor, folder)
        changed["evaluation"] = config.evaluation.model_copy(update={"anchor": str(path)})
    return config.model_copy(update=changed), tags


def folder_name(name: str) -> str:
    """A folder name for a registered model: short, and different for every name on every file system."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)[:40]}-{digest(name)[:16]}"


def local_model(uri: str, folder: Path) -> Path:
    """The local copy of a registered model below `folder`, downloaded if missing. Raises as `export_model` does."""
    return _local(uri, folder)[1]


def _local(uri: str, folder: Path) -> tuple[str, Path]:
    """A model's address without an alias, and its local copy, whose path no model of another registry shares."""
    if LOGGED.fullmatch(uri):
        resolved, target = uri, folder / uri.removeprefix("models:/")
    else:
        version = _resolve(uri)
        resolved, target = version.uri, folder / folder_name(version.name) / f"{version.version}-{version.identity}"
    if not target.exists():
        draft = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        try:
            export_model(resolved, draft)
            try:
                draft.rename(target)
            except OSError:
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return resolved, target


def _copy_weights(uri: str, root: Path, folder: Path) -> None:
    """Copy what MLflow keeps in two folders into one, as it was logged."""
    parts = [root / "model", *sorted((root / "components").glob("*"))]
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
            shutil.copyfile(file, target)


def _resolve(uri: str) -> RegisteredVersion:
    from mlflow.exceptions import MlflowException

    match = REGISTERED.fullmatch(uri)
    if match is None:
        raise ModelError(f"{uri}: not a model's address; expected models:/name@alias or models:/name/3")
    name = match["name"]
    with guard():
        try:
            if match["version"]:
                return get_version(name, str(int(client().get_model_version(name, match["version"]).version)))
            found = find_alias(name, match["alias"])
        except MlflowException as error:
            if error_code(error) not in NOT_THERE:
                raise
            found = None
        if found is not None:
            return found
        raise ModelError(f"{uri}: no such model in MLflow at {place().shown}; {_what_there_is(name)}")


def _what_there_is(name: str) -> str:
    found = read_model(name)
    if found is None:
        return f"no model is registered as {name!r}"
    aliases = ", ".join(f"{alias} -> version {version}" for alias, version in sorted(found[0].items()))
    return f"its aliases are: {aliases}" if aliases else "it has no alias"


def _fit(text: str) -> str:
    ending = "\n\n… cut here; the whole text is in the run's artifact model_card.md."
    return text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - len(ending)] + ending
