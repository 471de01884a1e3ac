"""The commands on registered models: a table that fits 80 columns, JSON, and refusals."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.cli.models import versions_table
from tasks.registry.listing import ListedVersion

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _registry(at_home: Path) -> Iterator[None]:
    """MLflow as it was before."""
    from tasks.registry import connection

    before = connection._place
    yield
    connection._place = before


def listed(**changes: Any) -> ListedVersion:
    return ListedVersion.model_validate(
        {
            "name": "film",
            "version": "12",
            "uri": "models:/film/12",
            "aliases": ("challenger", "champion"),
            "verdict": "refused since",
            "reason": "",
            "reward_gain": 1.01,
            "reward_gain_ci": (0.934, 1.086),
            "registered": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            "run_id": "r",
        }
        | changes
    )


def test_the_table_fits_80_columns_and_loses_nothing() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    versions = [listed(), listed(reward_gain=None, aliases=()), listed(reward_gain_ci=None)]
    console.print(versions_table("film [1]", versions))
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[0].strip() == "film [1]"
    assert "12  refused since  +1.01 (+0.93 to +1.09)" in lines[2]
    assert [word for line in lines[2:4] for word in line.split() if word.startswith("cha")] == [
        "challenger,",
        "champion",
    ]
    assert [line.split()[3] for line in lines if line.strip().startswith("12")][1:] == ["–", "+1.01"]


def test_before_a_first_run_there_is_nothing(plumbline: Call) -> None:
    assert plumbline("models").out == "Nothing is registered yet: `plumbline run` registers what passes its gates.\n"
    assert json.loads(plumbline("models", "--json").out) == []
    missing = plumbline("models", "film")
    assert missing.code == 2
    assert "no version is registered as 'film'" in missing.err
    assert "nothing is registered there yet" in missing.err


def test_each_model_has_a_table_and_json_has_every_version(plumbline: Call, at_home: Path) -> None:
    from tasks.registry import runs
    from tests.registered import make_version

    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    for name in ("one", "two", "two"):
        make_version(name)
    shown = plumbline("models").out
    assert [line.strip() for line in shown.splitlines() if len(line.split()) == 1] == ["one", "two"]
    assert shown.count("pass") == 3
    found = json.loads(plumbline("models", "two", "--json").out)
    assert [(each["version"], each["aliases"]) for each in found] == [("2", ["challenger"]), ("1", [])]


def test_an_export_is_refused_before_anything_is_written(plumbline: Call, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    full = plumbline("export", "one", tmp_path / "full")
    assert (full.code, full.err.count("\n")) == (2, 1)
    assert "not an empty folder" in full.err
    missing = plumbline("export", "nothing@champion", tmp_path / "new", "--gguf")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
