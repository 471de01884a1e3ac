"""Great Expectations imported once, and pairs made by hand."""

import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from alignment.config import ValidationConfig


@pytest.fixture(scope="session", autouse=True)
def _great_expectations() -> None:
    """Its import takes seconds and, on Python 3.11 and later, warns of `sre_constants` and `sre_parse`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "module 'sre_", DeprecationWarning)
        import expectations.suites  # noqa: F401


def make_pair(number: int, **changes: Any) -> dict[str, Any]:
    """A pair that keeps every row check, with some of its columns changed; prompt and texts depend on `number`."""
    chosen_ids, rejected_ids = [7, 8, number], [9, 10, number]
    prompt = f"Tale {number}:"
    pair = {
        "pair_id": f"pair-{number}",
        "prompt_id": f"prompt-{number}",
        "prompt": prompt,
        "chosen": f"{prompt} it ends well",
        "rejected": f"{prompt} it ends badly",
        "prompt_ids": [1, 2, number],
        "chosen_ids": chosen_ids,
        "rejected_ids": rejected_ids,
        "chosen_score": 0.9,
        "rejected_score": 0.3,
        "gap": 0.6,
        "chosen_tokens": len(chosen_ids),
        "rejected_tokens": len(rejected_ids),
        "strategy": "best_vs_worst",
        "chosen_logprob": -3.0,
        "rejected_logprob": -4.0,
    }
    return pair | changes


@pytest.fixture
def frame() -> Callable[..., pd.DataFrame]:
    """Builds pairs: `frame(n, {row: {column: value}})` are n sound pairs, some of them changed."""

    def build(rows: int, changes: dict[int, dict[str, Any]] | None = None) -> pd.DataFrame:
        pairs = [make_pair(number, **(changes or {}).get(number, {})) for number in range(rows)]
        columns = {name: [pair[name] for pair in pairs] for name in pairs[0]}
        kept = {name: pd.Series(values, dtype=object) for name, values in columns.items() if _needs_object(values)}
        return pd.DataFrame(columns | kept)

    return build


@pytest.fixture
def config() -> ValidationConfig:
    """Bounds that a set of four sound pairs keeps."""
    return ValidationConfig(min_pairs=2, min_distinct_prompts=2, max_quarantined=1.0)


def _needs_object(values: list[Any]) -> bool:
    """Lone surrogates do not fit into pandas' string type."""
    return any(isinstance(value, str) and not value.isprintable() for value in values)
