"""What people call a model: a registered one by its name or address, a folder, or a name on the hub."""

from collections.abc import Mapping
from pathlib import Path

from alignment.aliases import CHALLENGER, CHAMPION
from alignment.errors import ModelError
from tasks.registry import versions
from tasks.registry.connection import is_new, place
from tasks.registry.downloads import local_model, resolve_model_uri

PREFERRED = (CHAMPION, CHALLENGER)
"""The aliases that a registered model's bare name stands for, in this order."""


def find_model(model: str) -> str:
    """What `model` means: `models:/name/3` of a registered version, the path of a folder, or a name on the hub.

    `name@alias` and `name/3` are registered versions; a bare name is the champion, else the challenger, of the
    registered model of that name, else a folder, else a name on the hub. Raises ModelError for a version or a folder
    that does not exist, TrackingError if MLflow cannot be reached.
    """
    if model.startswith("models:/"):
        return resolve_model_uri(model)
    path = Path(model).expanduser()
    if path.is_absolute() or model.startswith((".", "~")):
        if not path.is_dir():
            raise ModelError(f"{model}: no such folder; give a model's folder, a registered name, or a name on the hub")
        return str(path)
    name, at, alias = model.partition("@")
    if at:
        return versions.resolve(f"models:/{name}@{alias}").uri
    name, slash, number = model.partition("/")
    if (not slash or number.isdecimal()) and not is_new() and (registered := versions.read_model(name)) is not None:
        return versions.resolve(f"models:/{model}").uri if slash else _preferred(name, registered.aliases)
    return str(path) if path.is_dir() else model


def find_registered(model: str) -> str:
    """`models:/name/3` of a registered version, as `find_model` finds it. Raises ModelError for anything else."""
    found = find_model(model)
    if not found.startswith("models:/"):
        raise ModelError(
            f"{model}: no model is registered by this name in MLflow at {place().shown}; `plumbline models` lists them"
        )
    return found


def local_copy(model: str, folder: Path) -> str:
    """The folder of a model, a registered one downloaded below `folder`; a name on the hub stays what it is."""
    found = find_model(model)
    return str(local_model(found, folder)) if found.startswith("models:/") else found


def _preferred(name: str, aliases: Mapping[str, str]) -> str:
    for alias in PREFERRED:
        if alias in aliases:
            return f"models:/{name}/{aliases[alias]}"
    others = ", ".join(f"{name}@{alias}" for alias in sorted(aliases))
    raise ModelError(
        f"{name}: has neither a {CHAMPION} nor a {CHALLENGER}; name {f'one of {others}, or ' if others else ''}"
        f"a version, such as models:/{name}/1"
    )
