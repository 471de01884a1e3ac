"""Validation in parts under the store: gone on with after a kill, the same as in one part, and shown as one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from alignment.config import build_config
from alignment.errors import ValidationError
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.parts import parts_of
from alignment.stages.store import StageRef
from expectations import stage as module
from tasks import checks
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.progress import Event
from tasks.registry import connection, runs
from tasks.running import run_stage
from tests.expectations.conftest import make_pair

WIDE = {"min_pairs": 2, "max_quarantined": 1.0, "min_distinct_prompts": 2, "chosen_longer_max": 1.0}
CONFIG = build_config({}, overrides={"validation": WIDE})
VALIDATION = PIPELINE["validation"]
PAIRS_GIVEN, PART = 4096 + 1000, 4096

KILLED = """
import os, signal
from tasks import running
from tests.tasks.test_validation_parts import CONFIG, PART, PAIRS_GIVEN, VALIDATION, given
running.LISTENERS.append(lambda event: event.kind == "progress" and os.kill(os.getpid(), signal.SIGKILL))
running.run_stage(VALIDATION, CONFIG, given(), part=(PART, PAIRS_GIVEN))
"""


def given() -> dict[str, StageRef]:
    """Pairs, every hundredth of which has no gap, and prompts of which one is held out; made once in a home."""

    def pairs(folder: Path) -> dict[str, int]:
        more = {"exact_logprob": True, "fault": ""}
        rows = (make_pair(number) | more for number in range(PAIRS_GIVEN))
        PAIRS.write(folder, [row | ({"chosen_score": 0.3} if at % 100 == 0 else {}) for at, row in enumerate(rows)])
        return {"built": PAIRS_GIVEN}

    def prompts(folder: Path) -> dict[str, int]:
        blank = {"prompt": "", "prompt_ids": [], "split": "eval", "messages": "", "columns": ""}
        PROMPTS.write(folder, [blank | {"prompt_id": "prompt-held-out"}])
        return {"train": PAIRS_GIVEN}

    made = (("pairs", pairs), ("prompts", prompts))
    return {name: store().find(name, "k1") or store().write(name, "k1", fill) for name, fill in made}


def validated(refs: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch, part: int = PART) -> StageRef:
    """The stage, in parts of so many pairs."""
    monkeypatch.setattr(module, "PART", part)
    assert VALIDATION.parts is not None
    cut = VALIDATION.parts.split(CONFIG, refs)
    return run_stage(
        VALIDATION, CONFIG, refs, parts=tuple(run_stage(VALIDATION, CONFIG, refs, part=each) for each in cut)
    )


def test_a_part_that_was_finished_before_a_kill_is_not_judged_again(
    monkeypatch: pytest.MonkeyPatch, events: list[Event]
) -> None:
    refs = given()
    first = run_stage(VALIDATION, CONFIG, refs, part=(0, PART))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED], cwd=Path(__file__).parents[2], env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL
    assert [draft.name.partition("@")[0] for draft in (store().root / ".draft").iterdir()] == [
        f"validation-parts-{first.key.removesuffix(f'-0-{PART}')}-{PART}-{PAIRS_GIVEN}"
    ], "the kill came in the midst of it"
    events.clear()
    whole = validated(refs, monkeypatch)
    assert [(event.stage, event.kind) for event in events if event.kind in {"cached", "computed"}] == [
        (f"validation 0-{PART}", "cached"),
        (f"validation {PART}-{PAIRS_GIVEN}", "computed"),
        ("validation", "computed"),
    ]
    assert whole.counts == {"pairs": PAIRS_GIVEN, "accepted": PAIRS_GIVEN - 51, "quarantined": 51}
    assert [row["pair_id"] for row in QUARANTINED.read(whole.path, ["pair_id"])] == [
        f"pair-{number}" for number in range(0, PAIRS_GIVEN, 100)
    ]


def test_two_parts_are_one_part_by_content_rows_and_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    refs = given()
    two = validated(refs, monkeypatch)
    found = {table.file: table.read(two.path) for table in (ACCEPTED, QUARANTINED)}
    told, listed = (two.path / CHECKS).read_bytes(), parts_of(two.path)
    store().discard("validation", two.key)
    one = validated(refs, monkeypatch, PAIRS_GIVEN)
    assert (len(listed), len(parts_of(one.path))) == (2, 1)
    assert (one.digest, one.counts) == (two.digest, two.counts)
    assert {table.file: table.read(one.path) for table in (ACCEPTED, QUARANTINED)} == found
    assert (one.path / CHECKS).read_bytes() == told


def test_a_run_that_validation_stops_shows_the_pairs_of_all_parts_as_one_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection, "_place", connection.Place(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "files"))
    narrow: Any = CONFIG.model_copy(update={"validation": CONFIG.validation.model_copy(update={"max_quarantined": 0})})
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", narrow)
    whole = validated(given(), monkeypatch)
    with (
        pytest.raises(ValidationError, match=r"with reasons, are in 2 files, first /") as raised,
        runs.run(narrow, "stopped") as run_id,
    ):
        checks.require_valid.fn(whole, {"validation": whole.counts}, run_id, 0.0)
    assert Path(str(raised.value).rpartition(" first ")[2]).exists()
    shown = connection.client().download_artifacts(run_id, f"validation/{QUARANTINED.file}", str(tmp_path))
    assert parquet.read_table(shown)["pair_id"].to_pylist() == [
        f"pair-{number}" for number in range(0, PAIRS_GIVEN, 100)
    ]
