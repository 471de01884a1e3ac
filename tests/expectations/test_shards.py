"""The stage in shards: where the pairs are cut decides neither files nor checks nor figures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from alignment.config import build_config
from alignment.errors import ValidationError
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.job import Job
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


def judged(folder: Path, shard: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stage, "SHARD", shard)
    out = folder / f"shards of {shard}"
    out.mkdir()
    config = build_config({}, overrides={"validation": WIDE})
    counts = stage.validation.body(Job(config, {"pairs": folder, "prompts": folder}, out, out, out))
    assert counts["accepted"] + counts["quarantined"] == counts["pairs"] == 16
    return out


def test_shards_of_any_size_give_the_same_files_checks_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, CHANGES)
    files = [
        {file: (out / file).read_bytes() for file in (CHECKS, ACCEPTED.file, QUARANTINED.file)}
        for out in (judged(tmp_path, shard, monkeypatch) for shard in (100, 7, 1))
    ]
    assert files[0] == files[1] == files[2]
    broken = pq.read_table(tmp_path / "shards of 7" / QUARANTINED.file)
    assert dict(zip(broken["pair_id"].to_pylist(), broken["broken"].to_pylist(), strict=True)) == {
        "pair-2": ["null"],
        "pair-3": ["score_gap"],
        "pair-4": ["score_gap", "not_blank", "no_control_characters"],
        "pair-8": ["empty_chat"],
        "pair-14": ["score_gap"],
        "pair-15": ["whole_unicode"],
    }


def test_the_figures_are_those_of_plain_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CHANGES)
    out = judged(tmp_path, 3, monkeypatch)
    found = json.loads((out / CHECKS).read_text())["figures"]
    accepted = pd.read_parquet(out / ACCEPTED.file)
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
    out = judged(tmp_path, 4, monkeypatch)
    broken = pq.read_table(out / QUARANTINED.file)
    assert broken["pair_id"].to_pylist() == ["pair-1", "pair-2", "pair-9", "pair-11"]
    assert broken["broken"].to_pylist() == [["fresh"], ["null"], ["fresh"], ["calm"]]
    checks = {check["name"]: check for check in json.loads((out / CHECKS).read_text())["checks"]}
    assert (checks["fresh"]["observed"], checks["calm"]["failed_rows"]) == (2, 1)
    assert checks["mean_gap"]["observed"] == pytest.approx(0.6)
    assert (checks["rows"]["observed"], checks["each"]["failed_rows"]) == (12, 12)


def test_a_pair_id_that_comes_twice_is_an_error_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {15: {"pair_id": "pair-0"}})
    with pytest.raises(ValidationError, match="pair_id pair-0 comes more than once"):
        judged(tmp_path, 4, monkeypatch)


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function
