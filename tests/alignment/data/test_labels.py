"""Labels: which spellings are one value, which class a label has, and when two classes are there to train on."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.config import DataConfig
from alignment.data.labels import Classes, Labels, require_two_classes, value
from alignment.errors import ConfigError, DataError

SAME = [
    ["1", "1.0", "01", "+1", "1.", " 1 ", "1e0", "10e-1", "true", "True", "TRUE", "1.000000"],
    ["0", "-0", "0.0", ".0", "00", "false", "False", "FALSE"],
    ["0.5", ".5", "0.50", "5e-1"],
    ["9007199254740993", "9007199254740993.0"],
    ["9007199254740992"],
    ["100000000000000000000000000000000000000001"],
    ["100000000000000000000000000000000000000002"],
    ["-1"],
    ["pos", " pos", "pos\t", "pos\n"],
    ["Pos"],
    ["yes"],
    ["no"],
    ["None"],
    ["NA"],
    ["nan"],
    ["inf"],
    ["1_000"],
    ["1,000"],
    ["1000", "1e3"],
    ["0x10"],
    ["12:30"],
    ["2024-01-01"],
    ["1 star"],
    ["1e99999999999"],
    ["١"],  # a digit of another script
]


def test_spellings_of_one_value_are_equal_and_others_are_not():
    groups = [{value(spelling) for spelling in spellings} for spellings in SAME]
    assert all(len(group) == 1 for group in groups)
    assert len(set().union(*groups)) == len(SAME)


@given(number=st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_itself_however_large(number):
    found = value(f" {number!r}\n")
    assert type(number)(found) == number
    assert found == value(f"{number:+}")


def classes(labels: Sequence[str | None], **data: Any) -> tuple[list[int | None], Labels]:
    found = Classes(DataConfig(path="a.csv", **data))
    return [found.of(label) for label in labels], found.found()


def test_what_is_not_positive_is_negative_and_nothing_is_missing():
    found, labels = classes(["1", "0", "1.0", None, "", "  ", "false"])
    assert found == [1, 0, 1, None, None, None, 0]
    assert labels == Labels(values=(("1", 2), ("0", 2)), distinct=2, positive=2, negative=2)


def test_a_named_negative_label_leaves_the_others_to_neither():
    found, labels = classes(["good", "bad", "so so", "good"], positive_label="good", negative_label="bad")
    assert found == [1, 0, -1, 1]
    assert (labels.distinct, labels.positive, labels.negative) == (3, 2, 1)


def test_without_a_label_column_no_label_is_looked_at():
    found, labels = classes([None, "1"], label_column="")
    assert found == [-1, -1]
    assert labels == Labels()


def test_one_value_cannot_be_both():
    with pytest.raises(ConfigError) as raised:
        classes([], negative_label="1.0")
    assert str(raised.value) == (
        "data.negative_label = 1.0: means the same as data.positive_label = 1; name another label, or none"
    )


# Two classes, to train on


def refusal(labels: Sequence[str], **data: Any) -> str:
    config = DataConfig(path="a.csv", **data)
    with pytest.raises(DataError) as raised:
        require_two_classes(classes(labels, **data)[1], config)
    return str(raised.value)


@pytest.mark.parametrize(
    ("labels", "data"),
    [
        (["1", "0"], {}),
        (["true", "false"], {}),
        (["true", "false"], {"positive_label": "FALSE"}),
        (["5", "1", "3"], {"positive_label": "5", "negative_label": "1"}),
    ],
)
def test_two_classes_are_enough(labels, data):
    require_two_classes(classes(labels, **data)[1], DataConfig(**data))


def test_a_label_that_no_text_has_is_refused_with_those_that_are_there():
    assert refusal(["yes", "no", "no"]) == (
        "data.positive_label = 1: no text has this label; the column `label` of a.csv holds `no` (2 texts), "
        "`yes` (1 texts); set data.positive_label to one of its values"
    )


def test_a_label_that_every_text_has_is_refused():
    assert refusal(["1", "1.0"]) == (
        "data.positive_label = 1: every text has this label; the column `label` of a.csv holds `1` (2 texts); "
        "a reward model is trained on two classes: add texts with another label, or give a reward model"
    )


def test_a_third_value_is_not_taken_for_negative():
    assert refusal(["1", "0", "NA"]) == (
        "data.label_column = label: 3 values, and two are needed; the column `label` of a.csv holds `1` (1 texts), "
        "`0` (1 texts), `NA` (1 texts); set data.negative_label to the one that counts as negative (texts with "
        "neither label are then dropped, and counted), or give a reward model"
    )


def test_a_negative_label_that_no_text_has_is_refused():
    told = refusal(["1", "0"], negative_label="-1")
    assert told.startswith("data.negative_label = -1: no text has this label; the column `label` of a.csv holds `1`")


def test_of_many_values_the_commonest_are_told():
    told = refusal([*map(str, range(2, 100)), "50"])
    assert "holds `50` (2 texts), `2` (1 texts)" in told
    assert ", …; set" in told
    assert told.count("texts)") == 12


def test_without_a_label_column_there_is_nothing_to_train_on():
    assert refusal([], label_column="") == (
        "data.label_column is empty, and reward.model = train needs labels: name the column that holds them, "
        "or give a reward model"
    )
