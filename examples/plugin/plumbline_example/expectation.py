"""The check `few_exclamations`: a pair whose chosen text shouts is quarantined."""

from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation

from alignment.config import ValidationConfig
from expectations.suites import row_check


@row_check
def few_exclamations(config: ValidationConfig) -> Expectation:
    """The chosen text has few exclamation marks."""
    most = config.few_exclamations.most  # type: ignore[attr-defined] # a field that this package brings
    return gxe.ExpectColumnValuesToNotMatchRegex(
        column="chosen",
        regex=rf"(?s)(!.*){{{most + 1}}}",
        meta={"bound": f"at most validation.few_exclamations.most = {most} exclamation marks"},
    )
