"""What the masks and figures must be, in plain Python and pandas, a row at a time."""

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
BROKEN = re.compile("[\ufffd\ud800-\udfff]")


def starts_with_first(prompt: str, *texts: str) -> bool:
    return all(text.startswith(prompt) for text in texts)


def not_blank_after_first(prompt: str, *texts: str) -> bool:
    return all(text.removeprefix(prompt).strip() for text in texts)


def without_control(*texts: str) -> bool:
    return not any(map(CONTROL.search, texts))


def whole_unicode(*texts: str) -> bool:
    return not any(map(BROKEN.search, texts))


def figures(accepted: pd.DataFrame, quarantined: int, held_out: Collection[str]) -> dict[str, float]:
    pairs = len(accepted)
    columns = [list(map(tuple, accepted[name])) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    chosen, rejected = (accepted[name].to_numpy(float) for name in ("chosen_tokens", "rejected_tokens"))
    sides = [
        accepted[[side, f"{side}_score", f"{side}_tokens"]].set_axis(["text", "score", "tokens"], axis="columns")
        for side in ("chosen", "rejected")
    ]
    texts: Any = pd.concat(sides).dropna(subset=["score"]).drop_duplicates(["text", "tokens"])
    constant = texts["score"].nunique() < 2 or texts["tokens"].nunique() < 2
    return {
        "accepted_pairs": pairs,
        "quarantined_pairs": quarantined,
        "quarantined_fraction": quarantined / (pairs + quarantined),
        "duplicate_fraction": 1 - len(set(zip(*columns, strict=True))) / pairs,
        "chosen_longer_fraction": float(((chosen > rejected) + 0.5 * (chosen == rejected)).mean()),
        "length_correlation": 0.0 if constant else float(np.corrcoef(texts["score"], texts["tokens"])[0, 1]),
        "shared_prompts": len(set(accepted["prompt_id"]) & set(held_out)),
        "distinct_prompts": len(set(columns[0])),
    }
