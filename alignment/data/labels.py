"""The classes of a label column: which spellings mean one value, and whether a classifier can be trained on them."""

import re
from collections import Counter
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from alignment.config import DataConfig
from alignment.errors import ConfigError, DataError

UNLABELLED = -1

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TRUTH = {"true": Decimal(1), "false": Decimal(0)}
_SHOWN = 12  # values that a message names


class Labels(BaseModel):
    """What the label column holds among the usable texts: its values as they are spelt there, the commonest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    values: tuple[tuple[str, int], ...] = ()  # the first few of them, each with the number of its texts
    distinct: int = 0
    positive: int = 0
    negative: int = 0


def value(spelling: str) -> Decimal | str:
    """What a label means: `1`, `1.0`, `01` and `true` are one number; any other text is itself, without blanks around.

    Numbers are compared exactly, whatever their size.
    """
    text = spelling.strip()
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    return _TRUTH.get(text.casefold(), text)


class Classes:
    """Gives each spelling of a label its class, and counts the values that it was shown."""

    def __init__(self, config: DataConfig) -> None:
        """Without `data.negative_label`, what is not positive is negative; ConfigError where both are one value."""
        self.asked = bool(config.label_column)
        self._positive = value(config.positive_label)
        self._negative = value(config.negative_label) if config.negative_label.strip() else None
        self._values: dict[str, Decimal | str] = {}
        self._spellings: dict[Decimal | str, str] = {}
        self._counts: Counter[Decimal | str] = Counter()
        if self._positive == self._negative:
            raise ConfigError(
                f"data.negative_label = {config.negative_label}: means the same as data.positive_label = "
                f"{config.positive_label}; name another label, or none"
            )

    def of(self, spelling: str | None) -> int | None:
        """1 positive, 0 negative, -1 for neither, or where no labels are read; None where the label is missing."""
        if not self.asked:
            return UNLABELLED
        if spelling is None or not spelling.strip():
            return None
        found = self._values.get(spelling)
        if found is None:
            found = self._values[spelling] = value(spelling)
        self._counts[found] += 1
        self._spellings.setdefault(found, spelling.strip())
        if found == self._positive:
            return 1
        return 0 if self._negative in (None, found) else UNLABELLED

    def found(self) -> Labels:
        """The values so far."""
        positive = self._counts[self._positive]
        others = self._counts.total() - positive
        return Labels(
            values=tuple((self._spellings[found], count) for found, count in self._counts.most_common(_SHOWN)),
            distinct=len(+self._counts),
            positive=positive,
            negative=others if self._negative is None else self._counts[self._negative],
        )


def require_two_classes(labels: Labels, config: DataConfig) -> None:
    """Raise DataError unless the texts have both classes, and no label that is neither."""
    if not config.label_column:
        raise DataError(
            "data.label_column is empty, and reward.model = train needs labels: name the column that holds them, "
            "or give a reward model"
        )
    negative = bool(config.negative_label.strip())
    if not labels.positive:
        fault = f"data.positive_label = {config.positive_label}: no text has this label"
        remedy = "set data.positive_label to one of its values"
    elif not labels.negative and negative:
        fault = f"data.negative_label = {config.negative_label}: no text has this label"
        remedy = "set data.negative_label to one of its values"
    elif not labels.negative:
        fault = f"data.positive_label = {config.positive_label}: every text has this label"
        remedy = "a reward model is trained on two classes: add texts with another label, or give a reward model"
    elif labels.distinct > 2 and not negative:
        fault = f"data.label_column = {config.label_column}: {labels.distinct:,} values, and two are needed"
        remedy = (
            "set data.negative_label to the one that counts as negative (texts with neither label are then dropped, "
            "and counted), or give a reward model"
        )
    else:
        return
    shown = ", ".join(f"`{name[:40]}` ({count:,} texts)" for name, count in labels.values)
    more = ", …" if labels.distinct > len(labels.values) else ""
    raise DataError(f"{fault}; the column `{config.label_column}` of {config.path} holds {shown}{more}; {remedy}")
