"""The commands that tell of a run: pages in files, the story of a version in the terminal, and refusals."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plumbline as library
from tests.registered import make_run, make_version, report

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _registry(at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This home's MLflow, and afterwards the one from before."""
    from tasks.registry import connection, runs

    before = connection._place
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    monkeypatch.chdir(tmp_path)
    yield
    connection._place = before


def test_a_report_is_a_file_named_after_what_it_shows(plumbline: Call, tmp_path: Path) -> None:
    version = make_version("paged")
    done = plumbline("report", "paged")
    assert done.code == 0
    page = tmp_path / "paged-version-1-challenger.html"
    assert done.out.startswith("paged-version-1-challenger.html: 0.")
    assert "paged version 1 (challenger)" in page.read_text("utf-8")
    run = plumbline("report", version.run_id[:8], "--out", tmp_path / "mine.html")
    assert (run.code, (tmp_path / "mine.html").stat().st_size) == (0, page.stat().st_size)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_from_python_a_report_is_a_path(tmp_path: Path) -> None:
    make_version("python")
    make_version("python", found=report(reward_gain=2.0))
    assert library.report("python") == Path("python-version-2-challenger.html")
    assert library.compare("models:/python/1", "python", tmp_path / "x.html") == tmp_path / "x.html"


def test_what_names_nothing_is_refused_in_a_line(plumbline: Call, tmp_path: Path) -> None:
    first, second = make_run("a")[0], make_run("b")[0]
    for arguments, told in (
        (("report", "nothing"), "no run's id begins so, and no model is registered by this name"),
        (("report", "nobody@champion"), "no model is registered as 'nobody'"),
        (("why", "nobody", "3"), "no model is registered by this name"),
        (("report", first, "--out", tmp_path / "no" / "x.html"), "name a file that you may write"),
    ):
        done = plumbline(*arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert told in done.err
    assert not list(tmp_path.glob("*.html"))
    assert first != second


def test_why_tells_of_a_version_with_its_history(plumbline: Call) -> None:
    from tasks.registry import versions

    made = make_version("story")
    make_version("story", found=report(kl_per_token=0.9))
    history = {
        "promotion.history": "2126-01-02T03:04:05+00:00 promoted, Ann: better\n"
        "2126-02-03T03:04:05+00:00 rolled back, Bo",
        "smoke.verdict": "passed",
        "smoke.reward": "1.15",
        "smoke.time": "2126-01-20T03:04:05+00:00",
    }
    versions.tag_version("story", made.version, history)
    newest = plumbline("why", "story").out
    assert newest.startswith("story version 2 (challenger): refused\n1 of 6 gates refused it.\n")
    assert "the policy went further from the base" in " ".join(newest.split())
    first = plumbline("why", "story", "1").out
    assert first.startswith("story version 1: passed\nMay be registered: ")
    words = " ".join(first.split())
    happened = ("registered", "promoted, Ann: better", "smoke test passed, mean reward 1.15", "rolled back, Bo")
    assert [words.index(part) for part in happened] == sorted(words.index(part) for part in happened)
    assert "plumbline report models:/story/1" in words
    told = json.loads(plumbline("why", "models:/story/1", "--json").out)
    assert told["verdict"] == "passed"
    assert [gate["name"] for gate in told["gates"]][:2] == ["reward_gain", "win_rate"]
    assert len(told["history"]) == 4
    twice = plumbline("why", "models:/story/1", "2")
    assert (twice.code, "leave the number out" in twice.err) == (2, True)
    missing = plumbline("why", "story", "9")
    assert (missing.code, "there are 2, 1" in missing.err) == (2, True)


def test_why_says_what_stands_against_a_version_since(plumbline: Call) -> None:
    from tasks.registry import versions

    made = make_version("since")
    versions.tag_version("since", made.version, {"plumbline.judged_again": "Run abc: KL 0.90 exceeds 0.2."})
    words = " ".join(plumbline("why", "since").out.split())
    assert "since version 1 (challenger): refused since" in words
    assert "Not to be promoted: judged again, it failed. Run abc" in words


def test_why_tells_of_a_run_that_is_no_version(plumbline: Call) -> None:
    from tasks.registry import runs

    bad, _ = make_run("a refused run", found=report(kl_per_token=0.9))
    words = " ".join(plumbline("why", bad[:10]).out.split())
    assert f"run {bad} (a refused run): refused" in words
    assert "kl_per_token 0.9 <= 0.2 refused the policy went further" in words
    died, _ = make_run("a run that died", record=False, tags={"plumbline.reason": "the disk was full"})
    runs.finish(died, "FAILED")
    done = plumbline("why", died)
    assert done.code == 0
    assert f"run {died} (a run that died): not judged the disk was full" in " ".join(done.out.split())
    page = plumbline("report", died)
    assert (page.code, page.err.count("\n")) == (1, 1)
    assert "it was never judged" in page.err
    assert "the disk was full" in page.err
