"""The row expectations that Great Expectations lacks: each judges several columns of a pair, nulls included."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import MulticolumnMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    MulticolumnMapMetricProvider,
    multicolumn_condition_partial,
)

from expectations import predicates
from expectations.predicates import Mask


class RowMetric(MulticolumnMapMetricProvider):
    """A mask over rows as a metric: a subclass gives its name, the names of its arguments, and the mask, `holds`.

    The mask is of each row alone: pairs are judged in shards. It gets the columns in a frame in which texts and lists
    of ids are Arrow's (`pandas.ArrowDtype`), and a row for which it gives no answer fails.
    """

    holds: ClassVar[Callable[..., Mask]]

    @multicolumn_condition_partial(engine=PandasExecutionEngine)
    def _mask(cls, rows: pd.DataFrame, **values: Any) -> Mask:
        mask = cls.holds(rows, **{key: values[key] for key in cls.condition_value_keys})
        return mask.fillna(False).astype(bool)


class RowExpectation(MulticolumnMapExpectation):
    """Base of the expectations below: rows that hold nulls are judged too, and the metric's mask fails them."""

    ignore_row_if: Literal["never"] = "never"


class CompleteMetric(RowMetric):
    """Mask of `predicates.complete`."""

    condition_metric_name = "multicolumn_values.complete"
    holds = staticmethod(predicates.complete)


class ExpectRowsToBeComplete(RowExpectation):
    """No column of the row is null, but for the scores of a pair that nobody scored."""

    map_metric: ClassVar[str] = CompleteMetric.condition_metric_name


class GapMetric(RowMetric):
    """Mask of `predicates.gap_at_least`."""

    condition_metric_name = "multicolumn_values.gap_at_least"
    condition_value_keys = ("min_gap",)
    holds = staticmethod(predicates.gap_at_least)


class ExpectGapToBeAtLeast(RowExpectation):
    """First column minus second, in units of the reward, is `min_gap` or more; where both are null, a third is."""

    min_gap: float
    map_metric: ClassVar[str] = GapMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("min_gap", "mostly")


class FiniteMetric(RowMetric):
    """Mask of `predicates.finite`."""

    condition_metric_name = "multicolumn_values.finite"
    holds = staticmethod(predicates.finite)


class ExpectNumbersToBeFinite(RowExpectation):
    """Every column holds a finite number, or every one is null."""

    map_metric: ClassVar[str] = FiniteMetric.condition_metric_name


class RatioMetric(RowMetric):
    """Mask of `predicates.ratio_at_most`."""

    condition_metric_name = "multicolumn_values.ratio_at_most"
    condition_value_keys = ("max_ratio",)
    holds = staticmethod(predicates.ratio_at_most)


class ExpectLengthRatioToBeAtMost(RowExpectation):
    """Of two columns of lengths, the longer over the shorter is `max_ratio` or less."""

    max_ratio: float
    map_metric: ClassVar[str] = RatioMetric.condition_metric_name
    success_keys: ClassVar[tuple[str, ...]] = ("max_ratio", "mostly")


class StartsWithFirstMetric(RowMetric):
    """Mask of `predicates.starts_with_first`."""

    condition_metric_name = "multicolumn_values.starts_with_first"
    holds = staticmethod(predicates.starts_with_first)


class ExpectTextsToStartWithFirst(RowExpectation):
    """Every text begins with the text of the first column, the prompt."""

    map_metric: ClassVar[str] = StartsWithFirstMetric.condition_metric_name


class NotBlankMetric(RowMetric):
    """Mask of `predicates.not_blank_after_first`."""

    condition_metric_name = "multicolumn_values.not_blank_after_first"
    holds = staticmethod(predicates.not_blank_after_first)


class ExpectTextsNotToBeBlankAfterFirst(RowExpectation):
    """Every text adds more than white space to the text of the first column, the prompt."""

    map_metric: ClassVar[str] = NotBlankMetric.condition_metric_name


class ControlMetric(RowMetric):
    """Mask of `predicates.without_control`."""

    condition_metric_name = "multicolumn_values.without_control"
    holds = staticmethod(predicates.without_control)


class ExpectTextsWithoutControlCharacters(RowExpectation):
    r"""No text holds a control character other than \n, \t and \r."""

    map_metric: ClassVar[str] = ControlMetric.condition_metric_name


class UnicodeMetric(RowMetric):
    """Mask of `predicates.whole_unicode`."""

    condition_metric_name = "multicolumn_values.whole_unicode"
    holds = staticmethod(predicates.whole_unicode)


class ExpectTextsOfWholeUnicode(RowExpectation):
    """No text holds U+FFFD or a lone surrogate."""

    map_metric: ClassVar[str] = UnicodeMetric.condition_metric_name


class DifferMetric(RowMetric):
    """Mask of `predicates.differ`."""

    condition_metric_name = "multicolumn_values.differ"
    holds = staticmethod(predicates.differ)


class ExpectCompletionsToDiffer(RowExpectation):
    """Of chosen text, rejected text, chosen ids and rejected ids, neither the texts nor the ids are equal."""

    map_metric: ClassVar[str] = DifferMetric.condition_metric_name
