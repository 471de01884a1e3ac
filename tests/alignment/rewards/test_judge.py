"""The reward `judge`: what it asks, what it makes of the answers, and that nothing is ever paid for twice."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment import endpoints
from alignment.config import AlignConfig, build_config
from alignment.errors import BudgetError, ConfigError, EndpointError, Interrupted
from alignment.rewards import judge_asking
from alignment.rewards.checking import score, score_batches
from alignment.rewards.judge import Judge
from alignment.rewards.protocol import Batches, Scores, Scoring
from alignment.transient import is_transient
from tests.endpoint import BUSY, CUT, PAGE, REFUSED, SERVER_ERROR, SLOW, Endpoint, Fault, a_tenth, grade, serving, until

ROOT = Path(__file__).parents[3]
KEY = "sk-this-is-a-secret"
TEXTS = [f"completion number {number}" for number in range(60)]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(judge_asking, "GRACE", 1.0)
    monkeypatch.setattr(endpoints, "LOOK_EVERY", 0.02)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as served:
        yield served


def configured(endpoint: Endpoint, **judge: Any) -> AlignConfig:
    settings = {"url": endpoint.url, "model": "grader", "timeout": 10.0, **judge}
    return build_config({"reward": {"kind": "judge", "judge": settings}})


def samples(texts: list[str]) -> list[dict[str, Any]]:
    return [
        {"prompt": "Go on:", "completion": text, "text": f"Go on:{text}", "messages": [], "columns": {}}
        for text in texts
    ]


def judged(
    endpoint: Endpoint,
    kept: Path,
    texts: list[str] = TEXTS,
    progress: Callable[[int, int], None] | None = None,
    **judge: Any,
) -> Scores:
    return score(Judge(configured(endpoint, **judge)), samples(texts), Scoring(Path(), kept, progress))


def always(fault: Fault) -> Callable[[int, str], Fault | None]:
    return lambda call, question: fault


def expected(endpoint: Endpoint) -> list[float]:
    """The scores by the endpoint's rule, of the questions that it saw for each text."""
    asked = [request["messages"][0]["content"] for request in endpoint.requests]
    of_text = {text: next(question for question in asked if f"\n{text}\n" in question) for text in TEXTS}
    return [float(grade(of_text[text]).rpartition(" ")[2]) for text in TEXTS]


# what is asked


def test_each_text_gets_the_number_that_the_judge_gives_it(endpoint: Endpoint, tmp_path: Path) -> None:
    found = judged(endpoint, tmp_path)

    assert found.values == expected(endpoint)
    assert len(set(found.values)) > 3
    request = endpoint.requests[0]
    assert {name: value for name, value in request.items() if name != "messages"} == {
        "model": "grader",
        "temperature": 0.0,
        "max_tokens": 512,
        "seed": 0,
    }
    (turn,) = request["messages"]
    assert turn["role"] == "user"
    assert "<prompt>\nGo on:\n</prompt>" in turn["content"]


def test_fields_are_added_to_a_request_and_left_out(endpoint: Endpoint, tmp_path: Path) -> None:
    extra = "{max_tokens: null, max_completion_tokens: 9, chat_template_kwargs: {enable_thinking: false}}"
    judged(endpoint, tmp_path, TEXTS[:1], extra=extra)

    request = endpoint.requests[0]
    assert "max_tokens" not in request
    assert request["max_completion_tokens"] == 9
    assert request["chat_template_kwargs"] == {"enable_thinking": False}


def test_no_more_than_the_configured_number_is_asked_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda question: time.sleep(0.02) or grade(question)  # type: ignore[func-returns-value]
    judged(endpoint, tmp_path, TEXTS[:12], concurrency=3)
    assert 2 <= endpoint.most_at_once <= 3


def test_one_question_is_asked_once(endpoint: Endpoint, tmp_path: Path) -> None:
    found = judged(endpoint, tmp_path, ["the same"] * 20 + ["another"])

    assert endpoint.calls == 2
    assert len(set(found.values[:20])) == 1


def test_what_was_answered_is_asked_in_no_other_run_or_stage(endpoint: Endpoint, tmp_path: Path) -> None:
    first = judged(endpoint, tmp_path)
    assert judged(endpoint, tmp_path, timeout=5.0, concurrency=2, retries=0).values == first.values
    assert endpoint.calls == len(TEXTS)

    judged(endpoint, tmp_path, seed=1)  # which is another question
    assert endpoint.calls == 2 * len(TEXTS)


def test_an_endpoint_may_move(endpoint: Endpoint, tmp_path: Path) -> None:
    first = judged(endpoint, tmp_path)
    with serving(Endpoint()) as elsewhere:
        assert judged(elsewhere, tmp_path).values == first.values
        assert elsewhere.calls == 0


