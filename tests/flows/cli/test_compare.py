"""`compare` in a terminal of 80 columns, as JSON and as a page: what is told, and what is refused."""

import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from alignment.judging.evaluated import gather
from flows import library
from flows.cli.compare import tell
from tasks.registry import records
from tests.alignment.judging.test_story import sample
from tests.registered import make_version

Call = Callable[..., Any]
NUMBERS = count()


@pytest.fixture
def at_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module's home; none of these commands needs a server."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(shared_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shared_home


@pytest.fixture(autouse=True)
def _registry(at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This home's MLflow, and afterwards the one from before; a terminal of 80 columns."""
    from tasks.registry import connection, runs

    before = connection._place
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    yield
    connection._place = before


@pytest.fixture
def film() -> str:
    """A name that no other test registers by: they share a database."""
    return f"film-{next(NUMBERS)}"


def version(name: str, rewards: list[float], reward: str = "r") -> None:
    """A version whose prompts have one sample each with these rewards."""
    rows = [sample(f"{number:016x}", 0, value, base_logprob=-6.0) for number, value in enumerate(rewards)]
    table = pa.Table.from_pylist(rows)
    records.log_evaluated(make_version(name).run_id, gather(table, table, {}, reward=reward, base="b"))


def test_figures_and_texts_in_80_columns_and_a_page(plumbline_alone: Call, tmp_path: Path, film: str) -> None:
    version(film, [0.0, 1.0, 2.0])
    version(film, [1.0, 0.5, 4.0])
    done = plumbline_alone("compare", f"models:/{film}/1", film)
    assert done.code == 0
    lines = done.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80, "the last one has the page's path, which is not broken"
    assert lines[:2] == [f"A  {film} version 1, passed", f"B  {film} version 2 (challenger), passed"]
    (told,) = (line.split() for line in lines if line.startswith("reward  "))
    assert told[:4] == ["reward", "+1.00", "+1.83", "+0.83"]
    assert done.out.index("+2.00") < done.out.index("+1.00     the film") < done.out.index("−0.50     the film")
    assert (tmp_path / f"{film}-version-1-vs-{film}-version-2-challenger.html").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_bold_figures_are_spoken_of_where_a_terminal_shows_them(terminal: bool, film: str) -> None:
    version(film, [0.0, 0.5, 1.0] * 4)
    version(film, [2.0, 2.5, 3.0] * 4)
    screen = Console(file=StringIO(), width=80, force_terminal=terminal)
    tell(library.compared(f"models:/{film}/1", film), screen, 0)
    told = " ".join(re.sub("\x1b.*?m", "", screen.file.getvalue()).split())  # type: ignore[attr-defined]
    marked = " (bold)" if terminal else ""
    assert f"Told apart by reward, prompts won by B{marked}: the interval leaves out that both are the same." in told


def test_json_has_every_sample_and_writes_no_page(plumbline_alone: Call, tmp_path: Path, film: str) -> None:
    version(film, [0.0, 1.0])
    version(film, [1.0, 0.5])
    found = json.loads(plumbline_alone("compare", f"models:/{film}/1", film, "--json").out)
    assert [each["gain"] for each in found["samples"]] == [1.0, -0.5]
    assert found["figures"]["reward"]["change"] == 0.25
    assert not list(tmp_path.glob("*.html"))


def test_scores_of_other_rewards_are_refused_in_words(plumbline_alone: Call, film: str) -> None:
    version(film, [0.0, 1.0])
    version(film, [9.0, 9.0], reward="another")
    told = " ".join(plumbline_alone("compare", f"models:/{film}/1", film).out.split())
    assert "Care They were scored by different rewards" in told
    assert "no score of A is set against one of B" in told
    assert "prompts won" not in told
    assert "Largest gains" not in told


def test_no_shared_prompt_offers_fresh_samples(plumbline_alone: Call, film: str) -> None:
    version(film, [0.0])
    table = pa.Table.from_pylist([sample("f" * 16, 0, 1.0, base_logprob=-6.0)])
    records.log_evaluated(make_version(film).run_id, gather(table, table, {}, reward="r", base="b"))
    told = " ".join(plumbline_alone("compare", f"models:/{film}/1", film).out.split())
    assert "They share no held-out prompt" in told
    assert "--sample 64 has both write to the same prompts now" in told


def test_a_run_against_itself_and_a_number_below_zero_are_refused(plumbline_alone: Call, film: str) -> None:
    version(film, [0.0])
    same = plumbline_alone("compare", film, f"models:/{film}/1")
    assert (same.code, "both are run" in same.err) == (2, True)
    below = plumbline_alone("compare", film, film, "--sample", "-3")
    assert (below.code, "above 0" in below.err) == (2, True)
