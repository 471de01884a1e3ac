"""The two suites as code: row checks, whose failing rows are quarantined, and set checks, which stop the run.

A further check is one decorated function from the config to an expectation, or several; its name is the check's name:

    @row_check
    def short_prompt(config: ValidationConfig) -> Expectation:
        return gxe.ExpectColumnValueLengthsToBeBetween(column="prompt", max_value=200, meta={"bound": "at most 200"})

    @set_check
    def mean_gap(config: ValidationConfig) -> Expectation:
        return gxe.ExpectColumnMeanToBeBetween(column="gap", min_value=config.min_gap, meta=bound(config, "min_gap"))

A check of another package is the same function under an entry point of the group `plumbline.expectations`, whose name
is the function's.

Row checks see every pair, with `chosen_chars` and `rejected_chars` added, and whatever their severity a failing row is
quarantined. Set checks see the accepted pairs, with each figure of `expectations.figures` as a further column that
holds one value throughout. What `meta` gives as `bound` completes the sentence "must be ..." in reports and errors.
A check that `needs` "scores", or a "gap" of scores or a margin, is not applied to a set in which no pair has any.
"""

from collections.abc import Callable, Sequence

from great_expectations import expectations as gxe
from great_expectations.core.expectation_suite import ExpectationSuite
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from alignment.config import ValidationConfig
from alignment.errors import ConfigError
from alignment.kinds import EXPECTATIONS
from expectations import custom
from expectations.columns import REQUIRED, SCORES

CheckFunction = Callable[[ValidationConfig], Expectation | Sequence[Expectation]]

ROW_CHECKS: dict[str, CheckFunction] = {}
SET_CHECKS: dict[str, CheckFunction] = {}


def row_check(function: CheckFunction) -> CheckFunction:
    """Add a check of single pairs under the function's name. Raises ValueError where the name is taken."""
    return _register(ROW_CHECKS, function)


def set_check(function: CheckFunction) -> CheckFunction:
    """Add a check of the accepted pairs as a whole under the function's name. Raises ValueError where it is taken."""
    return _register(SET_CHECKS, function)


def row_suite(config: ValidationConfig) -> ExpectationSuite:
    """Every row check, of severity WARNING unless the check sets its own."""
    return _suite("pairs: rows", ROW_CHECKS, config, FailureSeverity.WARNING)


def set_suite(config: ValidationConfig) -> ExpectationSuite:
    """Every set check, of severity CRITICAL unless the check sets its own; only a critical one stops the run."""
    return _suite("pairs: set", SET_CHECKS, config, FailureSeverity.CRITICAL)


def bound(config: ValidationConfig, low: str = "", high: str = "") -> dict[str, str]:
    """The `meta` of an expectation whose bounds are the config's fields `low` and `high`, either left out."""
    ends = [(word, name) for word, name in (("at least", low), ("at most", high)) if name]
    return {"bound": " and ".join(f"{word} validation.{name} = {getattr(config, name)}" for word, name in ends)}


def figure_within(config: ValidationConfig, figure: str, low: str = "", high: str = "") -> Expectation:
    """Expect a figure of the set to keep the bounds in the config's fields `low` and `high`, either left out."""
    return gxe.ExpectColumnMaxToBeBetween(
        column=figure,
        min_value=getattr(config, low) if low else None,
        max_value=getattr(config, high) if high else None,
        meta=bound(config, low, high),
    )


def _register(registry: dict[str, CheckFunction], function: CheckFunction) -> CheckFunction:
    name = function.__name__
    if name in registry:
        raise ValueError(f"the check `{name}` is registered twice: give the second function another name")
    registry[name] = function
    return function


def _require_installed() -> None:
    """Import the checks of other packages. Raises ConfigError for an entry point that is no check."""
    for name in EXPECTATIONS.all():
        if name not in ROW_CHECKS and name not in SET_CHECKS:
            package = EXPECTATIONS.origin(name).package
            raise ConfigError(
                f"{name!r} of the expectations: {package} registers no check of this name; decorate a function "
                f"`{name}` with `row_check` or `set_check` of `expectations.suites`, and name it in the entry point"
            )


def _suite(
    title: str, registry: dict[str, CheckFunction], config: ValidationConfig, severity: FailureSeverity
) -> ExpectationSuite:
    _require_installed()
    suite = ExpectationSuite(name=title)
    for name, function in registry.items():
        built = function(config)
        for expectation in built if isinstance(built, Sequence) else [built]:
            expectation.meta = {"bound": "", **(expectation.meta or {}), "name": name}
            if "severity" not in expectation.__fields_set__:
                expectation.severity = severity
            suite.expectations.append(expectation)
    return suite


@row_check
def complete(_: ValidationConfig) -> Expectation:
    """No column of the pair is null; the log-probs of the sampler may be, and the scores of a pair without any."""
    return custom.ExpectRowsToBeComplete(column_list=list(REQUIRED), meta={"bound": "without nulls"})


