"""The figures of a set of pairs that the set checks bound, gathered shard by shard; numpy, pandas and Arrow alone."""

from array import array
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from expectations import arrays

Floats = np.ndarray[Any, np.dtype[np.float64]]


def summarise(accepted: pd.DataFrame, quarantined: int, eval_prompt_ids: Collection[str]) -> dict[str, float]:
    """Figures of the accepted pairs of a whole set, by name: see `Summary.figures`."""
    summary = Summary(eval_prompt_ids)
    summary.add(accepted)
    return summary.figures(quarantined)


class Summary:
    """What is kept of the accepted pairs of each shard: about 60 bytes a pair, however long its texts are.

    Prompts, pairs and texts are told apart by hashes of 64 bits (`arrays.hashes`): of a million pairs, two different
    ones have one hash once in ten million sets, and then a fraction is off by one in a million.
    """

    def __init__(self, eval_prompt_ids: Collection[str]) -> None:
        """`eval_prompt_ids` are the prompts held out for the evaluation."""
        self._held_out = pa.array(sorted(eval_prompt_ids), pa.string())
        self._shared: set[str] = set()
        self._pairs = 0
        self._longer_twice = 0
        self._prompts, self._contents = array("q"), array("q")
        self._texts: dict[str, tuple[array[Any], ...]] = {
            side: (array("q"), array("d"), array("i")) for side in ("chosen", "rejected")
        }

    def add(self, accepted: pd.DataFrame) -> None:
        """Take the accepted pairs of a shard, in the set's order."""
        if accepted.empty:
            return
        self._pairs += len(accepted)
        prompt_ids = pa.array(accepted["prompt_id"].array).cast(pa.string())
        self._shared.update(pc.unique(prompt_ids.filter(pc.is_in(prompt_ids, self._held_out))).to_pylist())
        chosen, rejected = (accepted[f"{side}_tokens"].to_numpy(np.float64) for side in self._texts)
        self._longer_twice += int(2 * (chosen > rejected).sum() + (chosen == rejected).sum())
        prompts, *completions = (
            arrays.hashes(arrays.as_bytes(arrays.ids(accepted[name])))
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        self._prompts.frombytes(prompts.tobytes())
        self._contents.frombytes(arrays.mixed(prompts, *completions).tobytes())
        for side, lengths in zip(self._texts, (chosen, rejected), strict=True):
            scores = accepted[f"{side}_score"].to_numpy(np.float64, na_value=np.nan)
            scored = ~np.isnan(scores)
            if scored.any():
                tokens = lengths[scored].astype(np.int64)
                keys = arrays.mixed(arrays.hashes(arrays.texts(accepted[side][scored])), tokens)
                for kept, values in zip(
                    self._texts[side], (keys, scores[scored], tokens.astype(np.int32)), strict=True
                ):
                    kept.frombytes(values.tobytes())

    def figures(self, quarantined: int) -> dict[str, float]:
        """Figures of the accepted pairs, by name; all finite, and 0 where a figure is undefined.

        `quarantined` is the number of pairs set aside. Fractions lie in 0..1 and are of the accepted pairs, but for
        `quarantined_fraction`, which is of all; counts are whole numbers; `length_correlation` lies in -1..1.

        `duplicate_fraction`: of the pairs that repeat the token ids of prompt, chosen and rejected of an earlier one.
        `chosen_longer_fraction`: P(the chosen completion has more tokens than the rejected one), ties counted half.
        `length_correlation`: Pearson's r of score and completion tokens over the distinct texts of the pairs, 0 where
        either is constant. Texts without a score are left out, and a text that several pairs share counts once for each
        length in tokens that it was sampled with.
        """
        return {
            "accepted_pairs": float(self._pairs),
            "quarantined_pairs": float(quarantined),
            "quarantined_fraction": quarantined / max(self._pairs + quarantined, 1),
            "duplicate_fraction": (self._pairs - _distinct(self._contents)) / max(self._pairs, 1),
            "chosen_longer_fraction": self._longer_twice / 2 / max(self._pairs, 1),
            "length_correlation": self._length_correlation(),
            "shared_prompts": float(len(self._shared)),
            "distinct_prompts": float(_distinct(self._prompts)),
        }

    def _length_correlation(self) -> float:
        sides = zip(self._texts["chosen"], self._texts["rejected"], strict=True)
        keys, scores, lengths = (
            np.concatenate([np.asarray(chosen), np.asarray(rejected)]) for chosen, rejected in sides
        )
        first = np.sort(np.unique(keys, return_index=True)[1])  # of a text with several scores, the first is taken
        return _pearson(scores[first], lengths[first].astype(np.float64))


def _distinct(hashes: "array[int]") -> int:
    return len(np.unique(np.asarray(hashes)))


def _pearson(x: Floats, y: Floats) -> float:
    if not len(x) or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    return float(np.nan_to_num(np.corrcoef(x, y)[0, 1]))
