"""Plumbline from Python: align a model, judge it, and use what was registered.

    import plumbline

    config = plumbline.load_config("quickstart.yaml", {"dpo": {"beta": 0.3}})
    result = plumbline.align(config)
    print(result.verdict, result.figures["reward_gain"])
    plumbline.generate(result.version, ["the film was"])

Importing this imports nothing heavy: each name is looked up at its first use. `docs/python.md` has a page on them; what
is not named here may change with any release.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment.config import AlignConfig, build_config
    from alignment.errors import InputError, PlumblineError, StageError
    from flows.library import (
        align,
        check,
        compare,
        explain,
        export,
        generate,
        load,
        models,
        plan,
        plots,
        ratings,
        report,
    )
    from flows.settings import load_config

_PLACES = {
    "AlignConfig": "alignment.config",
    "InputError": "alignment.errors",
    "PlumblineError": "alignment.errors",
    "StageError": "alignment.errors",
    "align": "flows.library",
    "build_config": "alignment.config",
    "check": "flows.library",
    "compare": "flows.library",
    "explain": "flows.library",
    "export": "flows.library",
    "generate": "flows.library",
    "load": "flows.library",
    "load_config": "flows.settings",
    "models": "flows.library",
    "plan": "flows.library",
    "plots": "flows.library",
    "ratings": "flows.library",
    "report": "flows.library",
}
"""The module that each public name lives in."""

__all__ = [
    "AlignConfig",
    "InputError",
    "PlumblineError",
    "StageError",
    "align",
    "build_config",
    "check",
    "compare",
    "explain",
    "export",
    "generate",
    "load",
    "load_config",
    "models",
    "plan",
    "plots",
    "ratings",
    "report",
]


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})
