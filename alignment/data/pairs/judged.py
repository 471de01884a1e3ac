"""The pairs of `judged`: a judge sees two samples of a prompt in both orders, and what it prefers twice is chosen."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa

from alignment.config import JudgeConfig
from alignment.data.pairs.source import pair_source
from alignment.data.pairs.whole import READ, pairs_of, whole_prompts
from alignment.errors import PairsError
from alignment.rewards.judge_answers import Answer
from alignment.rewards.judge_asking import Asker
from alignment.rewards.judge_rubric import fill, read_pair_rubric, read_verdict
from alignment.rows import SAMPLES
from alignment.stages.job import Counts, Job, share
from alignment.stages.scoring import PromptsInOrder

Row = Mapping[str, Any]
Outcome = Literal["first", "second", "ties", "disagreed", "unjudged"]


@pair_source("judged", scored=False)
def of_judged_samples(job: Job) -> tuple[Iterator[pa.Table], Counts]:
    """Pairs of a prompt's samples 0 and 1, 2 and 3, and so on; each costs two answers, and needs no scores.

    No pair gives what the judge finds equal (`ties`), or prefers by the order in which it is shown (`disagreed`), or
    what an answer is missing for or says nothing of (`unjudged`). Two samples of one text tie without being asked
    about, and of an odd number of samples the last is left over. Raises PairsError where no
    pair is left, and what `Asker.ask` raises.
    """
    counts: Counts = {}
    return _built(job, counts), counts


def _built(job: Job, counts: Counts) -> Iterator[pa.Table]:
    config, folder = job.config.reward.judge, job.inputs["samples"]
    rubric, joined = read_pair_rubric(config), PromptsInOrder(job)
    samples, done, built = SAMPLES.count(folder), 0, 0
    found = Counter(candidates=0, samples_left_over=0, ties=0, disagreed=0, unjudged=0)
    with Asker(config, job.kept) as asker:
        for table, prompts in whole_prompts(SAMPLES.batches(folder, [*READ, "completion"])):
            rows = joined.joined(table.select(["prompt_id", "prompt", "completion"]))
            candidates = [pair for prompt in prompts for pair in zip(prompt[::2], prompt[1::2], strict=False)]
            differing = [
                (one, other) for one, other in candidates if rows[one]["completion"] != rows[other]["completion"]
            ]
            questions = [
                _question(rubric, config, rows[first], rows[second])
                for one, other in differing
                for first, second in ((one, other), (other, one))
            ]
            progress = share(job.progress, done, len(table), samples)
            done += len(table)
            asked = asker.ask(questions, progress, later=samples - done)
            outcomes = [outcome(*asked.answers[at : at + 2]) for at in range(0, len(questions), 2)]
            preferred = [
                pair if found == "first" else pair[::-1]
                for pair, found in zip(differing, outcomes, strict=True)
                if found in ("first", "second")
            ]
            built += len(preferred)
            yield from pairs_of(table, [chosen for chosen, _ in preferred], [other for _, other in preferred], "judged")
            found.update(each for each in outcomes if each not in ("first", "second"))
            found.update(ties=len(candidates) - len(differing), candidates=len(candidates))
            found.update(samples_left_over=len(table) - 2 * len(candidates), **asked.counts)
    if not built:
        told = ", ".join(f"{found[name]} {name}" for name in ("ties", "disagreed", "unjudged"))
        raise PairsError(
            f"pairs: the judge preferred none of {found['candidates']} candidates in both orders ({told}); draw "
            "more varied samples, or take another reward.judge.model or reward.judge.pair_rubric"
        )
    counts |= found


def outcome(as_shown: Answer | None, swapped: Answer | None) -> Outcome:
    """Which of two samples is preferred, by the answers to them as they are and in the other order."""
    verdicts = [answer and read_verdict(answer.text) for answer in (as_shown, swapped)]
    if None in verdicts:
        return "unjudged"
    if "tie" in verdicts:
        return "ties"
    if verdicts[0] == verdicts[1]:  # the place was preferred, not the text
        return "disagreed"
    return "first" if verdicts[0] == "first" else "second"


def _question(rubric: str, config: JudgeConfig, first: Row, second: Row) -> str:
    return fill(rubric, first, config, first=first["completion"], second=second["completion"])
