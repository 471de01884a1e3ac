"""What the runner refuses to judge: it raises, and never passes a frame that it could not read."""

import pytest

from alignment.errors import ValidationError
from expectations.runner import validate


def test_no_pairs_is_an_error(frame, config):
    with pytest.raises(ValidationError, match="there are none to validate"):
        validate(frame(1).head(0), config, ())


def test_a_missing_column_is_an_error(frame, config):
    with pytest.raises(ValidationError, match="the columns chosen, gap are missing from pair_id, prompt_id"):
        validate(frame(2).drop(columns=["chosen", "gap"]), config, ())


def test_a_pair_id_that_comes_twice_is_an_error(frame, config):
    with pytest.raises(ValidationError, match="pair_id pair-0 comes more than once"):
        validate(frame(2, {1: {"pair_id": "pair-0"}}), config, ())


def test_what_an_expectation_raises_is_not_swallowed(frame, config):
    """Token ids that are no sequence make the comparison of the ids raise."""
    with pytest.raises(ValidationError, match=r"`completions_differ` could not be evaluated: .*not iterable"):
        validate(frame(2, {1: {"chosen_ids": 5}}), config, ())


def test_a_row_check_that_names_no_row_is_an_error(frame, config, monkeypatch):
    from great_expectations import expectations as gxe

    from expectations import suites

    monkeypatch.setitem(suites.ROW_CHECKS, "many", lambda _: gxe.ExpectTableRowCountToBeBetween(min_value=9))
    with pytest.raises(ValidationError, match="`many` fails but names no row"):
        validate(frame(2), config, ())
