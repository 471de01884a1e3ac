"""The figures of a set of pairs that the set checks bound; numpy and pandas alone."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd


def summarise(accepted: pd.DataFrame, quarantined: int, eval_prompt_ids: Collection[str]) -> dict[str, float]:
    """Figures of the accepted pairs, by name; all finite, and 0 where a figure is undefined.

    `quarantined` is the number of pairs set aside. Fractions lie in 0..1 and are of the accepted pairs, but for
    `quarantined_fraction`, which is of all; counts are whole numbers; `length_correlation` lies in -1..1.
    """
    pairs = len(accepted)
    return {
        "accepted_pairs": float(pairs),
        "quarantined_pairs": float(quarantined),
        "quarantined_fraction": quarantined / max(pairs + quarantined, 1),
        "duplicate_fraction": duplicate_fraction(accepted),
        "chosen_longer_fraction": chosen_longer_fraction(accepted),
        "length_correlation": length_correlation(accepted),
        "shared_prompts": float(len(set(accepted["prompt_id"]) & set(eval_prompt_ids))),
        "distinct_prompts": float(len(set(map(tuple, accepted["prompt_ids"])))),
    }


def duplicate_fraction(pairs: pd.DataFrame) -> float:
    """Fraction of the pairs that repeat the token ids of prompt, chosen and rejected of an earlier one."""
    columns = (map(tuple, pairs[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    distinct = len(set(zip(*columns, strict=True)))
    return (len(pairs) - distinct) / max(len(pairs), 1)


def chosen_longer_fraction(pairs: pd.DataFrame) -> float:
    """P(the chosen completion has more tokens than the rejected one), ties counted half."""
    chosen, rejected = (pairs[name].to_numpy(np.float64) for name in ("chosen_tokens", "rejected_tokens"))
    return float(((chosen > rejected) + 0.5 * (chosen == rejected)).mean()) if len(pairs) else 0.0


def length_correlation(pairs: pd.DataFrame) -> float:
    """Pearson's r of score and completion tokens over the distinct texts of the pairs; 0 where either is constant.

    Texts without a score are left out. A text that several pairs share counts once for each length in tokens that it
    was sampled with.
    """
    columns = ["text", "score", "tokens"]
    sides = [
        pairs[[side, f"{side}_score", f"{side}_tokens"]].set_axis(columns, axis="columns")
        for side in ("chosen", "rejected")
    ]
    texts = pd.concat(sides).dropna(subset=["score"]).drop_duplicates(["text", "tokens"])
    return _pearson(texts["score"].to_numpy(np.float64), texts["tokens"].to_numpy(np.float64))


def _pearson(x: np.ndarray[Any, np.dtype[np.float64]], y: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    if not len(x) or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    return float(np.nan_to_num(np.corrcoef(x, y)[0, 1]))