def test_its_progress_ends_at_the_number_of_questions(endpoint: Endpoint, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    judged(endpoint, tmp_path, TEXTS[:5], progress=lambda done, total: told.append((done, total)))
    judged(endpoint, tmp_path, TEXTS[:5], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (5, 5)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# what its answers say


def test_an_answer_without_a_score_is_none_and_is_not_asked_for_again(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "low": "Score: 0",
        "high": "Score: 11",
        "none": "I would rather not.",
        "empty": "",
        "page": "<html></html>",
    }
    endpoint.answer = lambda question: next(
        (answer for name, answer in answers.items() if f"\n{name}\n" in question), "Score: 4"
    )
    for _ in range(2):
        assert judged(endpoint, tmp_path, [*answers, "good"]).values == [None] * 5 + [4.0]
    assert endpoint.calls == 6
    assert "5 of 6 answers hold no score from 1 to 10 and count as none" in caplog.text


def test_a_pattern_of_one_s_own_reads_the_answers_that_are_there(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda question: "I give 3 points. Score: 8"
    assert judged(endpoint, tmp_path, ["text"]).values == [8.0]
    assert judged(endpoint, tmp_path, ["text"], pattern=r"(\d+) points").values == [3.0]
    assert endpoint.calls == 1


def test_a_text_that_the_endpoint_refuses_has_no_score(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.fault = lambda call, question: REFUSED if "number 7\n" in question else None
    found = judged(endpoint, tmp_path)
    assert [index for index, value in enumerate(found.values) if value is None] == [7]
    assert "1 texts were refused and have no score, the first with 400 the text is too long" in caplog.text


def test_a_request_that_is_refused_for_every_text_is_at_fault_itself(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.fault = always(REFUSED)
    with pytest.raises(ConfigError, match=r"refuses every request \(400 the text is too long\); check [^\n]*$"):
        judged(endpoint, tmp_path)
    assert endpoint.calls < len(TEXTS)


def test_many_samples_are_asked_about_in_batches_as_if_there_were_one(endpoint: Endpoint, tmp_path: Path) -> None:
    """Of one budget: a text that comes again is not counted again, and a batch of refused texts is no fault."""
    texts = [*TEXTS[:20], *TEXTS[:20], *TEXTS[20:30]]
    rows = samples(texts)
    parts = Batches(50, lambda: iter([rows[:20], rows[20:40], rows[40:]]))
    endpoint.fault = lambda call, question: REFUSED if any(f"\n{text}\n" in question for text in TEXTS[20:30]) else None
    whole = judged(endpoint, tmp_path / "whole", texts)
    found = list(score_batches(Judge(configured(endpoint)), parts, Scoring(Path(), tmp_path / "parts")))
    assert [value for scores in found for value in scores.values] == whole.values
    assert sum((Counter(scores.counts) for scores in found), Counter()) == Counter(whole.counts)

    endpoint.fault = lambda call, question: None
    with pytest.raises(BudgetError, match=r"max_calls = 25 are used, .*; 25 of 30 answers are kept"):
        list(score_batches(Judge(configured(endpoint, max_calls=25)), parts, Scoring(Path(), tmp_path / "parts")))


def test_what_is_said_of_many_samples_is_said_once_and_of_all(
    endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 40 texts in four batches one each has no score, and of the last three one each is refused."""
    rows = samples(TEXTS[:40])
    parts = Batches(40, lambda: (rows[at : at + 10] for at in (0, 10, 20, 30)))
    endpoint.answer = lambda question: f"None: {question.split()[-1]}" if "3\n" in question else "Score: 4"
    endpoint.fault = lambda call, question: REFUSED if "7\n" in question and "r 7\n" not in question else None
    found = list(score_batches(Judge(configured(endpoint)), parts, Scoring(Path(), tmp_path)))
    assert [scores.counts["unparsable"] for scores in found] == [1, 1, 1, 1]
    assert [value for scores in found for value in scores.values].count(None) == 7
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert told[0].startswith("judge: 4 of 37 answers hold no score from 1 to 10 and count as none; the first is 'None")
    assert told[1].startswith("judge: 3 texts were refused and have no score, the first with 400 ")


def test_while_batches_are_to_come_numbers_are_bounds(endpoint: Endpoint, tmp_path: Path) -> None:
    """A text of a later batch may be one that was asked about, or may have been answered in an earlier run."""
    rows = samples([*TEXTS[:20], *TEXTS[:20]])
    parts = Batches(40, lambda: iter([rows[:20], rows[20:]]))
    with pytest.raises(
        BudgetError,
        match=r"and up to \d+ texts are not judged; .*; at least 5 of up to 40 answers are kept, and are not asked for",
    ):
        list(score_batches(Judge(configured(endpoint, max_calls=5)), parts, Scoring(Path(), tmp_path)))


# what goes wrong


def test_an_endpoint_that_fails_a_tenth_of_its_calls_changes_no_score(endpoint: Endpoint, tmp_path: Path) -> None:
    undisturbed = judged(endpoint, tmp_path / "a", concurrency=4)
    with serving(Endpoint(fault=a_tenth)) as flaky:
        found = judged(flaky, tmp_path / "b", concurrency=4, timeout=3.0)

    assert found.values == undisturbed.values
    assert set(flaky.answered.values()) == {1}
    assert flaky.calls > len(TEXTS)


SCRIPT = """
import json, sys
from pathlib import Path
from alignment.config import build_config
from alignment.rewards.judge import Judge
from alignment.rewards.protocol import Scoring

given = json.loads(sys.argv[1])
config = build_config({"reward": {"kind": "judge", "judge": given["judge"]}})
found = Judge(config).score(given["samples"], Scoring(Path(), Path(given["kept"])))
print(json.dumps(list(found.values)))
"""


def in_a_process(endpoint: Endpoint, kept: Path) -> subprocess.Popen[str]:
    judge = {"url": endpoint.url, "model": "grader", "timeout": 3.0, "concurrency": 4}
    given = {"judge": judge, "samples": samples(TEXTS), "kept": str(kept)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(given)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_run_that_is_killed_and_started_again_pays_for_nothing_twice(endpoint: Endpoint, tmp_path: Path) -> None:
    undisturbed = judged(endpoint, tmp_path / "undisturbed")
    kept = tmp_path / "kept"
    with serving(Endpoint(fault=a_tenth, hold_after=25)) as flaky:
        process = in_a_process(flaky, kept)
        until(lambda: len(list(kept.rglob("*.json"))) == 25)  # others are under way and unanswered
        process.send_signal(signal.SIGKILL)
        process.communicate()

        flaky.hold_after = None
        flaky.released.set()
        out, _ = in_a_process(flaky, kept).communicate(timeout=120)

        assert json.loads(out) == undisturbed.values
        assert len(flaky.answered) == len(TEXTS)
        assert set(flaky.answered.values()) == {1}


def test_a_run_that_is_stopped_keeps_what_was_under_way(endpoint: Endpoint, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 10:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        judged(endpoint, tmp_path, [f"text {number}" for number in range(2_000)], progress=stop)
    assert len(list(tmp_path.rglob("*.json"))) == endpoint.answered.total() < 2_000


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (SERVER_ERROR, r"answers 500 \(the engine died\), 3 times; check reward.judge.url"),
        (BUSY, r"answers 429 \(slow down\), 3 times"),
        (PAGE, r"answers with what is no JSON \(<html><body>Gateway</body></html>\), 3 times"),
        (SLOW, r"gave no answer in 1 s, 3 times"),
        (CUT, r"could not be reached \([^)]+\), 3 times"),
        (
            (200, {}, '{"error": "no model is loaded"}'),
            r"answers without a choice \(\{\"error\": \"no model is loaded\"\}\)",
        ),
    ],
)
def test_an_endpoint_that_fails_for_good_ends_the_run_with_the_way_out(
    endpoint: Endpoint, tmp_path: Path, fault: Fault, message: str
) -> None:
    last = tuple(f"\n{text}\n" for text in TEXTS[20:])
    endpoint.fault = lambda call, question: fault if any(text in question for text in last) else None
    with pytest.raises(EndpointError, match=rf"^judge at http://127[^\n]*{message}[^\n]*$") as raised:
        judged(endpoint, tmp_path, retries=2, timeout=1.0 if fault is SLOW else 10.0, concurrency=2)
    assert "; 20 of 60 answers are kept, and are not asked for again" in str(raised.value)
    assert raised.value.transient
    assert raised.value.exit_code == 1

    endpoint.fault = lambda call, question: None
    judged(endpoint, tmp_path)
    assert set(endpoint.answered.values()) == {1}


def test_where_nobody_listens_the_run_ends(tmp_path: Path) -> None:
    with serving(Endpoint()) as gone:
        pass
    with pytest.raises(EndpointError, match=r"could not be reached \([^)]+\), 2 times; check reward\.judge\.url"):
        judged(gone, tmp_path, retries=1)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ((401, {}, '{"error": {"message": "bad key {key}"}}'), ConfigError, "does not take the key in OPENAI_API_KEY"),
        ((403, {}, "{}"), ConfigError, r"does not take the key in OPENAI_API_KEY \(403 .*set the environment variable"),
        (
            (404, {}, '{"error": {"message": "no such model"}}'),
            ConfigError,
            r"answers 404 \(no such model\); check reward\.judge\.model grader and reward\.judge\.url",
        ),
        (
            (429, {}, '{"error": {"message": "pay first", "code": "insufficient_quota"}}'),
            EndpointError,
            r"the account's quota is used up \(pay first\)",
        ),
    ],
)
def test_what_no_further_try_can_change_is_tried_once(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.fault = always(fault)
    with pytest.raises(error, match=message) as raised:
        judged(endpoint, tmp_path, concurrency=1)
    assert endpoint.calls == 1
    assert "\n" not in str(raised.value)
    assert KEY not in str(raised.value)
    assert not getattr(raised.value, "transient", True)


def test_a_wrong_address_is_no_model(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"answers 404 .*reward\.judge\.url, which mostly ends in /v1"):
        judged(endpoint, tmp_path, url=endpoint.url.removesuffix("/v1"))


# what it may cost


def test_calls_run_out_and_a_larger_budget_goes_on(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError,
        match=r"^judge: reward\.judge\.max_calls = 25 are used, and \d+ texts are not judged; raise it, or ask for "
        r"fewer samples; 25 of 60 answers are kept, and are not asked for again$",
    ) as raised:
        judged(endpoint, tmp_path, max_calls=25)
    assert raised.value.exit_code == 2
    assert endpoint.calls == 25
    with pytest.raises(BudgetError):  # what was paid for before counts
        judged(endpoint, tmp_path, max_calls=25)
    assert endpoint.calls == 25

    assert judged(endpoint, tmp_path, max_calls=60).values == expected(endpoint)
    assert set(endpoint.answered.values()) == {1}


def test_calls_that_fail_count(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.fault = always(SERVER_ERROR)
    with pytest.raises(BudgetError, match="max_calls = 5 are used"):
        judged(endpoint, tmp_path, max_calls=5, concurrency=1)
    assert endpoint.calls == 5


def test_with_a_budget_of_calls_a_stage_is_not_tried_again_by_itself(endpoint: Endpoint, tmp_path: Path) -> None:
    """Another try would begin its count anew, without the calls that failed."""
    endpoint.fault = always(SERVER_ERROR)
    with pytest.raises(EndpointError, match="2 times") as raised:
        judged(endpoint, tmp_path, TEXTS[:1], max_calls=5, retries=1)
    assert not is_transient(raised.value)
    with pytest.raises(EndpointError, match="2 times") as raised:
        judged(endpoint, tmp_path, TEXTS[:1], retries=1)
    assert is_transient(raised.value)


def test_tokens_run_out_by_the_endpoint_s_own_count(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"max_tokens_total = 95 are used, and 50 texts are not judged"):
        judged(endpoint, tmp_path, max_tokens_total=95, concurrency=1)  # 10 a call
    assert endpoint.calls == 10
    judged(endpoint, tmp_path, max_tokens_total=600)
    assert endpoint.calls == 60


def test_an_endpoint_that_counts_no_tokens_cannot_keep_a_budget_of_them(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.usage = None
    with pytest.raises(ConfigError, match=r"set it to 0, and reward\.judge\.max_calls instead"):
        judged(endpoint, tmp_path, max_tokens_total=95)
    endpoint.usage = {"prompt_tokens": 1}
    assert judged(endpoint, tmp_path).values == expected(endpoint)


def test_the_stage_counts_what_it_took(endpoint: Endpoint, tmp_path: Path) -> None:
    judged(endpoint, tmp_path, TEXTS[:10])
    endpoint.answer = lambda question: "no"
    assert judged(endpoint, tmp_path).counts == {"calls": 50, "kept_answers": 10, "tokens": 600, "unparsable": 50}


# the key


def test_the_key_is_sent_and_stands_nowhere(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_API_KEY", KEY)
    judged(endpoint, tmp_path, api_key_env="MY_API_KEY")
    endpoint.fault = always((500, {}, "the header was {key}"))
    with pytest.raises(EndpointError) as raised:
        judged(endpoint, tmp_path, ["another"], api_key_env="MY_API_KEY", retries=0)

    assert endpoint.keys == {f"Bearer {KEY}"}
    assert "answers 500 (the header was Bearer ***)" in str(raised.value)
    assert KEY not in caplog.text
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY in file.read_text(encoding="utf-8")]


def test_an_endpoint_without_keys_needs_none(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judged(endpoint, tmp_path, TEXTS[:2])
    endpoint.fault = always((401, {}, "{}"))
    with pytest.raises(ConfigError, match="wants a key"):
        judged(endpoint, tmp_path, ["another"])
