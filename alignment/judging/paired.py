"""Two aligned models on the same prompts: paired statistics over prompts, and their samples side by side.

Both are given as what their runs recorded of every sample (`alignment.judging.evaluated`); B is told against A.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alignment.judging.evaluated import SIDES, Evaluated
from alignment.judging.formats import percent, plain, signed
from alignment.judging.metric import by_prompt
from alignment.judging.report import SampleRow
from alignment.judging.statistics import paired_bootstrap, wins

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
Written = Callable[[float], str]

OTHER_REWARDS = (
    "Their rewards are not the same, so no score of A is set against one of B: lengths, and what both write, compare."
)
CHUNK = 1 << 22  # how often prompts are drawn that are held in memory at once
FEW = 2  # prompts, below which there is no interval


@dataclass(frozen=True)
class Figure:
    """One figure of both models on the same prompts; `change` is B against A, with its interval where it has one."""

    name: str
    title: str
    a: float | None
    b: float | None
    change: float
    interval: Interval | None
    written: Written
    changed: Written
    neutral: float = 0.0
    """What the change is where both are the same."""

    @property
    def values(self) -> tuple[str, str]:
        """Both models' values as they are written; empty where the figure is of both together."""
        one, two = ("" if value is None else self.written(value) for value in (self.a, self.b))
        return one, two

    @property
    def text(self) -> str:
        """The change, with its interval where it has one, as in +0.31 (+0.22 to +0.40)."""
        value = self.changed(self.change)
        return value if self.interval is None else f"{value} ({' to '.join(map(self.changed, self.interval))})"

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out that both are the same."""
        return self.interval is not None and not self.interval[0] <= self.neutral <= self.interval[1]


@dataclass(frozen=True)
class Beside:
    """What both models wrote to the same prompt with the same random numbers; `gain` is B's reward less A's."""

    prompt_id: str
    index: int
    one: SampleRow
    two: SampleRow
    gain: float | None

    @property
    def id(self) -> str:
        """As `plumbline explain --sample` takes it."""
        return f"{self.prompt_id}-{self.index}"


@dataclass(frozen=True)
class Paired:
    """Two models compared on the prompts that both were judged on."""

    prompts: int
    confidence: float
    figures: tuple[Figure, ...]
    samples: tuple[Beside, ...]
    notes: tuple[str, ...]
    """What the figures rest on where that is not everything, and what was not compared and why."""
    same_reward: bool

    def gains(self, count: int) -> list[Beside]:
        """The samples on which B gains most over A, the most first."""
        return sorted((each for each in self.samples if (each.gain or 0) > 0), key=lambda each: -(each.gain or 0))[
            :count
        ]

    def losses(self, count: int) -> list[Beside]:
        """Those on which it loses most, the most first."""
        return sorted((each for each in self.samples if (each.gain or 0) < 0), key=lambda each: each.gain or 0)[:count]


def pair(
    one: Evaluated,
    two: Evaluated,
    *,
    same_reward: bool,
    same_base: bool,
    resamples: int,
    confidence: float,
    seed: int,
) -> Paired:
    """Compare the aligned sides of two records on the prompts that are in both.

    A prompt counts with the mean over its samples, once. Intervals are by bootstrap over prompts, so the two values of
    a prompt stay together. Log-probs under the base are set beside each other for one and the same base alone.
    """
    aligned = [each.side("aligned") for each in (one, two)]
    ids = [set(side["prompt_id"].to_pylist()) for side in aligned]
    shared = sorted(ids[0] & ids[1])
    columns = [_Means(side, shared) for side in aligned]

    def interval(differences: Array) -> Interval | None:
        return paired_bootstrap(differences, resamples, confidence, seed) if len(differences) >= FEW else None

    figures: list[Figure] = []
    if same_reward:
        figures += _rewards(columns[0].reward, columns[1].reward, interval)
    if same_base:
        figures += _likelihoods(
            columns, interval, lambda ratio, *sums: _bootstrap(ratio, sums, resamples, confidence, seed)
        )
    lengths = columns[0].tokens, columns[1].tokens
    if _there(*lengths).any():
        figures.append(
            _mean("length", "length, tokens", *lengths, interval, lambda v: plain(v, 1), lambda v: signed(v, 1))
        )
    notes = [f"{name}: {each.left_out}" for name, each in (("A", one), ("B", two)) if each.left_out]
    notes += [] if same_reward else [OTHER_REWARDS]
    only = len(ids[0] | ids[1]) - len(shared)
    if shared and only:
        notes.append(f"{only:,} prompts are in one of the records only, and are left out.")
    return Paired(
        len(shared), confidence, tuple(figures), tuple(_beside(one, two, same_reward)), tuple(notes), same_reward
    )


class _Means:
    """The mean of each shared prompt's samples by column: (prompts,) each, nan where a prompt has none."""

    def __init__(self, side: pa.Table, prompts: list[str]) -> None:
        """Of one model's samples."""
        self._ids = np.asarray(side["prompt_id"].to_pylist(), dtype=str)
        self._kept = np.isin(self._ids, prompts)
        self._prompts = np.asarray(prompts, dtype=str)
        self.reward, self.tokens = self._mean(_floats(side, "reward")), self._mean(_floats(side, "tokens"))
        own, base = _floats(side, "logprob"), _floats(side, "base_logprob")
        self.kl, self.surprise = self._mean(own - base), self._mean(-base)

    def _mean(self, values: Array) -> Array:
        kept = self._kept & ~np.isnan(values)
        found = np.full(len(self._prompts), np.nan)
        if kept.any():
            found[np.searchsorted(self._prompts, np.unique(self._ids[kept]))] = by_prompt(self._ids[kept], values[kept])
        return found


