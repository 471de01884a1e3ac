"""The reward `judge`: the number that a model behind an OpenAI-compatible endpoint gives to each completion."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config import AlignConfig
from alignment.rewards.judge_asking import ask
from alignment.rewards.judge_rubric import fill, read_rubric, read_score
from alignment.rewards.protocol import Scores, Scoring, reward

logger = logging.getLogger(__name__)


@reward("judge")
class Judge:
    """Asks one question a sample, as `reward.judge.rubric` has it; the same question is asked once."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.judge` says whom to ask, what, and how much."""
        self.config = config.reward.judge

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """The judge's number for each sample, None where its answer holds none on the scale, or the text was refused.

        Answers are kept in `work.kept` as they arrive, those without a number too, and none is paid for twice.
        Raises ConfigError, EndpointError and BudgetError as `ask` does.
        """
        rubric = read_rubric(self.config)
        questions = [fill(rubric, sample, self.config, completion=sample["completion"]) for sample in samples]
        asked = ask(questions, self.config, work.kept, work.progress)
        values = [None if answer is None else read_score(answer.text, self.config) for answer in asked.answers]
        unparsable = [answer for answer, value in zip(asked.answers, values, strict=True) if answer and value is None]
        if unparsable:
            cut = sum(answer.finish == "length" for answer in unparsable)
            logger.warning(
                "judge: %d of %d answers hold no score from %g to %g and count as none%s; the first is %r",
                len(unparsable),
                len(values),
                self.config.scale_min,
                self.config.scale_max,
                f", {cut} of them were cut at reward.judge.max_answer_tokens" if cut else "",
                unparsable[0].text[-120:],
            )
        return Scores(values, counts=asked.counts | {"unparsable": len(unparsable)})
