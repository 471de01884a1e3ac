"""What a run starts from: a shipped preset, a registered version or an earlier run, by name, and never by a path."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.errors import ConfigError, Fault, ModelError, NewerRecordError, RecordError, TrackingError
from alignment.judging.records import read_config
from alignment.yaml_file import read_yaml
from flows.settings import CONFIGS, PROMOTION, QUICKSTART, TINY

FIELD = "start_from"
FIRST = (TINY, QUICKSTART)
NOTEBOOK = "notebook_"
RUN = re.compile(r"[0-9a-f]{32}")


def presets() -> tuple[str, ...]:
    """The names of the shipped files that configure a run; first those that need nothing from elsewhere."""
    names = {path.stem for path in CONFIGS.glob("*.yaml")} - {PROMOTION.stem}
    first = [path.stem for path in FIRST]
    return (*first, *sorted(names.difference(first)))


def offered() -> tuple[str, ...]:
    """Those of them that a run can start from as they are, and that are not the research notebook's."""
    return tuple(name for name in presets() if not (name.startswith(NOTEBOOK) or _is_to_be_filled_in(name)))


def _is_to_be_filled_in(name: str) -> bool:
    """Whether a preset names a file that is a person's own: one of data, or one of code, which no form may run."""
    values = read_yaml(CONFIGS / f"{name}.yaml")
    return bool(Path(values.get("data", {}).get("path", "")).suffix) or "function" in values.get("reward", {})


def read_start(name: str) -> Mapping[str, Any]:
    """The values of a preset, of a version (`models:/name/3`, `name@alias`) or of an MLflow run, by its id.

    Spaces around a name are not part of it. An empty one has no values, and so stands for the defaults of all fields.
    Raises ConfigError for anything else, and where MLflow has no such version or run, or one whose record this release
    cannot read; TrackingError where MLflow cannot be reached.
    """
    name = name.strip()
    if not name:
        return {}
    if name in presets():
        return read_yaml(CONFIGS / f"{name}.yaml")
    if RUN.fullmatch(name) or name.startswith("models:/") or "@" in name:
        return _recorded(name).model_dump()
    raise refusal(
        f"{FIELD} = {name}: no preset ({', '.join(offered())}), no version such as models:/name/3 or name@champion, "
        "and no id of an MLflow run; take one of these"
    )


def refusal(message: str) -> ConfigError:
    """The error that a run cannot start from what was named."""
    return ConfigError(message, [Fault((FIELD,), message)])


def _recorded(name: str) -> AlignConfig:
    """The configuration that MLflow keeps with a run, or with that of a version, as this release reads it."""
    from tasks.home import home, tracking_uri
    from tasks.registry import records, versions
    from tasks.registry.connection import configure

    configure(tracking_uri(), home() / "artifacts")
    try:
        run_id = name
        if not RUN.fullmatch(name):
            run_id = versions.resolve(name if name.startswith("models:/") else f"models:/{name}").run_id
        return read_config(records.read_artifact(run_id, "config.yaml"), list(AlignConfig.model_fields))
    except ModelError as error:
        raise refusal(f"{FIELD} = {error}") from error
    except (RecordError, NewerRecordError) as error:
        raise refusal(f"{FIELD} = {name}: {error}") from error
    except TrackingError as error:
        if not records.is_missing(error):
            raise
        raise refusal(f"{FIELD} = {name}: MLflow has no such run, or it recorded no configuration") from error
