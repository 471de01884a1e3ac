"""Asks a judge many questions at a time, within a budget; what it answers is kept as it arrives."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from alignment.config import JudgeConfig
from alignment.endpoints import ask_each, in_a_loop, pause
from alignment.errors import BudgetError, ConfigError, EndpointError, PlumblineError
from alignment.rewards.judge_answers import Answer, KeptAnswers
from alignment.rewards.judge_client import Endpoint, Refused
from alignment.rewards.judge_rubric import request

logger = logging.getLogger(__name__)

GRACE = 10.0  # seconds for which a request under way may still be answered then, since it may have to be paid for
REFUSED_FIRST = 5  # refusals before any answer, after which the request's settings are at fault and no text is


@dataclass(frozen=True)
class Asked:
    """The answers in the questions' order, None where the endpoint refused the text; and what that took.

    `calls` were made now, those that failed among them; `kept` answers were there already. `tokens` are those of all
    answers, as the endpoint counts them.
    """

    answers: list[Answer | None]
    calls: int
    kept: int
    tokens: int

    @property
    def counts(self) -> dict[str, int]:
        """What it took, and how many distinct questions were refused, for the stage's counts."""
        return {"calls": self.calls, "kept_answers": self.kept, "tokens": self.tokens}


class Asker:
    """Asks a judge batch after batch, within one budget: what was asked in an earlier one is not counted again.

    At its end, as a context manager, it says what was refused.
    """

    def __init__(self, config: JudgeConfig, kept: Path) -> None:
        """A question is not asked where `kept` has its answer."""
        self.config, self.kept = config, KeptAnswers(kept)
        self.calls = self.found = self.tokens = 0
        self.answered: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.first_refusal = ""

    def __enter__(self) -> Self:
        """Nothing is asked yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Warn of what was refused, once for all batches."""
        if self.refused:
            logger.warning(
                "judge: %d texts were refused and have no score, the first with %s",
                len(self.refused),
                self.first_refusal,
            )

    def ask(
        self, questions: Sequence[str], progress: Callable[[int, int], None] | None = None, later: int = 0
    ) -> Asked:
        """Ask each distinct question once; at most so many others are still to come `later`.

        `progress` takes (done, total), and may raise to stop the work: requests under way then have a few seconds left.
        Raises BudgetError where `max_calls` or `max_tokens_total` runs out, EndpointError and ConfigError as the client
        does, and ConfigError where every request is refused. Whatever was answered is kept.
        """
        before = self.calls, self.found, self.tokens
        asking = _Asking(questions, self, later)
        if asking.missing:
            try:
                in_a_loop(asking.work, lambda: progress(asking.done, asking.total) if progress else None)
            except (BudgetError, ConfigError, EndpointError) as error:
                raise asking.told(error) from error.__cause__
        if progress:
            progress(asking.total, asking.total)
        asking.remember()
        took = [now - then for now, then in zip((self.calls, self.found, self.tokens), before, strict=True)]
        return Asked([asking.answers[text] for text in questions], *took)


