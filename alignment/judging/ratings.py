"""What people said of an evaluation's samples: which model they prefer, and whether the scores agree with them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any, Literal

from alignment.judging.report import Record

Preferred = Literal["aligned", "base", "equal"]
_POINTS: dict[Preferred, float] = {"aligned": 1.0, "base": 0.0, "equal": 0.5}
GAIN = "_gain"
"""How the names of figures end that say which of two texts a score prefers."""


@dataclass(frozen=True)
class Rated:
    """A prompt with one text of each model, its figures, and what each person preferred, by their names."""

    prompt: str
    messages: str
    base: str
    aligned: str
    figures: Mapping[str, float]
    votes: Mapping[str, Preferred]

    @property
    def share(self) -> float:
        """The mean of the votes: 1 where all prefer the aligned model's text, one half for equal. Needs votes."""
        return fmean(_POINTS[vote] for vote in self.votes.values())

    @property
    def preferred(self) -> Preferred:
        """What most people prefer."""
        return "equal" if self.share == 0.5 else "aligned" if self.share > 0.5 else "base"


class Agreement(Record):
    """How often a score prefers the text that people prefer, of the prompts on which both prefer one."""

    prompts: int
    agreed: int
    rate: float | None
    rate_ci: tuple[float, float] | None


class Ratings(Record):
    """The ratings of one run. A prompt counts once, by the mean of its votes, whoever rated it and how many did.

    The win rate is the fraction of rated prompts on which people prefer the aligned model's text, equal ones counted
    half, with its Wilson interval; None where nothing is rated.
    """

    offered: int
    rated: int
    raters: tuple[str, ...]
    aligned: int
    base: int
    equal: int
    win_rate: float | None
    win_rate_ci: tuple[float, float] | None
    confidence: float
    agreement: dict[str, Agreement]
    """By the name of the score: `reward`, or `gold_<name>` of a second judge."""
    unreadable: int = 0
    """Answers that are none of those that the question offers."""


def wilson(successes: float, trials: int, confidence: float) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927): inside 0..1, and of use for few trials.

    `successes` may have halves, for ties. Raises ValueError without a trial.
    """
    if trials < 1:
        raise ValueError(f"wilson: {trials} trials, give one or more")
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def summarise(found: Sequence[Rated], *, unreadable: int = 0, confidence: float = 0.95) -> Ratings:
    """The figures of what was offered for rating, rated or not."""
    rated = [each for each in found if each.votes]
    counts = {name: sum(each.preferred == name for each in rated) for name in _POINTS}
    wins = counts["aligned"] + counts["equal"] / 2
    scores = sorted({name for each in found for name in each.figures if name.endswith(GAIN)})
    return Ratings(
        offered=len(found),
        rated=len(rated),
        raters=tuple(sorted({rater for each in rated for rater in each.votes})),
        **counts,
        win_rate=wins / len(rated) if rated else None,
        win_rate_ci=wilson(wins, len(rated), confidence) if rated else None,
        confidence=confidence,
        agreement={name.removesuffix(GAIN): _agreement(rated, name, confidence) for name in scores},
        unreadable=unreadable,
    )


def _agreement(rated: Sequence[Rated], score: str, confidence: float) -> Agreement:
    both = [
        (each.preferred == "aligned", each.figures[score] > 0)
        for each in rated
        if each.preferred != "equal" and each.figures.get(score, 0.0) != 0
    ]
    agreed = sum(people == scored for people, scored in both)
    return Agreement(
        prompts=len(both),
        agreed=agreed,
        rate=agreed / len(both) if both else None,
        rate_ci=wilson(agreed, len(both), confidence) if both else None,
    )


def as_pairs(found: Sequence[Rated]) -> Iterator[dict[str, Any]]:
    """Rated prompts as preference pairs in TRL's columns, those of equal texts left out.

    `margin` is the share of the votes for chosen less that for rejected, above 0 and at most 1. A chat's prompt is its
    messages, and each side one message.
    """
    for each in found:
        if not each.votes or each.preferred == "equal":
            continue
        chosen, rejected = (each.aligned, each.base) if each.preferred == "aligned" else (each.base, each.aligned)
        prompt: Any = json.loads(each.messages) if each.messages else each.prompt
        sides: list[Any] = [
            [{"role": "assistant", "content": side}] if each.messages else side for side in (chosen, rejected)
        ]
        yield {"prompt": prompt, "chosen": sides[0], "rejected": sides[1], "margin": abs(2 * each.share - 1)}
