"""The pairs of `judged`: a judge sees two samples of a prompt in both orders, and what it prefers twice is chosen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from alignment.config import JudgeConfig
from alignment.data.pairs.samples import make_pair
from alignment.data.pairs.source import pair_source
from alignment.errors import PairsError
from alignment.rewards.judge_answers import Answer
from alignment.rewards.judge_asking import ask
from alignment.rewards.judge_rubric import fill, read_pair_rubric, read_verdict
from alignment.rows import SAMPLES, Pair, Sample
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import with_prompts

Row = Mapping[str, Any]
Outcome = Literal["first", "second", "ties", "disagreed", "unjudged"]


@pair_source("judged", scored=False)
def of_judged_samples(job: Job) -> tuple[list[Pair], Counts]:
    """Pairs of a prompt's samples 0 and 1, 2 and 3, and so on; each costs two answers, and needs no scores.

    No pair gives what the judge finds equal (`ties`), or prefers by the order in which it is shown (`disagreed`), or
    what an answer is missing for or says nothing of (`unjudged`). Two samples of one text tie without being asked
    about, and of an odd number of samples the last is left over. Raises PairsError where no
    pair is left, and what `ask` raises.
    """
    config = job.config.reward.judge
    rows = with_prompts(job, SAMPLES.read(job.inputs["samples"]))
    candidates = _candidates(rows)
    differing = [(one, other) for one, other in candidates if one["completion"] != other["completion"]]
    rubric = read_pair_rubric(config)
    questions = [
        _question(rubric, config, *shown) for one, other in differing for shown in ((one, other), (other, one))
    ]
    asked = ask(questions, config, job.kept, job.progress)
    outcomes = [outcome(*asked.answers[at : at + 2]) for at in range(0, len(questions), 2)]
    built = [
        _pair(one, other) if found == "first" else _pair(other, one)
        for (one, other), found in zip(differing, outcomes, strict=True)
        if found in ("first", "second")
    ]
    found = Counter(outcomes)
    counts = {name: found[name] for name in ("ties", "disagreed", "unjudged")}
    counts["ties"] += len(candidates) - len(differing)
    if not built:
        raise PairsError(
            f"pairs: the judge preferred none of {len(candidates)} candidates in both orders ({_listed(counts)}); draw "
            "more varied samples, or take another reward.judge.model or reward.judge.pair_rubric"
        )
    left_over = len(rows) - 2 * len(candidates)
    return built, {"candidates": len(candidates), "samples_left_over": left_over} | counts | asked.counts


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


def _candidates(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    return [pair for found in by_prompt.values() for pair in zip(found[::2], found[1::2], strict=False)]


def _question(rubric: str, config: JudgeConfig, first: Row, second: Row) -> str:
    return fill(rubric, first, config, first=first["completion"], second=second["completion"])


def _pair(chosen: Row, rejected: Row) -> Pair:
    """A pair without scores: a preference is no number."""
    better, worse = cast(Sample, {**chosen, "reward": 1.0}), cast(Sample, {**rejected, "reward": 0.0})
    made = make_pair(better, worse, chosen["prompt"], "judged")
    return {**made, "chosen_score": None, "rejected_score": None, "gap": None}


def _listed(counts: Counts) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
