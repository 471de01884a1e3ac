"""Open kinds: what a configuration chooses by name, built in by a decorator or installed with another package.

A package adds a kind by an entry point of the group `plumbline.<group>`, whose name is what the configuration says:

    [project.entry-points."plumbline.losses"]
    cpo = "my_package.losses:cpo"

A kind with settings of its own names them by an entry point `<group>.<name>` of the group `plumbline.fields`, which is
a subclass of `alignment.config.Group`; they become a group of fields beside the one that chooses the kind.
Only what is installed can be chosen: a name in a form or a request never makes anything else be imported.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic_core import CoreSchema, core_schema

from alignment.errors import ConfigError

T = TypeVar("T")
Registered = TypeVar("Registered")

PROJECT = Path(__file__).parents[1]
FIELDS = "plumbline.fields"


@dataclass(frozen=True)
class Origin:
    """Where a kind comes from: its module, and the package that brought it with its version; built in if empty.

    `options` are the constants that a built-in kind's decorator has beside the name, as in `smoothing=False`.
    """

    module: str
    package: str = ""
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


class Kinds(Generic[T]):
    """The kinds of one thing by name, such as the losses.

    The names are known without importing a kind: from the decorators in the source below `home`, and from the metadata
    of installed packages. So a configuration is checked without torch. As metadata of a pydantic field
    (`Annotated[str, LOSSES]`) it makes the field a choice among them.
    """

    def __init__(self, group: str, decorator: str, home: str, *, decorated: bool = False) -> None:
        """`@decorator("name")` registers a built-in kind in the module `home`, or in a module of the package `home`.

        Where kinds have to be `decorated`, what an entry point names is none by itself.
        """
        self.group = group
        self.decorator = decorator
        self.home = home
        self.decorated = decorated
        self._registered: dict[str, T] = {}
        self._broken: dict[str, str] = {}

    def register(self, name: str, kind: T) -> None:
        """Add a kind; a package of others needs its entry point beside this. Raises ConfigError where it is taken."""
        if name in self._registered:
            raise ConfigError(f"two {self.group} are called {name!r}: give one of them another name")
        self._registered[name] = kind

    def names(self) -> tuple[str, ...]:
        """Every name that may be chosen: the built-in ones in the order of the source, then those of other packages."""
        return tuple(self._origins)

    def origin(self, name: str) -> Origin:
        """Where a kind comes from, without importing it. Raises ConfigError for an unknown name."""
        if name not in self._origins:
            raise ConfigError(
                f"{name!r} is none of the {self.group}: {', '.join(self._origins) or 'there are none'}; install the "
                f"package that brings it, or take one of these"
            )
        if name in self._broken:
            raise ConfigError(self._broken[name])
        return self._origins[name]

    def get(self, name: str) -> T:
        """The kind, imported at its first use. Raises ConfigError for an unknown name, or where the import fails."""
        origin = self.origin(name)
        if name not in self._registered:
            if not origin.package:
                importlib.import_module(origin.module)
            else:
                loaded = self._load(name, origin)
                if not self.decorated:
                    self._registered.setdefault(name, loaded)
        if name not in self._registered:
            raise ConfigError(
                f"{name!r} of the {self.group}: {origin.package or origin.module} registers nothing of this name; "
                f"decorate it with `@{self.decorator}({name!r})`, and call the entry point so"
            )
        return self._registered[name]

    def all(self) -> dict[str, T]:
        """Every kind by name, all of them imported."""
        return {name: self.get(name) for name in self.names()}

    def fields(self) -> dict[str, type[Any]]:
        """The group of settings of each kind that another package brings with some, by the kind's name."""
        found = {}
        for point in _entry_points(FIELDS):
            group, _, name = point.name.partition(".")
            if group == self.group and name in self._origins:
                try:
                    found[name] = point.load()
                except Exception as error:  # noqa: BLE001 - another package's code; who chooses the kind is told
                    self._broken[name] = (
                        f"{name!r} of the {self.group}: its fields, {point.value}, cannot be imported "
                        f"({type(error).__name__}: {error}); repair or remove that package"
                    )
        return found

    def _load(self, name: str, origin: Origin) -> Any:
        (point,) = (point for point in _entry_points(f"plumbline.{self.group}") if point.name == name)
        try:
            return point.load()
        except Exception as error:  # another package's code may raise anything
            raise ConfigError(
                f"{name!r} of the {self.group}: {origin.package} {origin.version} cannot be imported "
                f"({type(error).__name__}: {error}); repair or remove that package"
            ) from error

    @cached_property
    def _origins(self) -> dict[str, Origin]:
        found = dict(_declared(self.home, self.decorator))
        for point in _entry_points(f"plumbline.{self.group}"):
            package = point.dist.name if point.dist else ""
            if point.name in found:
                other = found[point.name].package or "Plumbline"
                self._broken[point.name] = (
                    f"{point.name!r} of the {self.group} is brought by {package} and by {other}: remove one of the two"
                )
                continue
            version = point.dist.version if point.dist else ""
            options = dict(_decorated(module_file(point.module), self.decorator)).get(point.name, {})
            found[point.name] = Origin(point.module, package, version, options)
        return found

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        """A choice among the names, for pydantic."""
        return core_schema.literal_schema(list(self.names()))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        """The choice as an enumeration, also where there is one kind alone: Prefect's form draws it."""
        return {"type": "string", "enum": list(self.names())}

    def __repr__(self) -> str:
        """The group, as a reader of a signature sees it."""
        return f"Kinds({self.group})"