class _Asking:
    """One round of questions: what is answered, what is missing, and what was spent on it and on those before."""

    def __init__(self, questions: Sequence[str], spent: Asker, later: int) -> None:
        self.config, self.kept, self.spent, self.later = spent.config, spent.kept, spent, later
        requests = {question: request(self.config, question) for question in dict.fromkeys(questions)}
        refused = {question for question in requests if _name(question) in spent.refused}
        found = {question: self.kept.find(body) for question, body in requests.items() if question not in refused}
        self.answers: dict[str, Answer | None] = {text: answer for text, answer in found.items() if answer}
        for question, answer in self.answers.items():
            if answer and _name(question) not in spent.answered:
                spent.found += 1
                spent.tokens += answer.tokens
        self.answers |= dict.fromkeys(refused)
        self.missing: Mapping[str, dict[str, Any]] = {
            text: body for text, body in requests.items() if text not in self.answers
        }
        self.total = len(requests)
        self.refusals: list[str] = []

    @property
    def done(self) -> int:
        return len(self.answers)

    @property
    def left(self) -> int:
        """How many questions are not answered; those of later rounds among them are the most that there can be."""
        return self.total - self.done + self.later

    @property
    def up_to(self) -> str:
        """What stands before numbers that `later` is in."""
        return "up to " if self.later else ""

    def remember(self) -> None:
        """Keep which questions were answered and which were refused."""
        if self.refusals:
            self.spent.first_refusal = self.spent.first_refusal or self.refusals[0]
        for question, answer in self.answers.items():
            (self.spent.refused if answer is None else self.spent.answered).add(_name(question))

    def told(self, error: PlumblineError) -> PlumblineError:
        """The error with what is kept, which a person who has paid wants to know first."""
        count = len(self.spent.answered | {_name(text) for text, answer in self.answers.items() if answer})
        if not count:
            return error
        total = count + len(self.spent.refused | {_name(text) for text, answer in self.answers.items() if not answer})
        kept = f"{'at least ' if self.later else ''}{count:,} of {self.up_to}{total + self.left:,} answers"
        fuller = type(error)(f"{error}; {kept} are kept, and are not asked for again")
        fuller.transient = error.transient
        return fuller

    async def work(self, unwanted: Callable[[], bool]) -> None:
        """Ask all that is missing, until it is answered, something fails, or it is unwanted."""
        async with Endpoint(self.config) as endpoint:
            await ask_each(
                list(self.missing.items()),
                lambda item, over: self._ask(endpoint, *item, over),
                concurrency=self.config.concurrency,
                unwanted=unwanted,
                grace=GRACE,
            )
        self._require_some_answers()

    async def _ask(self, endpoint: Endpoint, question: str, body: dict[str, Any], over: asyncio.Event) -> None:
        answer = self.kept.find(body)  # another run may have asked meanwhile
        if answer is None:
            got = await endpoint.answer(
                body, may_call=lambda: self._may_call(over), pause=lambda seconds: pause(seconds, over)
            )
            if got is None:
                return
            if isinstance(got, Refused):
                self.answers[question] = None
                self.refusals.append(got.reason)
                if len(self.refusals) >= REFUSED_FIRST:
                    self._require_some_answers()
                return
            answer = got
            self.kept.keep(body, answer)
        self.answers[question] = answer
        self.spent.tokens += answer.tokens
        if self.config.max_tokens_total and not answer.tokens:
            raise ConfigError(
                f"judge at {self.config.url}: does not say how many tokens an answer took, so "
                "reward.judge.max_tokens_total cannot be kept; set it to 0, and reward.judge.max_calls instead"
            )

    def _may_call(self, over: asyncio.Event) -> bool:
        """Count one more call. Raises BudgetError where there is none left; false where the work is over."""
        if over.is_set():
            return False
        calls, tokens = self.config.max_calls, self.config.max_tokens_total
        if calls and self.spent.found + self.spent.calls >= calls:
            raise BudgetError(
                f"judge: reward.judge.max_calls = {calls:,} are used, and {self.up_to}{self.left:,} texts are "
                "not judged; raise it, or ask for fewer samples"
            )
        if tokens and self.spent.tokens >= tokens:
            raise BudgetError(
                f"judge: reward.judge.max_tokens_total = {tokens:,} are used, and {self.up_to}{self.left:,} "
                "texts are not judged; raise it, or ask for fewer samples"
            )
        self.spent.calls += 1
        return True

    def _require_some_answers(self) -> None:
        if self.refusals and not self.spent.answered and not any(self.answers.values()):
            raise ConfigError(
                f"judge at {self.config.url}: refuses every request ({self.refusals[0]}); check reward.judge.model and "
                "reward.judge.extra, by which a field of the request can be left out or added"
            )


def _name(question: str) -> bytes:
    return blake2b(question.encode(errors="backslashreplace"), digest_size=16).digest()
