"""The stage in parts and shards: where the pairs are cut decides neither rows nor checks nor figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import parquet
from alignment.config import build_config
from alignment.errors import ValidationError
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.job import Counts, Job
from alignment.stages.parts import fill, parts_of, summed
from alignment.stages.row_hash import ROWS
from alignment.stages.store import StageRef, digest_folder
from expectations import stage, suites
from tests.expectations import oracles
from tests.expectations.conftest import make_pair

WIDE = {"min_pairs": 2, "max_quarantined": 1.0, "min_distinct_prompts": 2, "chosen_longer_max": 1.0}
SAME = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
FAULTY: dict[str, Any] = dict.fromkeys(("chosen", "chosen_ids", "chosen_tokens", "chosen_score")) | {"fault": "null"}
UNSCORED: dict[str, Any] = dict.fromkeys(("chosen_score", "rejected_score", "gap"))
TEXT = {"chosen": "Tale 6: it ends well", "chosen_score": 0.8, "chosen_tokens": 5}

# changes by row of 16 sound pairs; text and tokens of row 6 stand again in row 12, with another score
CHANGES: dict[int, dict[str, Any]] = {
    0: UNSCORED,
    1: SAME,
    2: FAULTY,
    3: {"chosen_score": 0.0},
    4: {"rejected": "Tale 4:\x85", "rejected_score": 0.9},
    5: SAME | {"prompt_id": "prompt-1"},
    6: TEXT,
    8: FAULTY | {"fault": "empty_chat"},
    10: {"rejected_tokens": 6, "rejected_score": 0.1},
    12: {"prompt": "Tale 6:", "rejected": "Tale 6: it ends badly", **TEXT, "chosen_score": 0.7, "rejected_tokens": 4},
    14: SAME | {"chosen_score": 0.0},
    15: {"chosen": "Tale 15: cut \ufffd"},
}


def write(folder: Path, changes: dict[int, dict[str, Any]]) -> None:
    more = {"exact_logprob": True, "fault": ""}
    PAIRS.write(folder, [make_pair(number) | more | changes.get(number, {}) for number in range(16)])
    held_out = {"prompt": "", "prompt_ids": [], "split": "eval", "messages": "", "columns": ""}
    PROMPTS.write(folder, [held_out | {"prompt_id": name} for name in ("prompt-1", "prompt-9", "prompt-99")])


@pytest.fixture(autouse=True)
def groups_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of two pairs, where parts are cut and which shards are made of."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    monkeypatch.setattr(stage, "GROUP_ROWS", 2)


def judged(folder: Path, part: int, shard: int, monkeypatch: pytest.MonkeyPatch, digest: str = "0123") -> Path:
    """The stage's folder, in parts of so many pairs that are judged so many at a time."""
    monkeypatch.setattr(stage, "PART", part)
    monkeypatch.setattr(stage, "SHARD", shard)
    root = folder / f"parts of {part} in shards of {shard}"
    config = build_config({}, overrides={"validation": WIDE})

    def filled(name: str, **others: Any) -> tuple[Path, Counts]:
        out = root / name
        out.mkdir(parents=True)
        inputs = {"pairs": folder, "prompts": folder}
        return out, fill(stage.validation, Job(config, inputs, out, out, out, {"pairs": digest}, **others))

    made = StageRef(stage="pairs", key="k", path=folder, digest="0123", counts={"built": 16}, seconds=0.0)
    parts = [filled(f"parts/{first}", part=(first, last)) for first, last in stage.ranges(config, {"pairs": made})]
    counted = summed(counts for _, counts in parts)
    out, counts = filled("whole/k", parts=tuple(path for path, _ in parts), counted=counted)
    assert counts["accepted"] + counts["quarantined"] == counts["pairs"] == 16
    assert len(parts_of(out)) == -(-16 // part)
    return out


def broken(folder: Path) -> dict[str, list[str]]:
    """The checks that each quarantined pair broke."""
    rows: list[Any] = QUARANTINED.read(folder)
    return {row["pair_id"]: row["broken"] for row in rows}


def test_parts_and_shards_of_any_size_give_the_same_rows_checks_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CHANGES)
    found = [judged(tmp_path, *sizes, monkeypatch) for sizes in ((16, 100), (16, 2), (6, 4), (2, 2))]
    assert len({digest_folder(out) for out in found}) == 1
    assert len({(out / CHECKS).read_bytes() for out in found}) == 1
    for table in (ACCEPTED, QUARANTINED):
        assert all(table.read(out) == table.read(found[0]) for out in found)
    assert broken(found[2]) == {
        "pair-2": ["null"],
        "pair-3": ["score_gap"],
        "pair-4": ["score_gap", "not_blank", "no_control_characters"],
        "pair-8": ["empty_chat"],
        "pair-14": ["score_gap"],
        "pair-15": ["whole_unicode"],
    }


