"""The commands on registered models: a table that fits 80 columns, JSON, and refusals."""

import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.config import AlignConfig
from alignment.judging.gates import judge
from flows.cli.models import refused_table, versions_table
from tasks.registry.listing import ListedVersion, Refused, RefusedRun

Call = Callable[..., Any]
ROLLED_BACK = ("rolled", "back", "2026-01-02")


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
    decided = listed(win_rate=0.957, kl_per_token=0.0744, decision="rolled back")
    console.print(versions_table("film [1]", [decided, listed(reward_gain=None, aliases=())]))
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[0].strip() == "film [1]"
    assert lines[1].split() == ["v", "verdict", "gain", "won", "KL", "aliases", "decision", "registered"]
    assert lines[2].split() == ["12", "refused", "since", "+1.01", "95.7%", "0.074", "challenger,", *ROLLED_BACK]
    assert lines[3].split() == ["champion"]
    assert lines[4].split() == ["12", "refused", "since", *"–––––", "2026-01-02"]


def test_of_what_no_reward_judged_the_accuracy_is_shown() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    by_pairs = listed(reward_gain=None, preference_accuracy=0.8, kl_per_token=0.05, aliases=())
    console.print(versions_table("film", [by_pairs]))
    console.print(versions_table("film", [by_pairs, listed(decision="rolled back")]))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][2:5] == ["accuracy", "KL", "aliases"]
    assert lines[2][3:5] == ["80.0%", "0.050"]
    assert lines[4][2:5] == ["gain", "accuracy", "KL"]
    assert [line[3:6] for line in lines[5:7]] == [["–", "80.0%", "0.050"], ["+1.01", "–", "–"]]
    assert [line[0] for line in lines[6:8]] == ["12", "champion"], "an alias stays whole"


def test_refused_runs_are_a_table_with_the_gates_that_refused_them() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    run = RefusedRun(
        run_id="0123456789abcdef",
        name="hinge, beta 0.1, lr 0.001",
        model_name="film",
        started=datetime(2026, 1, 2, 12, tzinfo=UTC),
        gates=("kl_per_token", "perplexity_ratio"),
        reason="Not registered: ...",
        reward_gain=1.24,
    )
    console.print(refused_table(Refused([run], more=236)))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = " ".join(text.split())
    assert "01234567 2026-01-02 +1.24 – –" in words
    for part in ("kl per", "perplexity", "hinge, beta", "and 236 more"):
        assert part in words


def test_before_a_first_run_there_is_nothing(plumbline: Call) -> None:
    assert re.sub(r"sqlite:\S+", "HERE", " ".join(plumbline("models").out.split())) == (
        "Nothing is registered in MLflow at HERE `plumbline run` registers what passes its gates."
    )
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


def test_refused_runs_are_listed_if_asked_for(plumbline: Call, at_home: Path) -> None:
    from tasks.registry import records, runs
    from tests.registered import make_run, make_version, report

    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    assert "No run was refused." in plumbline("models", "--refused").out
    make_version("three")
    bad = report(kl_per_token=0.9)
    run, _ = make_run("a refused run", found=bad, tags={"plumbline.model_name": "three"})
    records.log_evaluation(run, bad, judge(bad, AlignConfig().gates))
    assert "kl per token" in plumbline("models", "--refused").out
    found = json.loads(plumbline("models", "three", "--refused", "--json").out)
    assert [each["version"] for each in found["versions"]] == ["1"]
    assert [(each["run_id"], each["gates"], each["kl_per_token"]) for each in found["refused"]] == [
        (run, ["kl_per_token"], 0.9)
    ]
    assert json.loads(plumbline("models", "three", "--json").out)[0]["name"] == "three"
    assert found["more_refused"] == 0
    other = plumbline("models", "nothing", "--refused")
    assert (other.code, "no version is registered as 'nothing'" in other.err) == (2, True)


def test_a_figure_that_is_not_finite_is_a_dash_and_in_json_a_text(plumbline: Call, at_home: Path) -> None:
    from tasks.registry import records, runs
    from tests.registered import make_run, report

    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    bad = report(kl_per_token=float("nan"))
    run, _ = make_run("not finite", found=bad, tags={"plumbline.model_name": "four"})
    records.log_evaluation(run, bad, judge(bad, AlignConfig().gates))
    assert "nan" not in plumbline("models", "four", "--refused").out
    found = json.loads(plumbline("models", "four", "--refused", "--json").out, parse_constant=pytest.fail)
    assert found["refused"][0]["kl_per_token"] == "NaN"


def test_an_export_is_refused_before_anything_is_written(plumbline: Call, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    full = plumbline("export", "one", tmp_path / "full")
    assert (full.code, full.err.count("\n")) == (2, 1)
    assert "not an empty folder" in full.err
    missing = plumbline("export", "nothing@champion", tmp_path / "new", "--gguf")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
