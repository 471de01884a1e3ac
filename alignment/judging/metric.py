"""What a metric is: one declaration, from which the report, the tables, MLflow's names and the plots derive."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alignment.config import EvaluationConfig
from alignment.judging.formats import PLAIN, Format
from alignment.judging.measured import Array, Measured
from alignment.kinds import METRICS

Of = Literal["model", "aligned", "both", "anchor"]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Both:
    """The base's and the aligned model's samples on the same prompts, and how sure an interval has to be."""

    base: Measured
    aligned: Measured
    config: EvaluationConfig
    seed: int

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The ids, sorted, of the prompts that have a sample with a reward on both sides."""
        before, after = ({*np.asarray(side.prompt_ids)[side.has_reward].tolist()} for side in (self.base, self.aligned))
        return tuple(sorted(before & after))

    @cached_property
    def rewards(self) -> tuple[Array, Array]:
        """Mean reward of each of `prompts`, before and after, over the samples that have one: (prompts,) each."""
        return self._means(self.base, self.base.rewards), self._means(self.aligned, self.aligned.rewards)

    @cached_property
    def lengths(self) -> tuple[Array, Array]:
        """Mean length in tokens of the same samples: (prompts,) each."""
        return self._means(self.base, self.base.lengths), self._means(self.aligned, self.aligned.lengths)

    def samples(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Array, Array]:
        """Of the samples of `prompts` that have a reward: the prompt's number, whether it is the aligned model's
        sample, the reward and the length in tokens; (samples,) each.
        """
        sides = []
        for is_aligned, side in enumerate((self.base, self.aligned)):
            kept = np.asarray(side.has_reward) & np.isin(side.prompt_ids, self.prompts)
            prompt = np.searchsorted(self.prompts, np.asarray(side.prompt_ids)[kept])
            sides.append((prompt, np.full(prompt.size, bool(is_aligned)), side.rewards[kept], side.lengths[kept]))
        prompt, is_after, rewards, lengths = (np.concatenate(column) for column in zip(*sides, strict=True))
        return prompt, is_after, rewards, lengths.astype(np.float64)

    def _means(self, side: Measured, values: npt.NDArray[Any]) -> Array:
        kept = np.asarray(side.has_reward) & np.isin(side.prompt_ids, self.prompts)
        return by_prompt(np.asarray(side.prompt_ids)[kept], values[kept])


@dataclass(frozen=True)
class Metric:
    """A figure of an evaluation.

    `of` says what `compute` takes, and where the report keeps what it gives:

    - "model": columns of one model's samples, by the names of its parameters (`alignment.judging.measured.Measured`,
      or a figure of the judge). It is computed for both models: `base[name]` and `aligned[name]`.
    - "aligned": the same, for the aligned model alone: `delta[name]`.
    - "both": a `Both`; it gives a value, or a value and its interval, or None where there is none: `delta[name]` and
      `delta[name + "_ci"]`.
    - "anchor": the anchor's samples and a model's, whose `base_logprobs` are under the anchor; it gives a value or
      None: `drift[name]` for the aligned model, `drift["base_" + name]` for the base.

    Figures of rewards are of the samples that have one: a function of `rewards` gets no other sample.
    """

    name: str
    label: str
    unit: str
    of: Of
    format: Format
    better: Literal["higher", "lower", ""]
    """Which way is better, where that can be said."""
    change: str
    """For "model": `difference`, `ratio`, or the name of a metric of both that says what became of it; empty: neither.

    The report's `delta` keeps them as `<name>_change` and `<name>_ratio`.
    """
    shown: Literal["aligned", "change", ""]
    """For "both": the column of the table that it stands in. Empty, for it or "anchor": it has no row."""
    compute: Function

    @property
    def title(self) -> str:
        """The name for people, with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def delta(self) -> str:
        """Under which name `delta` keeps the change of a "model" metric; empty where it does not."""
        return {"difference": f"{self.name}_change", "ratio": f"{self.name}_ratio"}.get(self.change, "")

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The columns that `compute` takes."""
        return tuple(inspect.signature(self.compute).parameters)


def metric(
    name: str,
    *,
    label: str,
    unit: str = "",
    of: Of = "model",
    format: Format = PLAIN,
    better: Literal["higher", "lower", ""] = "",
    change: str = "difference",
    shown: Literal["aligned", "change", ""] = "aligned",
) -> Callable[[Function], Function]:
    """Register a function as a metric; see `Metric` for what it takes and gives."""

    def register(compute: Function) -> Function:
        METRICS.register(name, Metric(name, label, unit, of, format, better, change, shown, compute))
        return compute

    return register


def metrics(of: Of) -> list[Metric]:
    """Every metric of one sort, built in and of other packages, in the order of the tables."""
    return [each for each in METRICS.all().values() if each.of == of]


def by_prompt(prompt_ids: npt.NDArray[Any], values: npt.NDArray[Any]) -> Array:
    """The mean of each prompt's samples, in the order of the sorted prompt ids: (prompts,)."""
    _, prompt, counts = np.unique(prompt_ids, return_inverse=True, return_counts=True)
    with np.errstate(invalid="ignore"):
        return np.bincount(prompt, weights=np.asarray(values, dtype=np.float64)) / counts


def ratio(after: float, before: float) -> float:
    """after / before, not finite (and so no gate's pass) where `before` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(after) / np.float64(before))