def test_the_content_is_another_where_the_pairs_are_or_what_became_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason, a pair that changes sides, and pairs of another content."""
    found = []
    blank: dict[str, Any] = {"rejected": "Tale 4: "}
    low: dict[str, Any] = {"chosen_score": 0.0}
    for number, (row, change, digest) in enumerate([(4, blank, "0"), (4, low, "0"), (5, low, "0"), (4, blank, "1")]):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), {row: change})
        found.append(judged(tmp_path / str(number), 6, 4, monkeypatch, digest) / ROWS)
    assert len({rows.read_text() for rows in found}) == 4


def test_the_figures_are_those_of_plain_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CHANGES)
    out = judged(tmp_path, 6, 2, monkeypatch)
    found = json.loads((out / CHECKS).read_text())["figures"]
    accepted = ACCEPTED.whole(out, ACCEPTED.schema.names).to_pandas()
    assert found == pytest.approx(oracles.figures(accepted, 16 - len(accepted), ["prompt-1", "prompt-9", "prompt-99"]))
    assert 0 < abs(found["length_correlation"]) < 1


def test_checks_of_other_packages_see_the_whole_set_where_they_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated text is told though its rows stand in two shards; a set check reads columns of the accepted pairs."""
    from great_expectations import expectations as gxe

    monkeypatch.setattr(suites, "ROW_CHECKS", dict(suites.ROW_CHECKS))
    monkeypatch.setattr(suites, "SET_CHECKS", dict(suites.SET_CHECKS))
    suites.row_check(_named("fresh", lambda _: gxe.ExpectColumnValuesToBeUnique(column="rejected")))
    suites.row_check(_named("calm", lambda _: gxe.ExpectColumnValuesToNotMatchRegex(column="chosen", regex="!")))
    suites.set_check(_named("mean_gap", lambda _: gxe.ExpectColumnMeanToBeBetween(column="gap", min_value=0.9)))
    suites.set_check(_named("rows", lambda _: gxe.ExpectTableRowCountToBeBetween(max_value=9)))
    suites.set_check(
        _named("each", lambda _: gxe.ExpectColumnValuesToBeBetween(column="duplicate_fraction", max_value=-1))
    )
    again = {"prompt": "Tale 1:", "chosen": "Tale 1: it ends well", "rejected": "Tale 1: it ends badly"}
    write(tmp_path, {2: FAULTY, 9: again, 11: {"chosen": "Tale 11: it ends!"}})
    out = judged(tmp_path, 16, 4, monkeypatch)
    assert broken(out) == {
        "pair-1": ["fresh"],
        "pair-2": ["null"],
        "pair-9": ["fresh"],
        "pair-11": ["calm"],
    }
    checks = {check["name"]: check for check in json.loads((out / CHECKS).read_text())["checks"]}
    assert (checks["fresh"]["observed"], checks["calm"]["failed_rows"]) == (2, 1)
    assert checks["mean_gap"]["observed"] == pytest.approx(0.6)
    assert (checks["rows"]["observed"], checks["each"]["failed_rows"]) == (12, 12)


def test_pairs_that_are_compared_with_one_another_are_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations import expectations as gxe

    made = StageRef(stage="pairs", key="k", path=Path(), digest="", counts={"built": stage.PART + 1}, seconds=0.0)
    config = build_config({})
    assert stage.ranges(config, {"pairs": made}) == [(0, stage.PART), (stage.PART, stage.PART + 1)]
    monkeypatch.setattr(suites, "ROW_CHECKS", dict(suites.ROW_CHECKS))
    suites.row_check(_named("fresh", lambda _: gxe.ExpectColumnValuesToBeUnique(column="rejected")))
    assert stage.ranges(config, {"pairs": made}) == [(0, stage.PART + 1)]


@pytest.mark.parametrize("part", [16, 4], ids=["in one part", "in two parts"])
def test_a_pair_id_that_comes_twice_is_an_error_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    write(tmp_path, {9: {"pair_id": "pair-8"}, 14: {"pair_id": "pair-0"}, 15: {"pair_id": "pair-0"}})
    with pytest.raises(ValidationError, match="pair_id pair-8 comes more than once"):
        judged(tmp_path, part, 4, monkeypatch)


def test_a_pair_that_is_repeated_in_another_part_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {1: SAME, 14: SAME})
    checks = json.loads((judged(tmp_path, 4, 4, monkeypatch) / CHECKS).read_text())
    assert checks["figures"]["duplicate_fraction"] == 1 / 16


def test_pairs_of_which_there_are_none_are_refused(tmp_path: Path) -> None:
    """Their one part is empty, and the whole says so."""
    PAIRS.write(tmp_path, [])
    PROMPTS.write(tmp_path, [])
    config, out = build_config({}), tmp_path / "parts" / "0"
    out.mkdir(parents=True)
    job = Job(config, {"pairs": tmp_path, "prompts": tmp_path}, out, out, out, {"pairs": "0123"})
    assert fill(stage.validation, job) == {"pairs": 0, "accepted": 0, "quarantined": 0}
    whole = Job(config, job.inputs, tmp_path, out, out, parts=(out,), counted={"pairs": 0})
    with pytest.raises(ValidationError, match="pairs: there are none to validate"):
        fill(stage.validation, whole)


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function
