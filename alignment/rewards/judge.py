"""The reward `judge`: the number that a model behind an OpenAI-compatible endpoint gives to each completion."""

import logging
from collections import Counter
from collections.abc import Generator, Sequence

from alignment.config import AlignConfig, JudgeConfig
from alignment.rewards.judge_answers import Answer
from alignment.rewards.judge_asking import Asker
from alignment.rewards.judge_rubric import fill, read_rubric, read_score
from alignment.rewards.protocol import Batches, InBatches, Scores, Scoring, reward
from alignment.stages.job import share

logger = logging.getLogger(__name__)


@reward("judge")
class Judge(InBatches):
    """Asks one question a sample, as `reward.judge.rubric` has it; the same question is asked once."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.judge` says whom to ask, what, and how much."""
        self.config = config.reward.judge

    def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
        """The judge's number for each sample, None where its answer holds none on the scale, or the text was refused.

        Answers are kept in `work.kept` as they arrive, those without a number too, and none is paid for twice.
        Raises ConfigError, EndpointError and BudgetError as `ask` does.
        """
        rubric, done, told = read_rubric(self.config), 0, _Unparsable()
        with Asker(self.config, work.kept) as asker:
            try:
                for samples in batches:
                    questions = [fill(rubric, each, self.config, completion=each["completion"]) for each in samples]
                    progress = work.progress and share(work.progress, done, len(samples), batches.samples)
                    done += len(samples)
                    asked = asker.ask(questions, progress, later=batches.samples - done)
                    values = [None if each is None else read_score(each.text, self.config) for each in asked.answers]
                    yield Scores(values, counts=asked.counts | {"unparsable": told.add(asked.answers, values)})
            finally:
                told.warn(self.config)


class _Unparsable:
    """The answers that hold no score, which are told of once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: Answer | None = None

    def add(self, answers: Sequence[Answer | None], values: Sequence[float | None]) -> int:
        """How many there are among these."""
        found = [answer for answer, value in zip(answers, values, strict=True) if answer and value is None]
        cut = sum(answer.finish == "length" for answer in found)
        self.counts.update(answers=len(answers) - answers.count(None), unparsable=len(found), cut=cut)
        self.first = self.first or next(iter(found), None)
        return len(found)

    def warn(self, config: JudgeConfig) -> None:
        """Say how many there were in all."""
        if self.first:
            cut = self.counts["cut"]
            logger.warning(
                "judge: %d of %d answers hold no score from %g to %g and count as none%s; the first is %r",
                self.counts["unparsable"],
                self.counts["answers"],
                config.scale_min,
                config.scale_max,
                f", {cut} of them were cut at reward.judge.max_answer_tokens" if cut else "",
                self.first.text[-120:],
            )
