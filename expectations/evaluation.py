"""Great Expectations at work: which columns an expectation is given, and what it makes of them.

It copies and fingerprints every column of a frame that it is given, so each expectation is given those that it reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from great_expectations import get_context
from great_expectations.core.expectation_suite import ExpectationSuite
from great_expectations.expectations.expectation import (
    ColumnAggregateExpectation,
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    Expectation,
    MulticolumnMapExpectation,
)

from alignment.errors import ValidationError
from alignment.rows import PAIRS
from expectations.arrays import Ints
from expectations.custom import RowExpectation

COMPARES_ROWS = {
    "column_values.unique",
    "column_values.increasing",
    "column_values.decreasing",
    "column_values.not_outliers",
    "column_values.z_score.under_threshold",
    "compound_columns.unique",
}
"""Great Expectations' own metrics of rows that look at other rows too."""

_OF_COLUMNS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation, ColumnAggregateExpectation)
_NUMBERS = {field.name for field in PAIRS.schema if str(field.type) in ("int64", "double", "bool")}
_NUMBERS |= {"chosen_chars", "rejected_chars"}


class Unread(pd.DataFrame):
    """A frame that Great Expectations does not fingerprint: it would hash or pickle each of up to a billion bytes."""

    def memory_usage(self, index: bool = True, deep: bool = False) -> "pd.Series[Any]":
        """More than that limit."""
        return super().memory_usage(index, deep) + float("inf")


@dataclass(frozen=True)
class Group:
    """Expectations that are given one frame, and its columns; None for all."""

    expectations: tuple[Expectation, ...]
    columns: tuple[str, ...] | None
    arrow: bool
    """Whether texts and lists are given as Arrow's."""
    alone: bool
    """Whether they judge each row alone, so that a set may be given in shards."""

    def frame(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The columns of some rows that the group is given, numbered anew; a missing one is the expectations' error."""
        columns = list(rows) if self.columns is None else [name for name in self.columns if name in rows]
        frame = rows[columns].reset_index(drop=True)
        return frame if self.arrow else plain(frame)


def grouped(expectations: Sequence[Expectation]) -> list[Group]:
    """The expectations of a suite, those together that do with the same columns.

    Expectations of numbers are together, and so are those that judge rows over Arrow's columns. A frame with texts is
    apart, since Great Expectations copies all of it for each expectation that it holds.
    """
    groups: dict[Any, list[Expectation]] = {}
    for expectation in expectations:
        columns = columns_of(expectation)
        arrow = isinstance(expectation, RowExpectation)
        heavy = None if columns is None else frozenset() if arrow else frozenset(columns) - _NUMBERS
        groups.setdefault((heavy, arrow, judges_alone(expectation)), []).append(expectation)
    found = []
    for (heavy, arrow, alone), ours in groups.items():
        named = dict.fromkeys(name for each in ours for name in columns_of(each) or ())
        found.append(Group(tuple(ours), None if heavy is None else tuple(named), arrow, alone))
    return found


def columns_of(expectation: Expectation) -> tuple[str, ...] | None:
    """The columns that an expectation reads; None where that cannot be told."""
    asked = expectation.configuration.kwargs
    if not isinstance(expectation, _OF_COLUMNS) or asked.get("row_condition"):
        return None
    named = [asked[name] for name in ("column", "column_A", "column_B") if name in asked]
    return tuple(dict.fromkeys([*named, *asked.get("column_list", ())])) or None


def judges_alone(expectation: Expectation) -> bool:
    """Whether an expectation is known to judge each row without a look at others."""
    if isinstance(expectation, RowExpectation):
        return True
    owner = next((kind for kind in type(expectation).__mro__ if "map_metric" in vars(kind)), None)
    ours = owner is not None and owner.__module__.startswith("great_expectations.")
    return ours and getattr(expectation, "map_metric", None) not in COMPARES_ROWS | {None}


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with Arrow's columns as Python objects: texts, and arrays of ids; a null is NaN, or None of ids."""
    found = rows.copy(deep=False)
    for name, column in rows.items():
        if isinstance(column.dtype, pd.ArrowDtype):
            found[name] = column.array.__arrow_array__().to_pandas().astype(object).set_axis(rows.index)
    return found


class Evaluator:
    """Great Expectations with one context, whatever it is asked."""

    def __init__(self) -> None:
        """It keeps nothing but the last frame that it was given."""
        context = get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False, "profilers": False}
        asset = context.data_sources.add_pandas("pairs").add_dataframe_asset("pairs")
        self._whole = asset.add_batch_definition_whole_dataframe("all")

    def evaluate(self, frame: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Any]:
        """Great Expectations' results. Raises ValidationError where an expectation could not be evaluated."""
        suite = ExpectationSuite(name="pairs")
        suite.expectations.extend(expectations)
        results: list[Any] = (
            self._whole.get_batch({"dataframe": Unread(frame)})
            .validate(
                suite,
                result_format={
                    "result_format": "COMPLETE",
                    "exclude_unexpected_values": True,
                    "include_unexpected_rows": False,
                    "return_unexpected_index_query": False,
                },
            )
            .results
        )
        for result in results:
            for raised in _exceptions(result.exception_info):
                raise ValidationError(
                    f"pairs: the check `{name_of(result)}` could not be evaluated: {' '.join(raised.split())}"
                )
        return results


def name_of(result: Any) -> str:
    """The check that a result is of."""
    return str(result.expectation_config.meta["name"])


def failing_rows(result: Any) -> Ints:
    """The numbers of the rows that fail."""
    return np.array(result.result.get("unexpected_index_list") or [], np.int64)


def _exceptions(info: dict[str, Any] | None) -> Iterator[str]:
    """Messages of what an expectation raised; Great Expectations reports them flat, or one a metric."""
    infos: Iterable[Any] = [info] if info and "raised_exception" in info else (info or {}).values()
    return (str(each["exception_message"]) for each in infos if each["raised_exception"])