@row_check
def finite_scores(_: ValidationConfig) -> Expectation:
    """Both scores are finite numbers, where the pair has scores."""
    return custom.ExpectNumbersToBeFinite(
        column_list=["chosen_score", "rejected_score"], meta={"bound": "finite", "needs": "scores"}
    )


@row_check
def score_gap(config: ValidationConfig) -> Expectation:
    """The chosen score exceeds the rejected one by enough, or the margin that was given is wide enough."""
    return custom.ExpectGapToBeAtLeast(
        column_list=list(SCORES), min_gap=config.min_gap, meta=bound(config, low="min_gap") | {"needs": "gap"}
    )


@row_check
def completion_tokens(config: ValidationConfig) -> list[Expectation]:
    """Both completions are neither too short nor too long, in tokens."""
    return _lengths(config, "tokens", "min_tokens", "max_tokens")


@row_check
def text_chars(config: ValidationConfig) -> list[Expectation]:
    """Both texts, prompt included, are neither too short nor too long, in characters."""
    return _lengths(config, "chars", "min_chars", "max_chars")


@row_check
def length_ratio(config: ValidationConfig) -> Expectation:
    """Neither completion is many times as long as the other, in tokens."""
    return custom.ExpectLengthRatioToBeAtMost(
        column_list=["chosen_tokens", "rejected_tokens"],
        max_ratio=config.max_length_ratio,
        meta=bound(config, high="max_length_ratio"),
    )


@row_check
def starts_with_prompt(_: ValidationConfig) -> Expectation:
    """Both texts begin with the prompt."""
    return custom.ExpectTextsToStartWithFirst(
        column_list=["prompt", "chosen", "rejected"], meta={"bound": "the prompt and a completion"}
    )


@row_check
def completions_differ(_: ValidationConfig) -> Expectation:
    """Chosen and rejected are not the same text, nor the same tokens."""
    return custom.ExpectCompletionsToDiffer(
        column_list=["chosen", "rejected", "chosen_ids", "rejected_ids"], meta={"bound": "unequal"}
    )


@row_check
def not_blank(_: ValidationConfig) -> Expectation:
    """Both completions hold more than white space."""
    return custom.ExpectTextsNotToBeBlankAfterFirst(
        column_list=["prompt", "chosen", "rejected"], meta={"bound": "not blank"}
    )


@row_check
def no_control_characters(_: ValidationConfig) -> Expectation:
    r"""Neither text holds a control character other than \n, \t and \r."""
    return custom.ExpectTextsWithoutControlCharacters(
        column_list=["chosen", "rejected"], meta={"bound": "without control characters but \\n, \\t and \\r"}
    )


@row_check
def whole_unicode(_: ValidationConfig) -> Expectation:
    """Neither text holds a character cut in two."""
    return custom.ExpectTextsOfWholeUnicode(
        column_list=["chosen", "rejected"], meta={"bound": "without U+FFFD and lone surrogates"}
    )


@set_check
def accepted_pairs(config: ValidationConfig) -> Expectation:
    """Enough pairs are left to train on."""
    return figure_within(config, "accepted_pairs", low="min_pairs")


@set_check
def quarantined_fraction(config: ValidationConfig) -> Expectation:
    """Not too many of the pairs broke a row check."""
    return figure_within(config, "quarantined_fraction", high="max_quarantined")


@set_check
def duplicate_fraction(config: ValidationConfig) -> Expectation:
    """Not too many of the pairs repeat another."""
    return figure_within(config, "duplicate_fraction", high="max_duplicates")


@set_check
def chosen_longer_fraction(config: ValidationConfig) -> Expectation:
    """Being longer hardly tells which text was chosen."""
    return figure_within(config, "chosen_longer_fraction", low="chosen_longer_min", high="chosen_longer_max")


@set_check
def length_correlation(config: ValidationConfig) -> Expectation:
    """The score is not a measure of length, in either direction."""
    most = config.max_length_correlation
    return gxe.ExpectColumnMaxToBeBetween(
        column="length_correlation",
        min_value=-most,
        max_value=most,
        meta={"bound": f"at most validation.max_length_correlation = {most} in size", "needs": "scores"},
    )


@set_check
def shared_prompts(_: ValidationConfig) -> Expectation:
    """No prompt of a pair is held out for the evaluation."""
    return gxe.ExpectColumnMaxToBeBetween(
        column="shared_prompts",
        max_value=0,
        meta={"bound": "0: leave prompts held out for the evaluation out"},
    )


@set_check
def distinct_prompts(config: ValidationConfig) -> Expectation:
    """The pairs come from enough prompts, told apart by their token ids."""
    return figure_within(config, "distinct_prompts", low="min_distinct_prompts")


def _lengths(config: ValidationConfig, unit: str, low: str, high: str) -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=f"{side}_{unit}",
            min_value=getattr(config, low),
            max_value=getattr(config, high),
            meta=bound(config, low, high),
        )
        for side in ("chosen", "rejected")
    ]
