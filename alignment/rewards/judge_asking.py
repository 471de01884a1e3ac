"""Asks a judge many questions at a time, within a budget; what it answers is kept as it arrives."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config import JudgeConfig
from alignment.errors import BudgetError, ConfigError, PlumblineError
from alignment.rewards.judge_answers import Answer, KeptAnswers
from alignment.rewards.judge_client import Endpoint, Refused
from alignment.rewards.judge_rubric import request

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # seconds between two looks at whether the work is to stop
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


def ask(
    questions: Sequence[str], config: JudgeConfig, kept: Path, progress: Callable[[int, int], None] | None = None
) -> Asked:
    """Ask each distinct question once, unless `kept` has its answer.

    `progress` takes (done, total), and may raise to stop the work: requests under way then have a few seconds left.
    Raises BudgetError where `max_calls` or `max_tokens_total` runs out, EndpointError and ConfigError as the client
    does, and ConfigError where every request is refused. Whatever was answered is kept.
    """
    asking = _Asking(questions, config, KeptAnswers(kept))
    if asking.missing:
        with ThreadPoolExecutor(1, "judge") as thread:  # a loop of its own: a notebook's thread has one already
            working = thread.submit(asyncio.run, asking.work())
            try:
                while not wait([working], LOOK_EVERY).done:
                    if progress:
                        progress(asking.done, asking.total)
            except BaseException:
                asking.unwanted = True
                raise
            try:
                working.result()
            except PlumblineError as error:
                raise asking.told(error) from error.__cause__
    if progress:
        progress(asking.total, asking.total)
    return asking.asked(questions)


class _Asking:
    """One round of questions: what is answered, what is missing, and what was spent."""

    def __init__(self, questions: Sequence[str], config: JudgeConfig, kept: KeptAnswers) -> None:
        self.config, self.kept = config, kept
        self.unwanted = False
        requests = {question: request(config, question) for question in dict.fromkeys(questions)}
        found = {question: kept.find(body) for question, body in requests.items()}
        self.answers: dict[str, Answer | None] = {text: answer for text, answer in found.items() if answer}
        self.missing: Mapping[str, dict[str, Any]] = {
            text: body for text, body in requests.items() if text not in self.answers
        }
        self.total, self.found = len(requests), len(self.answers)
        self.calls = 0
        self.tokens = sum(answer.tokens for answer in found.values() if answer)
        self.refusals: list[str] = []

    @property
    def done(self) -> int:
        return len(self.answers)

    def asked(self, questions: Sequence[str]) -> Asked:
        if self.refusals:
            logger.warning(
                "judge: %d texts were refused and have no score, the first with %s",
                len(self.refusals),
                self.refusals[0],
            )
        return Asked([self.answers[text] for text in questions], self.calls, self.found, self.tokens)

    def told(self, error: PlumblineError) -> PlumblineError:
        """The error with what is kept, which a person who has paid wants to know first."""
        count = self.done - len(self.refusals)
        if not count:
            return error
        fuller = type(error)(f"{error}; {count:,} of {self.total:,} answers are kept, and are not asked for again")
        fuller.transient = error.transient
        return fuller

    async def work(self) -> None:
        """Have workers take one question after the other, until all are answered, one of them fails, or it is over."""
        self.over = asyncio.Event()
        waiting = iter(self.missing.items())
        async with Endpoint(self.config) as endpoint:
            count = min(self.config.concurrency, len(self.missing))
            workers = [asyncio.create_task(self._worker(endpoint, waiting)) for _ in range(count)]
            pending = set(workers)
            while pending and not self.over.is_set():
                done, pending = await asyncio.wait(pending, timeout=LOOK_EVERY)
                if self.unwanted or any(task.exception() for task in done):
                    self.over.set()
            if pending:
                _, late = await asyncio.wait(pending, timeout=GRACE)
                for task in late:
                    task.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        self._require_some_answers()

    async def _worker(self, endpoint: Endpoint, waiting: Iterator[tuple[str, dict[str, Any]]]) -> None:
        for question, body in waiting:
            answer = self.kept.find(body)  # another run may have asked meanwhile
            if answer is None:
                got = await endpoint.answer(body, may_call=self._may_call, pause=self._pause)
                if got is None:
                    return
                if isinstance(got, Refused):
                    self.answers[question] = None
                    self.refusals.append(got.reason)
                    if len(self.refusals) >= REFUSED_FIRST:
                        self._require_some_answers()
                    continue
                answer = got
                self.kept.keep(body, answer)
            self.answers[question] = answer
            self.tokens += answer.tokens
            if self.config.max_tokens_total and not answer.tokens:
                raise ConfigError(
                    f"judge at {self.config.url}: does not say how many tokens an answer took, so "
                    "reward.judge.max_tokens_total cannot be kept; set it to 0, and reward.judge.max_calls instead"
                )

    def _may_call(self) -> bool:
        """Count one more call. Raises BudgetError where there is none left; false where the work is over."""
        if self.over.is_set():
            return False
        calls, tokens = self.config.max_calls, self.config.max_tokens_total
        if calls and self.found + self.calls >= calls:
            raise BudgetError(
                f"judge: reward.judge.max_calls = {calls:,} are used, and {self.total - self.done:,} texts are not "
                "judged; raise it, or ask for fewer samples"
            )
        if tokens and self.tokens >= tokens:
            raise BudgetError(
                f"judge: reward.judge.max_tokens_total = {tokens:,} are used, and {self.total - self.done:,} texts are "
                "not judged; raise it, or ask for fewer samples"
            )
        self.calls += 1
        return True

    async def _pause(self, seconds: float) -> bool:
        """Wait, unless the work comes to its end; whether to go on."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def _require_some_answers(self) -> None:
        if self.refusals and len(self.refusals) == self.done:
            raise ConfigError(
                f"judge at {self.config.url}: refuses every request ({self.refusals[0]}); check reward.judge.model and "
                "reward.judge.extra, by which a field of the request can be left out or added"
            )
