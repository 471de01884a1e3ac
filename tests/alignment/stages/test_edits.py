"""What an edit costs: for every module, the stages whose keys move when a comment is added to it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment.config import build_config
from alignment.kinds import PROJECT
from alignment.stages import code
from alignment.stages.plan import key_of
from alignment.stages.store import StageRef
from tasks.pipeline import PIPELINE

CONFIG = build_config({"evaluation": {"anchor": "some/model", "judge": "grammar"}})
REF = StageRef(stage="any", key="k", path=Path(), digest="content", counts={}, seconds=0.0)

EDITS: dict[str, str] = {}
"""The stages that are computed again after an edit of each module. What follows them is found in the store where their
results come out as before, as after a comment; where they do not, it is computed again as well."""


def keys() -> dict[str, str]:
    """Every stage's key where the results that it needs stay as they are."""
    code.code_version.cache_clear()
    refs = dict.fromkeys(PIPELINE, REF)
    return {name: key_of(stage, CONFIG, refs) for name, stage in PIPELINE.items()}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project's code in a folder where it may be edited."""
    for room in code.ROOMS:
        shutil.copytree(PROJECT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    yield tmp_path
    code.code_version.cache_clear()


def test_an_edit_moves_the_keys_of_the_stages_that_run_the_code_and_no_others(copy: Path) -> None:
    before = keys()
    found: dict[str, str] = {}
    for file in sorted(copy.rglob("*.py")):
        module = ".".join(file.relative_to(copy).with_suffix("").parts).removesuffix(".__init__")
        source = file.read_text(encoding="utf-8")
        file.write_text(source + "# a comment\n", encoding="utf-8")
        after = keys()
        file.write_text(source, encoding="utf-8")
        found[module] = " ".join(name for name in PIPELINE if before[name] != after[name])
    assert found == EDITS


def test_what_is_not_in_the_rooms_of_the_stages_moves_nothing(copy: Path) -> None:
    """Tasks, flows and the command line: the table above is of all the code that a key can see."""
    seen = {name for stage in PIPELINE.values() for name in code.closure(stage.module)}
    assert {name.partition(".")[0] for name in seen} == set(code.ROOMS)
