"""The whole flow with a judge behind an endpoint that fails a tenth of its calls: by scores, and by pairs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.config import build_config, merge
from alignment.errors import BudgetError
from flows.align import align
from tests.endpoint import Endpoint, a_tenth, serving
from tests.flows.small import OPEN_GATES, SMALL

KEY = "sk-of-the-whole-flow"
TINY: dict[str, Any] = {"prompts": {"count": 24, "eval_count": 12}, "gates": OPEN_GATES}


def answer(question: str) -> str:
    """A score by the length, or the shorter one of two, so that there is something to learn."""
    if "<A>" not in question:
        text = question.partition("<completion>\n")[2].partition("\n</completion>")[0]
        return f"Score: {max(1, 10 - len(text) // 12)}"
    first = question.partition("<A>\n")[2].partition("\n</A>")[0]
    second = question.partition("<B>\n")[2].partition("\n</B>")[0]
    return "Preferred: " + ("tie" if len(first) == len(second) else "A" if len(first) < len(second) else "B")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("alignment.endpoints.FIRST_PAUSE", 0.01)
    with serving(Endpoint(answer=answer, fault=a_tenth)) as served:
        yield served


def settings(endpoint: Endpoint, **changes: Any) -> Any:
    judge = {"url": endpoint.url, "model": "grader", "timeout": 3.0}
    return build_config(merge(merge(merge(SMALL, TINY), {"reward": {"kind": "judge", "judge": judge}}), changes))


def counts(home: Path, stage: str) -> dict[str, int]:
    file = max((home / "store" / stage).glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    found: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))["counts"]
    return found


@pytest.mark.full
def test_a_run_whose_reward_is_a_judge(at_home: Path, endpoint: Endpoint) -> None:
    with pytest.raises(BudgetError, match=r"max_calls = 30 are used, and \d+ texts are not judged"):
        align(settings(endpoint, reward={"judge": {"max_calls": 30}}))
    assert endpoint.calls == 30

    result = align(settings(endpoint))
    assert result.model is not None
    assert set(endpoint.answered.values()) == {1}
    assert 1 <= result.report.base.reward_mean <= 10
    found = counts(at_home, "scores")
    assert found["scored"] == 24 * 4
    assert found["unscored"] == found["unparsable"] == 0
    assert found["kept_answers"] + found["calls"] >= 24 * 4 - 20  # the same text is asked about once
    assert endpoint.keys == {f"Bearer {KEY}"}
    held = [file for file in at_home.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]
    assert held == []


@pytest.mark.full
def test_a_run_whose_pairs_are_judged_and_whose_reward_is_a_classifier(at_home: Path, endpoint: Endpoint) -> None:
    result = align(settings(endpoint, reward={"kind": "classifier"}, pairs={"source": "judged"}))

    assert result.model is not None
    found = counts(at_home, "pairs")
    assert found["candidates"] == 24 * 2
    assert result.pairs["built"] == found["candidates"] - found["ties"] - found["disagreed"] - found["unjudged"]
    assert set(endpoint.answered.values()) == {1}