def _floats(side: pa.Table, column: str) -> Array:
    return np.asarray(side[column].cast(pa.float64()).to_numpy(), dtype=np.float64)  # nan for null


def _there(one: Array, two: Array) -> npt.NDArray[np.bool_]:
    return np.isfinite(one) & np.isfinite(two)


def _mean(
    name: str,
    title: str,
    one: Array,
    two: Array,
    interval: Callable[[Array], Interval | None],
    written: Written,
    changed: Written = signed,
) -> Figure:
    """The mean over prompts of both, and of their difference."""
    kept = _there(one, two)
    one, two = one[kept], two[kept]
    difference = two - one
    return Figure(
        name,
        title,
        float(one.mean()),
        float(two.mean()),
        float(difference.mean()),
        interval(difference),
        written,
        changed,
    )


def _rewards(one: Array, two: Array, interval: Callable[[Array], Interval | None]) -> list[Figure]:
    kept = _there(one, two)
    if not kept.any():
        return []
    won = wins(one[kept], two[kept])
    return [
        _mean("reward", "reward", one, two, interval, signed),
        Figure(
            "win_rate",
            "prompts won by B",
            None,
            None,
            float(won.mean()),
            interval(won),
            percent,
            percent,
            neutral=0.5,
        ),
    ]


def _likelihoods(
    columns: list[_Means],
    interval: Callable[[Array], Interval | None],
    pooled: Callable[..., Interval | None],
) -> list[Figure]:
    """KL from the base by the samples' own log-ratio, and perplexity under it, over all tokens together."""
    kept = _there(columns[0].kl, columns[1].kl)
    if not kept.any():
        return []
    tokens, kl, surprise = ([getattr(each, name)[kept] for each in columns] for name in ("tokens", "kl", "surprise"))
    per_token = [float(nats.sum() / count.sum()) for nats, count in zip(kl, tokens, strict=True)]
    perplexity = [float(np.exp(nats.sum() / count.sum())) for nats, count in zip(surprise, tokens, strict=True)]
    return [
        _mean("kl", "KL from the base, nats", columns[0].kl, columns[1].kl, interval, plain),
        Figure(
            "kl_per_token",
            "KL per token, nats",
            per_token[0],
            per_token[1],
            per_token[1] - per_token[0],
            pooled(lambda a, of_a, b, of_b: b / of_b - a / of_a, kl[0], tokens[0], kl[1], tokens[1]),
            lambda value: plain(value, 3),
            lambda value: signed(value, 3),
        ),
        Figure(
            "perplexity",
            "perplexity under the base",
            perplexity[0],
            perplexity[1],
            perplexity[1] / perplexity[0],
            pooled(
                lambda a, of_a, b, of_b: np.exp(b / of_b - a / of_a), surprise[0], tokens[0], surprise[1], tokens[1]
            ),
            plain,
            lambda value: f"×{value:.3f}",
            neutral=1.0,
        ),
    ]


def _bootstrap(
    statistic: Callable[..., Array], columns: Sequence[Array], resamples: int, confidence: float, seed: int
) -> Interval | None:
    """Percentile interval of a statistic of the columns' sums over prompts, (prompts,) each, drawn with replacement."""
    values = np.stack(columns, axis=1)
    prompts = len(values)
    if prompts < FEW:
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // prompts)
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = [rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=size) @ values for size in sizes]
    low, high = np.quantile(statistic(*np.concatenate(drawn).T), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _beside(one: Evaluated, two: Evaluated, same_reward: bool) -> list[Beside]:
    """Samples of the same prompt and index whose texts are in both records, in the first one's order."""
    others = _samples(two)
    found = []
    for place, row in _samples(one).items():
        if (other := others.get(place)) is None:
            continue
        rewards = row.aligned_reward, other.aligned_reward
        known = same_reward and all(each is not None and math.isfinite(each) for each in rewards)
        found.append(Beside(*place, row, other, rewards[1] - rewards[0] if known else None))  # type: ignore[operator]
    return found


def _samples(found: Evaluated) -> dict[tuple[str, int], SampleRow]:
    """The samples whose texts are known as pages show them, by prompt and index; without a base's, that is empty."""
    both: list[dict[tuple[str, int], dict[str, Any]]] = [
        {(row["prompt_id"], row["index"]): row for row in found.side(side).to_pylist() if row["completion"] is not None}
        for side in SIDES
    ]
    base, aligned = both
    return {
        place: SampleRow(
            prompt=row["prompt"],
            base=row["prompt"] + base[place]["completion"] if place in base else "",
            base_reward=base[place]["reward"] if place in base else None,
            aligned=row["prompt"] + row["completion"],
            aligned_reward=row["reward"],
            messages=row["messages"] or "",
        )
        for place, row in aligned.items()
    }
