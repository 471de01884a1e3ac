"""The pairs of `judged`: both orders are asked, what is preferred twice is chosen, and everything else is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.data.pairs.judged import outcome
from alignment.errors import PairsError
from alignment.rewards.judge_answers import Answer
from tests.alignment.chain import PROMPTS, Chain, keys
from tests.alignment.chain import config as shrunken
from tests.alignment.conftest import read_rows
from tests.endpoint import Endpoint, a_tenth, serving

A, B, TIE, SILENT = (Answer(text) for text in ("Preferred: A", "Preferred: B", "Preferred: tie", "Well."))


@pytest.mark.parametrize(
    ("as_shown", "swapped", "found"),
    [
        (A, B, "first"),
        (B, A, "second"),
        (A, A, "disagreed"),  # whatever stands first
        (B, B, "disagreed"),
        (TIE, TIE, "ties"),
        (A, TIE, "ties"),
        (SILENT, B, "unjudged"),
        (TIE, None, "unjudged"),  # refused by the endpoint
    ],
)
def test_a_text_is_preferred_where_it_is_in_both_orders(as_shown: Answer, swapped: Answer | None, found: str) -> None:
    assert outcome(as_shown, swapped) == found


def texts_of(question: str) -> tuple[str, str]:
    first, _, rest = question.partition("<A>\n")[2].partition("\n</A>")
    return first, rest.partition("<B>\n")[2].partition("\n</B>")[0]


def shorter(question: str) -> str:
    first, second = texts_of(question)
    return "Preferred: " + ("tie" if len(first) == len(second) else "A" if len(first) < len(second) else "B")


@pytest.fixture
def judged(chain: Chain, tmp_path: Path) -> Callable[..., Chain]:
    """`judged(endpoint)`: the stage `pairs` over the chain's samples, two a prompt, without their scores."""

    def run(endpoint: Endpoint, folder: str = "a", **judge: Any) -> Chain:
        root = tmp_path / folder
        root.mkdir()
        settings = {"url": endpoint.url, "model": "grader", "timeout": 3.0, **judge}
        found = chain.other(root, pairs={"source": "judged"}, reward={"judge": settings})
        del found.folders["scores"]
        found.folders["pairs"] = found.run("pairs")
        return found

    return run


def test_what_the_judge_prefers_in_both_orders_is_chosen(judged: Callable[..., Chain]) -> None:
    with serving(Endpoint(answer=shorter)) as endpoint:
        found = judged(endpoint)

    pairs = read_rows(found.folders["pairs"] / "pairs.parquet")
    counts = found.counts["pairs"]
    assert pairs
    assert all(len(pair["chosen"]) < len(pair["rejected"]) for pair in pairs)
    assert {(pair["chosen_score"], pair["rejected_score"], pair["gap"]) for pair in pairs} == {(None, None, None)}
    assert counts["candidates"] == PROMPTS
    assert counts["built"] + counts["ties"] + counts["disagreed"] + counts["unjudged"] == PROMPTS
    assert counts["disagreed"] == counts["unjudged"] == 0
    assert 2 * counts["built"] <= endpoint.calls == counts["calls"] <= 2 * PROMPTS


def test_a_judge_that_prefers_a_place_gives_no_pairs(judged: Callable[..., Chain]) -> None:
    with serving(Endpoint(answer=lambda question: "Preferred: A")) as endpoint, pytest.raises(PairsError) as raised:
        judged(endpoint)
    assert (
        f"the judge preferred none of {PROMPTS} candidates in both orders (0 ties, {PROMPTS} disagreed, 0 unjudged)"
        in (str(raised.value))
    )


def test_faults_and_a_second_run_change_nothing(judged: Callable[..., Chain]) -> None:
    with serving(Endpoint(answer=shorter)) as endpoint:
        undisturbed = judged(endpoint, "undisturbed")
    with serving(Endpoint(answer=shorter, fault=a_tenth)) as flaky:
        disturbed = judged(flaky, "disturbed")
    file = "pairs.parquet"
    assert read_rows(disturbed.folders["pairs"] / file) == read_rows(undisturbed.folders["pairs"] / file)
    assert set(flaky.answered.values()) == {1}


def test_the_stages_are_those_without_scores_and_the_key_is_the_judge_s() -> None:
    def key(**judge: Any) -> dict[str, str]:
        return keys(shrunken(pairs={"source": "judged"}, reward={"judge": {"model": "grader", **judge}}))

    assert "scores" not in key()
    assert "samples" in key()
    assert key(url="http://elsewhere:1/v1", max_calls=5)["pairs"] == key()["pairs"]
    assert key(model="other")["pairs"] != key()["pairs"]
    assert key(model="other")["samples"] == key()["samples"]
