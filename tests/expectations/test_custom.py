"""Each custom expectation judged by Great Expectations itself: rows that keep it, rows that break it, nulls."""

from typing import Any

import pandas as pd
import pytest

NAN, INF = float("nan"), float("inf")

# expectation, its arguments, rows that keep it, rows that break it
CASES = [
    ("ExpectRowsToBeComplete", {}, [(1, "a")], [(1, None), (NAN, "a")]),
    ("ExpectGapToBeAtLeast", {"min_gap": 0.5}, [(1.0, 0.5), (2.0, -1.0)], [(0.9, 0.5), (0.5, 1.0), (NAN, 0.0)]),
    (
        "ExpectGapToBeAtLeast",
        {"min_gap": 0.5},
        [(1.0, 0.5, 0.5), (NAN, NAN, 0.5), (NAN, NAN, NAN)],
        [(0.9, 0.5, 0.5), (NAN, NAN, 0.4), (NAN, 0.0, 0.5), (1.0, NAN, NAN)],
    ),
    ("ExpectNumbersToBeFinite", {}, [(1.0, -2.0), (NAN, NAN)], [(INF, 0.0), (0.0, -INF), (NAN, 0.0)]),
    ("ExpectLengthRatioToBeAtMost", {"max_ratio": 2.0}, [(2, 4), (4, 2), (3, 3)], [(2, 5), (0, 0), (0, 1), (NAN, 2)]),
    ("ExpectTextsToStartWithFirst", {}, [("a", "ab"), ("", "b")], [("a", "ba"), ("a", None), (None, "a"), (1, "1")]),
    ("ExpectTextsNotToBeBlankAfterFirst", {}, [("a", "ab")], [("a", "a"), ("a", "a \n\t"), ("a", None)]),
    ("ExpectTextsWithoutControlCharacters", {}, [("a\n\t\r", "é")], [("\x00", "a"), ("a", "\x9f"), (None, "a")]),
    ("ExpectTextsOfWholeUnicode", {}, [("naïve", "😀")], [("a\ufffd", "a"), ("a", "\ufffd"), ("a", None)]),
    (
        "ExpectCompletionsToDiffer",
        {},
        [("a", "b", [1], [2]), ("a", "b", [1], [1, 1])],
        [("a", "a", [1], [2]), ("a", "b", [1], [1]), (None, "b", [1], [2]), ("a", "b", None, [2])],
    ),
]


def failing_rows(expectation: Any, rows: pd.DataFrame) -> list[int]:
    import great_expectations as gx

    asset = gx.get_context(mode="ephemeral").data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    result = batch.validate(expectation, result_format="COMPLETE")
    assert not result.exception_info.get("raised_exception")
    found: list[int] = result.result.get("unexpected_index_list", [])
    return found


@pytest.mark.parametrize(("name", "arguments", "keeping", "breaking"), CASES)
def test_expectation_fails_exactly_the_breaking_rows(name, arguments, keeping, breaking):
    from expectations import custom

    rows = pd.DataFrame([*keeping, *breaking])
    rows.columns = [f"column_{number}" for number in rows]
    expectation = getattr(custom, name)(column_list=list(rows), **arguments)
    assert failing_rows(expectation, rows) == list(range(len(keeping), len(rows)))


def test_every_custom_expectation_has_a_case_and_judges_nulls():
    from expectations import custom

    ours = {name for name, value in vars(custom).items() if name.startswith("Expect") and isinstance(value, type)}
    assert ours == {case[0] for case in CASES}
    assert all(getattr(custom, name).__fields__["ignore_row_if"].default == "never" for name in ours)


def test_lone_surrogates_are_broken_unicode():
    from expectations.predicates import whole_unicode

    rows = pd.DataFrame({"text": pd.Series(["whole", "cut \ud83d"], dtype=object)})
    assert whole_unicode(rows).tolist() == [True, False]
