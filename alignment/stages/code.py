"""The code behind a result as a hash: a module with those of its own package and of this project that it imports."""

import ast
import importlib.metadata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError
from alignment.kinds import PROJECT, Kinds, module_file
from alignment.stages.store import digest, digest_file

ROOMS = ("alignment", "expectations")

NOT_COUNTED = (
    "alignment.config",  # its values are in the key; a test holds that its classes do nothing beside checking them
    "alignment.errors",
    "alignment.hub",  # the cache and the network give the same files
    "alignment.kinds",  # it finds code, which counts by itself
    "alignment.locks",
    "alignment.remote",
    "alignment.stages.files",
    "alignment.stages.job",
    "alignment.stages.marks",
    "alignment.stages.stage",
    "alignment.stages.store",
    "alignment.stages.stored",
    "alignment.stages.sources",  # what it finds is in the key
    "alignment.tensor_files",  # it refuses files, and reads no weight
)
"""Modules, and packages with all that is in them, that decide no result."""


@cache
def code_version(module: str) -> str:
    """A hash of a module's source and of all that it imports, anywhere, of this project and of its own package."""
    return digest({name: digest_file(source(name)) for name in sorted(closure(module))})[:20]


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each library."""
    return {name: importlib.metadata.version(name) for name in names}


def kind_version(kinds: Kinds[Any], name: str) -> dict[str, str]:
    """What decides what a kind does: its code, and the package and version that brought it."""
    origin = kinds.origin(name)
    found = {"code": code_version(origin.module)}
    return found | ({"package": origin.package, "version": origin.version} if origin.package else {})


def closure(module: str) -> set[str]:
    """The names of a module and of those that it imports, directly or not; what decides no result is left out.

    Raises ConfigError where another package's module has no source to be read.
    """
    rooms = {*ROOMS, module.partition(".")[0]}
    if not source(module).exists():
        raise ConfigError(
            f"{module}: has no source file, so results that rest on it cannot be told apart; install it whole"
        )
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in rooms or not source(name).exists():
            continue
        if name.startswith(tuple(f"{left}." for left in NOT_COUNTED)) or name in NOT_COUNTED:
            continue
        parent = name.rpartition(".")[0]
        waiting.extend([parent] if parent else [])  # a package's own code runs before its modules'
        file = source(name)
        text = file.read_text(encoding="utf-8")
        if not parsed(text)[0]:
            continue
        found.add(name)
        waiting.extend(imports(text, name if file.name == "__init__.py" else parent))
    return found


@cache
def parsed(text: str) -> tuple[bool, tuple[ast.Import | ast.ImportFrom, ...]]:
    """Whether there is more in a source text than a docstring, and its imports, wherever they stand."""
    try:
        tree = ast.parse(text)
    except SystemError:  # where another thread parses meanwhile: https://github.com/python/cpython/issues/106905
        tree = ast.parse(text)
    holds_code = any(not isinstance(node, ast.Expr) for node in tree.body)
    return holds_code, tuple(node for node in _statements(tree.body) if isinstance(node, ast.Import | ast.ImportFrom))


def imports(text: str, package: str = "") -> frozenset[str]:
    """Every module that a source text of a package imports anywhere, `from x import y` as both `x` and `x.y`."""
    found: set[str] = set()
    for node in parsed(text)[1]:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Each statement of a body and of those within it; expressions, which are most of a tree, are not looked into."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, field, ()))


def source(module: str) -> Path:
    """The file of a module, which need not exist; of a package its `__init__.py`."""
    return module_file(module, PROJECT if module.partition(".")[0] in ROOMS else None)
