"""What a run recorded, read again: its report, its sample texts and its configuration, of this release or an older one.

All parts of a record are of one schema, which stands in the report: 1 where it names none. A change of any part's form
raises `SCHEMA` by one and adds a function to `UPGRADES`, so that every older record can still be read.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import yaml

from alignment.config import RENAMED, AlignConfig, Group
from alignment.errors import NewerRecordError, RecordError
from alignment.judging.report import SCHEMA, EvalReport, SampleRow


def _keep_what_applies(report: dict[str, Any]) -> dict[str, Any]:
    """1 to 2: a figure that does not apply is not there; changes are named after their metrics."""
    parts = ("base", "aligned", "delta", "drift")
    found = {
        part: {name: value for name, value in (report.get(part) or {}).items() if value is not None} for part in parts
    }
    if "grammar_drop" in found["delta"]:
        found["delta"]["grammatical_change"] = -found["delta"]["grammar_drop"]
    if found["drift"]:
        found["drift"]["base_reward_gain"] = found["base"]["reward_mean"] - found["drift"]["anchor_reward_mean"]
    return report | found | {"drift": found["drift"] or None}


def _as_it_is(report: dict[str, Any]) -> dict[str, Any]:
    """2 to 3, and 3 to 4: what came in is not there."""
    return report


UPGRADES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_keep_what_applies, _as_it_is, _as_it_is)
"""For each schema before this one, in order, what makes a report of the next schema of it."""

NEEDED = {
    "base": ("reward_mean", "entropy"),
    "aligned": ("reward_mean", "reward_sd"),
    "delta": ("reward_gain", "reward_gain_ci", "win_rate", "perplexity_ratio", "kl_per_token", "reward_sd_ratio"),
}
"""The figures that every report has, those of the reward where there is one: gates, cards and smoke test name them."""
OF_REWARDS = ("reward_", "win_rate")  # how their names begin


def read_report(text: str, source: str = "report.json") -> EvalReport:
    """The report of an evaluation. Raises NewerRecordError for a schema to come, RecordError where it is no report."""
    try:
        values = json.loads(text)
        schema = int(values.pop("schema", 1))
        if schema < 1:
            raise ValueError(f"schema {schema}")
        if schema > SCHEMA:
            raise NewerRecordError(
                f"{source}: schema {schema} is newer than the {SCHEMA} that this release reads; upgrade Plumbline"
            )
        for upgrade in UPGRADES[schema - 1 :]:
            values = upgrade(values)
        for part, names in NEEDED.items():
            needed = [name for name in names if values.get("compared") != 0 or not name.startswith(OF_REWARDS)]
            if missing := [name for name in needed if name not in values[part]]:
                raise ValueError(f"no {', '.join(missing)} in {part}")
        return EvalReport.model_validate(values)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise _unreadable(source, error) from error


def read_config(text: str, groups: Collection[str], source: str = "config.yaml") -> AlignConfig:
    """The configuration as far as these groups of fields (or `seed`) go; everything else as it is by default.

    A field that this release does not know is left out, one that the record lacks has its default. Raises RecordError
    where a value is out of bounds, or the text is no configuration.
    """
    try:
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("no fields in it")
        values = _renamed(values)
        fields = {name: AlignConfig.model_fields[name].annotation for name in groups}
        known = {name: _known(kind, values[name]) for name, kind in fields.items() if name in values}
        return AlignConfig.model_validate(known)
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise _unreadable(source, error) from error


def read_samples(text: str, source: str = "samples.json") -> list[SampleRow]:
    """The rows of a table of sample texts, by the names of its columns. Raises RecordError where one is missing."""
    try:
        table = json.loads(text)
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        return [SampleRow(**{name: row[name] for name in SampleRow.model_fields if name in row}) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(source, error) from error


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    for old, new in RENAMED.items():
        group, field = old.split(".")
        if field in values.get(group, {}):
            group_now, field_now = new.split(".")
            values.setdefault(group_now, {}).setdefault(field_now, values[group].pop(field))
    return values


def _known(kind: Any, value: Any) -> Any:
    """A group's values without those of fields that it does not have, groups within it included."""
    if not (isinstance(kind, type) and issubclass(kind, Group) and isinstance(value, Mapping)):
        return value
    fields = kind.model_fields
    return {name: _known(fields[name].annotation, below) for name, below in value.items() if name in fields}


def _unreadable(source: str, error: Exception) -> RecordError:
    return RecordError(f"{source}: not a record of Plumbline's ({' '.join(str(error).split())})")
