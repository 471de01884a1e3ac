"""The reward `judge`: the number that a model behind an OpenAI-compatible endpoint gives to each completion."""

import logging
from collections.abc import Generator, Sequence

from alignment.config import AlignConfig
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
        rubric, asker, done = read_rubric(self.config), Asker(self.config, work.kept), 0
        for samples in batches:
            questions = [fill(rubric, sample, self.config, completion=sample["completion"]) for sample in samples]
            progress = work.progress and share(work.progress, done, len(samples), batches.samples)
            done += len(samples)
            asked = asker.ask(questions, progress, later=batches.samples - done)
            values = [None if answer is None else read_score(answer.text, self.config) for answer in asked.answers]
            yield Scores(values, counts=asked.counts | {"unparsable": self._unparsable(asked.answers, values)})

    def _unparsable(self, answers: Sequence[Answer | None], values: Sequence[float | None]) -> int:
        """How many answers hold no score, which is told."""
        found = [answer for answer, value in zip(answers, values, strict=True) if answer and value is None]
        if found:
            cut = sum(answer.finish == "length" for answer in found)
            logger.warning(
                "judge: %d of %d answers hold no score from %g to %g and count as none%s; the first is %r",
                len(found),
                len(values),
                self.config.scale_min,
                self.config.scale_max,
                f", {cut} of them were cut at reward.judge.max_answer_tokens" if cut else "",
                found[0].text[-120:],
            )
        return len(found)
