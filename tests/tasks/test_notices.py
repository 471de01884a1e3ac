"""What a notification says, word for word."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.judging.gates import judge
from alignment.judging.report import EvalReport
from tasks import notices, refusals
from tasks.events import MODEL_DRIFTED, RUN_REFUSED
from tasks.registry.candidates import Candidate
from tests.reports import make_report

FIGURES = (
    "reward gain +1.50; prompts won 93.0%; perplexity, ratio to the base's ×1.08; "
    "KL from the base, nats per token 0.050; length, change in tokens +3.0"
)
SINCE = datetime(2026, 11, 26, 14, 5, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=72)
FILM = Candidate(name="film", version="3", champion="2", refusal="", base="models:/film/2", report=make_report())


def refused(**given: Any) -> tuple[Any, EvalReport]:
    report = make_report(**given)
    return judge(report, AlignConfig().gates), report


def test_an_approval_that_is_awaited() -> None:
    assert notices.waiting(FILM, UNTIL, ["book version 1"], "http://here/run") == {
        "title": "film version 3 waits for your approval",
        "text": f"{FIGURES}\nIt would replace version 2. Without an answer by Sun 29 Nov 2026, 14:05 UTC it is "
        "rejected. Also waiting: book version 1.",
        "link": "http://here/run",
    }


def test_a_reminder_says_since_when() -> None:
    told = notices.reminder(FILM.model_copy(update={"report": None, "champion": None}), SINCE, UNTIL)
    assert told == {
        "title": "film version 3 still waits for your approval, since Thu 26 Nov 2026, 14:05 UTC",
        "text": "There is no champion yet. Without an answer by Sun 29 Nov 2026, 14:05 UTC it is rejected.",
        "link": "",
    }


def test_a_refusal_names_the_gate() -> None:
    told = notices.refused("film", *refused(delta={"kl_per_token": 0.31}), "http://here/run")
    assert told["title"] == "film: the new model was refused by the gates"
    why, figures = told["text"].splitlines()
    assert why.startswith("Not registered: KL per token 0.31 exceeds 0.2")
    assert figures == FIGURES.replace("0.050", "0.310")


@pytest.mark.parametrize(
    ("given", "event", "title"),
    [
        ({"delta": {"kl_per_token": 0.31}}, RUN_REFUSED, "film: the new model was refused by the gates"),
        (
            {"drift": {"kl_per_token": 0.5}},
            MODEL_DRIFTED,
            "film: the new model has drifted too far from its anchor",
        ),
        (
            {"drift": {"kl_per_token": 0.5}, "delta": {"win_rate": 0.1}},
            MODEL_DRIFTED,
            "film: the new model has drifted too far from its anchor",
        ),
        ({"drift": {}, "delta": {"win_rate": 0.1}}, RUN_REFUSED, "film: the new model was refused by the gates"),
    ],
    ids=["a gate", "the anchor's gate", "both", "a gate, with an anchor that is near"],
)
def test_drift_is_told_as_drift_and_once(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], event: str, title: str
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(refusals, "emit", lambda *told: sent.append(told))
    judgement, report = refused(**given)
    refusals.announce_refusal("film", judgement, report, "http://mlflow/run")
    [(kind, name, payload)] = sent
    assert (kind, name, payload["title"]) == (event, "film", title)
    assert payload["reason"] == judgement.sentence
    assert payload["link"] == "http://mlflow/run"


def test_a_sweep_without_a_winner() -> None:
    sent: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refusals, "emit", lambda *told: sent.append(told))
        refusals.announce_refused_sweep("film", "0 of 8 points passed", "http://mlflow/run")
    [(event, _, payload)] = sent
    assert event == RUN_REFUSED
    assert payload["title"] == "film: no model of the sweep passed the gates"
    assert payload["text"] == "0 of 8 points passed."


@pytest.mark.parametrize(
    ("champion", "now"), [("2", "Version 2 is the champion again."), (None, "There is no champion now.")]
)
def test_a_champion_that_was_moved_back(champion: str | None, now: str) -> None:
    told = notices.reverted("film version 3", champion, "it failed the gates: win_rate")
    assert told["title"] == "film version 3 was made champion by hand, and is not any more"
    assert told["text"] == f"It may not be the champion: it failed the gates: win_rate\n{now}"
