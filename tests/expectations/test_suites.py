"""The suites as code: names, severities, bounds from the config, and checks added by a decorator."""

import pytest

from alignment.config import ValidationConfig
from expectations.runner import validate


@pytest.mark.parametrize(("suite", "severity"), [("row_suite", "warning"), ("set_suite", "critical")])
def test_every_expectation_has_a_name_and_a_severity_of_its_own(suite, severity):
    from expectations import suites

    built = getattr(suites, suite)(ValidationConfig()).expectations
    assert built
    for expectation in built:
        assert expectation.meta["name"]
        assert expectation.meta["bound"]
        assert "severity" in expectation.__fields_set__
        assert expectation.severity.value == severity


def test_every_field_of_the_config_is_named_by_some_bound():
    from expectations.suites import row_suite, set_suite

    config = ValidationConfig()
    bounds = " ".join(e.meta["bound"] for suite in (row_suite(config), set_suite(config)) for e in suite.expectations)
    for name, value in config.model_dump().items():
        assert f"validation.{name} = {value}" in bounds


@pytest.fixture
def suites(monkeypatch):
    """The module with registries that forget what a test adds."""
    from expectations import suites

    monkeypatch.setattr(suites, "ROW_CHECKS", dict(suites.ROW_CHECKS))
    monkeypatch.setattr(suites, "SET_CHECKS", dict(suites.SET_CHECKS))
    return suites


def test_a_row_check_is_one_decorated_function(suites, frame, config):
    from great_expectations import expectations as gxe

    @suites.row_check
    def short_prompt(_):
        return gxe.ExpectColumnValueLengthsToBeBetween(column="prompt", max_value=7, meta={"bound": "at most 7"})

    found = validate(frame(3, {1: {"prompt": "Tale"}, 2: {"prompt": "Tale 2: it "}}), config, ())
    assert found.quarantined["broken"].tolist() == [["short_prompt"]]
    assert found.quarantined["pair_id"].tolist() == ["pair-2"]


def test_a_set_check_is_one_decorated_function_over_the_accepted_pairs(suites, frame, config):
    from great_expectations import expectations as gxe

    @suites.set_check
    def mean_gap(_):
        return gxe.ExpectColumnMeanToBeBetween(column="gap", min_value=0.7, meta={"bound": "at least 0.7"})

    found = validate(frame(3, {2: {"gap": 9.0, "chosen_score": 0.0}}), config, ())
    assert found.checks[-1].observed == pytest.approx(0.6)
    assert found.problem == "pairs: mean gap 0.6, must be at least 0.7"


def test_a_set_check_of_lesser_severity_is_recorded_and_does_not_stop(suites, frame, config):
    from great_expectations import expectations as gxe

    @suites.set_check
    def few_strategies(_):
        return gxe.ExpectColumnUniqueValueCountToBeBetween(column="strategy", min_value=2, severity="info")

    found = validate(frame(3), config, ())
    check = found.checks[-1]
    assert (check.name, check.severity, check.observed, check.passed) == ("few_strategies", "info", 1.0, False)
    found.require()


def test_a_name_is_registered_once(suites):
    def score_gap(_):
        return []

    with pytest.raises(ValueError, match="`score_gap` is registered twice"):
        suites.row_check(score_gap)
