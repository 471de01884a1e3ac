"""Validates a frame of pairs: rows that break a check are set apart, and the rest is judged as a set."""

from collections.abc import Collection, Sequence

import pandas as pd

from alignment.config import ValidationConfig
from alignment.errors import ValidationError
from expectations.columns import REQUIRED
from expectations.verdict import Validation


def validate(pairs: pd.DataFrame, config: ValidationConfig, eval_prompt_ids: Collection[str]) -> Validation:
    """Judge every pair by the row suite and the accepted ones by the set suite; nothing is dropped.

    `pairs` has one row a pair: texts (`chosen` and `rejected` begin with `prompt`), token ids (of the completion
    alone for `chosen_ids`, `rejected_ids`), scores in units of the reward and lengths in tokens. `eval_prompt_ids`
    are the prompts held out for the evaluation. Both frames of the result are numbered anew, in the pairs' order.
    A row with a `fault` gave no pair: it is quarantined under that name, and no other check judges it.

    A failed set check does not raise here: `Validation.require` does, once the result is written.
    Raises ValidationError where there are no pairs, a column is missing, a pair id comes twice, or a check
    could not be evaluated.
    """
    _require_usable(pairs)
    from expectations.judging import Judge, verdict

    def of(rows: pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
        return rows if names is None else rows[[name for name in names if name in rows]]

    judge = Judge(config, eval_prompt_ids, lambda names: of(pairs, names))
    split = judge.split(pairs)
    accepted = pairs[split.accepted].reset_index(drop=True)
    quarantined = pairs[~split.accepted].reset_index(drop=True)
    quarantined["broken"] = pd.Series(split.broken, dtype=object)
    judge.accept(accepted)
    found = verdict(config, [judge.tally], lambda names: of(accepted, names))
    return Validation(found.checks, found.figures, found.reasons, accepted, quarantined)


def none_given() -> ValidationError:
    """The error of a set without pairs."""
    return ValidationError("pairs: there are none to validate; sample more, or see why none was made")


def repeated_id(pair_id: object) -> ValidationError:
    """The error of an id that two pairs have."""
    return ValidationError(f"pairs: pair_id {pair_id} comes more than once; make ids unique")


def _require_usable(pairs: pd.DataFrame) -> None:
    if pairs.empty:
        raise none_given()
    missing = [name for name in REQUIRED if name not in pairs]
    if missing:
        raise ValidationError(f"pairs: the columns {', '.join(missing)} are missing from {', '.join(map(str, pairs))}")
    ids = pairs["pair_id"].dropna()
    if ids.duplicated().any():
        raise repeated_id(ids[ids.duplicated()].iloc[0])