LOSSES: Kinds[Any] = Kinds("losses", "loss", "alignment.training.losses")
DIVERGENCES: Kinds[Any] = Kinds("divergences", "divergence", "alignment.training.divergences")
STRATEGIES: Kinds[Any] = Kinds("strategies", "strategy", "alignment.data.pairs")
REWARDS: Kinds[Any] = Kinds("rewards", "reward", "alignment.rewards")
REWARD_MODELS: Kinds[Any] = Kinds("reward_models", "reward_model", "alignment.rewards")
REWARD_FUNCTIONS: Kinds[Any] = Kinds("reward_functions", "", "")
ENGINES: Kinds[Any] = Kinds("engines", "engine", "alignment.sampling")
ENGINE_VERSIONS: Kinds[Any] = Kinds("engine_versions", "engine_version", "alignment.sampling")
PROMPTS: Kinds[Any] = Kinds("prompts", "prompt_source", "alignment.data.prompts")
PAIRS: Kinds[Any] = Kinds("pairs", "pair_source", "alignment.data.pairs")
TRAINERS: Kinds[Any] = Kinds("trainers", "trainer", "alignment.training")
JUDGES: Kinds[Any] = Kinds("judges", "judge", "alignment.judging.judges")
METRICS: Kinds[Any] = Kinds("metrics", "metric", "alignment.judging.metrics", decorated=True)
GATES: Kinds[Any] = Kinds("gates", "gate", "alignment.judging.gates", decorated=True)
EXPECTATIONS: Kinds[Any] = Kinds("expectations", "check", "")


def require_known_fields() -> None:
    """Raise ConfigError where a package brings fields for no kind, as with a misspelt entry point."""
    groups = {kinds.group: kinds for kinds in globals().values() if isinstance(kinds, Kinds)}
    for point in _entry_points(FIELDS):
        group, _, name = point.name.partition(".")
        if group not in groups or name not in groups[group].names():
            raise ConfigError(
                f"the entry point {point.name!r} of {FIELDS} ({point.value}) names no kind: it is the word after "
                f"`plumbline.` in the kind's own entry point, a dot and the kind's name, such as `rewards.brevity`"
            )


def registers(kinds: Kinds[Any], name: str) -> Callable[[Registered], Registered]:
    """A decorator that registers what it decorates, and returns it as it is."""

    def register(kind: Registered) -> Registered:
        kinds.register(name, kind)
        return kind

    return register


@cache
def _entry_points(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(sorted(_installed().select(group=group), key=lambda point: point.name))


@cache
def _installed() -> Any:
    """The entry points of all installed packages: reading their metadata takes as long for one group as for all."""
    return importlib.metadata.entry_points()


def module_file(module: str, root: Path | None = None) -> Path:
    """The file of a module below `root`, else where its package is installed, found without importing it.

    It need not exist; of a package it is its `__init__.py`.
    """
    place = (root or _place_of(module.partition(".")[0])).joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def _place_of(package: str) -> Path:
    """The folder that holds a top-level package or module."""
    found = importlib.util.find_spec(package)
    if found is None:
        return Path("/nowhere")
    if found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations))).parent
    return Path(found.origin or "/nowhere").parent


def _declared(home: str, decorator: str) -> Iterator[tuple[str, Origin]]:
    """The names that stand in `@decorator("name")` in a module or the modules of a package, each with its origin."""
    if not home:
        return
    place = PROJECT.joinpath(*home.split("."))
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        for name, options in _decorated(file, decorator):
            yield name, Origin(module, options=options)


def _decorated(file: Path, decorator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names in `@decorator("name", option=constant)` in a source file, each with the constants beside it."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if not re.search(rf"@\s*{decorator}\s*\(", text):  # most files have none, and parsing is what takes time
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                    constants = {word.arg: word.value for word in call.keywords if word.arg}
                    yield (
                        ast.literal_eval(call.args[0]),
                        {name: value.value for name, value in constants.items() if isinstance(value, ast.Constant)},
                    )
