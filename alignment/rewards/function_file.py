"""Where a reward's function comes from: an installed entry point, or a file with the modules beside it."""

import ast
import importlib.util
import re
import symtable
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError
from alignment.kinds import REWARD_FUNCTIONS
from alignment.stages.code import imports
from alignment.stages.store import digest, digest_file

FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>[A-Za-z_]\w*))?")
NAME = "reward"
"""What a function in a file is called, where `reward.function` does not say."""


@dataclass(frozen=True)
class FunctionFile:
    """A function of a file, which is run as a script is: modules beside it may be imported."""

    path: Path
    name: str

    @property
    def sources(self) -> dict[str, Path]:
        """The file and the modules beside it that it imports, directly or not, by their paths from its folder.

        Raises ConfigError where the file is missing or is no Python.
        """
        found: dict[str, Path] = {}
        waiting = [(self.path, "")]
        while waiting:
            file, package = waiting.pop()
            name = str(file.relative_to(self.path.parent))
            if name in found:
                continue
            found[name] = file
            for module in imports(self._text(file), package):
                waiting.extend(_beside(self.path.parent, module))
        return found

    @property
    def names(self) -> frozenset[str] | None:
        """What the file names on its top level, known without running it; None where only running it tells.

        Raises ConfigError where the file is missing or is no Python.
        """
        text = self._text(self.path)
        nodes = list(ast.walk(ast.parse(text)))
        if any(map(_names_more, nodes)):
            return None
        found = symtable.symtable(text, str(self.path), "exec").get_symbols()
        inside = (name for node in nodes if isinstance(node, ast.Global) for name in node.names)
        return frozenset(each.get_name() for each in found if each.is_assigned() or each.is_imported()).union(inside)

    @property
    def code(self) -> str:
        """A hash of those sources."""
        return digest({name: digest_file(file) for name, file in sorted(self.sources.items())})

    def _text(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="utf-8")
            ast.parse(text)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"reward.function {file}: cannot be read ({reason}); give a file of Python") from error
        except SyntaxError as error:
            raise ConfigError(f"reward.function {file}: line {error.lineno}: {error.msg}; repair it") from error
        return text


def function_file(value: str) -> FunctionFile | None:
    """The file that `reward.function` names, relative to the current directory; None for an installed function."""
    found = FILE.fullmatch(value.strip())
    return FunctionFile(Path(found["file"]).absolute(), found["name"] or NAME) if found else None


def load(value: str) -> Callable[..., Any]:
    """The function that `reward.function` names.

    Raises ConfigError where there is none, or its module cannot be imported.
    """
    found = function_file(value)
    if found is None:
        require_installed(value)
        function = REWARD_FUNCTIONS.get(value)
    else:
        module = _import(found, value)
        function = getattr(module, found.name, None)
        if function is None:
            own = (name for name, item in vars(module).items() if getattr(item, "__module__", "") == module.__name__)
            there = [name for name in own if not name.startswith("_")]
            raise ConfigError(_not_there(value, found, there))
    if not callable(function):
        raise ConfigError(f"reward.function {value}: is no function but a {type(function).__name__}; name a function")
    return function  # type: ignore[no-any-return]


def require_function(value: str) -> None:
    """Raise ConfigError where a function is not installed, or not in the file that it names; no code is run."""
    found = function_file(value)
    if found is None:
        require_installed(value)
    elif (names := found.names) is not None and found.name not in names:
        there = sorted(name for name in names if not name.startswith("_"))
        raise ConfigError(_not_there(value, found, there))


def require_installed(name: str) -> None:
    """Raise ConfigError where no installed function has this name."""
    there = REWARD_FUNCTIONS.names()
    if name not in there:
        raise ConfigError(
            f"reward.function = {name}: no installed function is called so ({', '.join(there) or 'there is none'}); "
            "install the package that brings it, or name a file, as in my_rules.py:brief"
        )


@contextmanager
def beside(value: str) -> Iterator[None]:
    """Let the modules beside the file be imported, as when a script runs, also by the function while it is called."""
    found = function_file(value)
    if found is None:
        yield
        return
    folder = str(found.path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _names_more(node: ast.AST) -> bool:
    """Whether code may give a module names that do not stand in it."""
    if isinstance(node, ast.ImportFrom):
        return node.names[0].name == "*"
    if isinstance(node, ast.FunctionDef):
        return node.name == "__getattr__"
    return isinstance(node, ast.Name) and node.id in {"globals", "locals", "vars", "exec", "eval", "setattr"}


def _not_there(value: str, found: FunctionFile, there: Sequence[str]) -> str:
    return (
        f"reward.function {value}: {found.path.name} has no `{found.name}`; write FILE.py:NAME with one of "
        f"{', '.join(there) or 'its functions, of which it has none'}"
    )


def _import(found: FunctionFile, value: str) -> Any:
    """The module of the file; it is run once for each state of its code."""
    name = f"plumbline_function_{found.code[:20]}"
    if name in sys.modules:
        return sys.modules[name]
    sources = {str(path) for path in found.sources.values()}
    for other, module in list(sys.modules.items()):  # of an earlier state of the code
        if getattr(module, "__file__", None) in sources:
            del sys.modules[other]
    spec = importlib.util.spec_from_file_location(name, found.path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with beside(value):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the code of others raises whatever it likes
        del sys.modules[name]
        raise ConfigError(
            f"reward.function {value}: cannot be imported ({type(error).__name__}: {' '.join(str(error).split())}); "
            "repair it, or install what it needs"
        ) from error
    return module


def _beside(folder: Path, module: str) -> Iterator[tuple[Path, str]]:
    """The files of a module in a folder, with the packages that it is in; each with its package's name."""
    names = [name for name in module.split(".") if name]
    for depth in range(1, len(names) + 1):
        place, package = folder.joinpath(*names[:depth]), ".".join(names[:depth])
        if (place / "__init__.py").is_file():
            yield place / "__init__.py", package
        elif place.with_suffix(".py").is_file():
            yield place.with_suffix(".py"), package.rpartition(".")[0]
