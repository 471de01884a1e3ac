"""The versions in MLflow's model registry: created, found by tag, alias or address, listed, and tagged."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.errors import ModelError
from alignment.stages.store import digest
from tasks.registry import elsewhere, marks
from tasks.registry.connection import client, error_code, fluent, guard, is_new, place
from tasks.registry.descriptions import ROOM, fit
from tasks.registry.records import REPORT

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
    """By name, as `marks.read` finds them."""
    source: str = ""
    """The address of the model that was registered, `models:/m-…`."""
    identity: str = ""
    """A hash that differs for every version, also for one of the same name and number in another registry."""
    created: int = 0
    """When it was registered, in milliseconds since 1970."""
    description: str = ""

    @property
    def uri(self) -> str:
        """The address of this version, which no alias changes."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model: its aliases, each with its version, its own tags, and its description."""

    aliases: Mapping[str, str]
    tags: Mapping[str, str]
    description: str = ""


def create_version(
    run_id: str, model_uri: str, name: str, *, key: str, description: str = "", tags: Mapping[str, str] | None = None
) -> RegisteredVersion:
    """Register a model as the next version of `name`, which carries `key`; no alias moves.

    `description` is Markdown, cut to what MLflow takes. The tags are part of the same request, so no version
    exists without them. Raises TrackingError if MLflow cannot be reached or refuses the name.
    """
    from mlflow.exceptions import MlflowException

    elsewhere.note()
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
                description=fit(description, ROOM),
                tags=dict(marks.change({}, {marks.KEY: key, **(tags or {})}).values),
            )
        return get_version(name, str(made.version))


def find_version(name: str, key: str) -> RegisteredVersion | None:
    """The newest version of `name` that carries `key`, or None."""
    return find_tagged(name, marks.KEY, key)


def find_tagged(name: str, tag: str, value: str) -> RegisteredVersion | None:
    """The newest version of `name` with this value in what Plumbline remembers of it, or None."""
    with guard():
        items = [item for query in marks.query(tag, value) for item in _search(name, query)]
    found = [_version(item, ()) for item in items if marks.read(item.tags).get(tag) == value]
    newest = max((int(version.version) for version in found), default=None)
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
        return _version(item, item.aliases)


def read_model(name: str) -> RegisteredModel | None:
    """A registered model, read in one request; None if there is no such model."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            found = client().get_registered_model(name)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return None
            raise
        aliases = {alias: str(version) for alias, version in found.aliases.items()}
        return RegisteredModel(aliases, dict(found.tags), str(found.description or ""))


def models_with_tag(key: str) -> list[str]:
    """The names of the registered models that carry a tag."""
    with guard():
        return [str(model.name) for model in _pages(client().search_registered_models) if key in model.tags]


def model_names() -> list[str]:
    """The names of all registered models, sorted; none are there before MLflow's database is made."""
    if is_new():
        return []
    with guard():
        return sorted(str(model.name) for model in _pages(client().search_registered_models))


def all_versions(name: str) -> list[RegisteredVersion]:
    """Every version of `name`, the newest first; empty if there is no such model."""
    model = None if is_new() else read_model(name)
    if model is None:
        return []
    of_version: dict[str, list[str]] = {}
    for alias, version in model.aliases.items():
        of_version.setdefault(version, []).append(alias)
    with guard():
        items = list(_search(name))
    found = [_version(item, of_version.get(str(item.version), ())) for item in items]
    return sorted(found, key=lambda version: -int(version.version))


def find_run_metrics(run_id: str) -> dict[str, float]:
    """The metrics of the run that a version came from; empty if that run does not exist."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            return dict(client().get_run(run_id).data.metrics)
        except MlflowException as error:
            if error_code(error) in NOT_THERE:
                return {}
            raise


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
        return any(marks.KEY in marks.read(item.tags) for item in _search(name))


def tag_version(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags on a version; an empty value takes one away from what Plumbline remembers of it.

    All that Plumbline remembers is one tag, so that a reader sees either none of the changes or all of them. The caller
    holds the model's lock. What an older release wrote as tags of their own goes into it.
    """
    with guard():
        made = marks.change(client().get_model_version(name, version).tags, tags)
        for tag, value in made.values.items():
            client().set_model_version_tag(name, version, tag, value)
        for tag in made.outdated:
            client().delete_model_version_tag(name, version, tag)


def describe_version(name: str, version: str, text: str) -> None:
    """Set a version's description, Markdown, cut to what MLflow takes."""
    with guard():
        client().update_model_version(name, version, fit(text))


def describe_model(name: str, text: str) -> None:
    """Set a registered model's description, Markdown, cut to what MLflow takes."""
    with guard():
        client().update_registered_model(name, fit(text))


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


def resolve(uri: str) -> RegisteredVersion:
    """The version at an address with a number or an alias. Raises ModelError if there is none."""
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
        what = f"version has the alias {match['alias']}" if match["alias"] and read_model(name) else "such model"
        raise ModelError(f"{uri}: no {what} in MLflow at {place().shown}; {_what_there_is(name)}")


def _pages(search: Any, **wanted: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **wanted)
        yield from page
        token = page.token
        if not token:
            return


def _search(name: str, query: str = "") -> Iterator[Any]:
    quote = '"' if "'" in name else "'"
    where = f"name = {quote}{name}{quote}"
    return _pages(client().search_model_versions, filter_string=f"{where} and {query}" if query else where)


def _version(item: Any, aliases: Iterable[str]) -> RegisteredVersion:
    return RegisteredVersion(
        name=str(item.name),
        version=str(item.version),
        aliases=tuple(sorted(aliases)),
        run_id=str(item.run_id or ""),
        tags=marks.read(item.tags),
        source=str(item.source or ""),
        identity=digest([item.run_id, item.model_id, item.source, item.creation_timestamp])[:12],
        created=int(item.creation_timestamp or 0),
        description=str(item.description or ""),
    )


def _what_there_is(name: str) -> str:
    found = read_model(name)
    if found is None:
        return f"no model is registered as {name!r}"
    aliases = ", ".join(f"{alias} -> version {version}" for alias, version in sorted(found.aliases.items()))
    return f"its aliases are: {aliases}" if aliases else "it has no alias"
