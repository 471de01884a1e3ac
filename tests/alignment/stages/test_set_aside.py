"""Texts for second judges: the reward and they learn from different ones, where both are trained here."""

from pathlib import Path
from typing import Any

import pytest

from alignment.data.grammar import corpus
from alignment.rows import TEXTS
from alignment.stages.job import Job
from alignment.stages.set_aside import is_set_aside, part, with_own_texts
from tests.alignment.chain import config

TFIDF = {"name": "words", "kind": "tfidf"}
ROWS: list[dict[str, Any]] = [{"text": text, "label": label, "columns": ""} for text, label in corpus(400, seed=0)]


def job(root: Path, **evaluation: Any) -> Job:
    folders = [root / name for name in ("out", "work", "kept", "texts")]
    for folder in folders:
        folder.mkdir()
    out, work, kept, texts = folders
    TEXTS.write(texts, ROWS)
    return Job(config(evaluation=evaluation), {"texts": texts}, out, work, kept)


def test_the_two_sides_share_no_text_and_leave_none_out(tmp_path: Path) -> None:
    given = job(tmp_path, gold=[TFIDF])
    second, first = (
        [row["text"] for row in TEXTS.read(with_own_texts(given, second=second).inputs["texts"])]
        for second in (True, False)
    )
    assert not set(first) & set(second)
    assert sorted(first + second) == sorted(row["text"] for row in ROWS)
    assert len(second) / len(ROWS) == pytest.approx(0.25, abs=0.06)  # three standard deviations of a binomial


@pytest.mark.parametrize(
    "evaluation",
    [{}, {"gold": [TFIDF], "gold_fraction": 0.0}, {"gold": [{"name": "other", "kind": "classifier", "model": "a/b"}]}],
    ids=["no judge", "none wanted", "a judge that is given"],
)
def test_else_all_texts_are_everybodys(tmp_path: Path, evaluation: dict[str, Any]) -> None:
    given = job(tmp_path, **evaluation)
    assert with_own_texts(given, second=False) is given
    assert with_own_texts(given, second=True) is given


def test_a_reward_that_is_given_leaves_all_texts_to_the_judge() -> None:
    assert part(config(evaluation={"gold": [TFIDF]})) == 0.25
    assert part(config(evaluation={"gold": [TFIDF]}, reward={"model": "some/model"})) == 0.0


def test_a_text_is_on_the_same_side_for_every_larger_part() -> None:
    sides = [{row["text"] for row in ROWS if is_set_aside(row["text"], part)} for part in (0.0, 0.1, 0.4)]
    assert not sides[0]
    assert sides[1] < sides[2]
