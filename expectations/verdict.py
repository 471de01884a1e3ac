"""What validation found: each check's result, the pairs split in two, and the verdict on the set."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from alignment.errors import ValidationError


class Check(BaseModel):
    """The result of one check, over all its expectations.

    `observed` is the number of failing rows for a row check and the figure itself for a set check; `bound` says in
    words what it must be, with the field of the config that sets it; `severity` is "critical", "warning" or "info".
    `not_applied` says why the check was not applied, where it was not: it then passes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scope: Literal["row", "set"]
    severity: str
    observed: float
    bound: str
    passed: bool
    failed_rows: int
    not_applied: str = ""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was found of the pairs: each check's result, and the figures of the accepted ones (`expectations.figures`).

    `reasons` are the checks that quarantined pairs broke, and how many broke each.
    """

    checks: tuple[Check, ...]
    figures: dict[str, float]
    reasons: Mapping[str, int]

    @property
    def problem(self) -> str:
        """Why the pairs cannot be trained on, in one line: each failed figure, its bound and its field; "" if they can.

        Critical set checks alone count, and that every pair was quarantined.
        """
        if not self.figures["accepted_pairs"]:
            return (
                f"pairs: every one of the {self.figures['quarantined_pairs']:.0f} pairs was quarantined "
                f"({self._most_often()}); look at the quarantined rows, or move the bounds under `validation`"
            )
        failed = [c for c in self.checks if c.scope == "set" and c.severity == "critical" and not c.passed]
        return f"pairs: {'; '.join(map(self._explain, failed))}" if failed else ""

    def require(self) -> None:
        """Raise ValidationError with `problem` as its message, if there is one."""
        if self.problem:
            raise ValidationError(self.problem)

    def _explain(self, check: Check) -> str:
        text = f"{check.name.replace('_', ' ')} {check.observed:.6g}"
        text += f", must be {check.bound}" if check.bound else " fails its check"
        of_rows = check.name in ("accepted_pairs", "quarantined_fraction")
        return f"{text} ({self._most_often()})" if of_rows and self.reasons else text

    def _most_often(self) -> str:
        most = Counter(self.reasons).most_common(3)
        often = [f"{name}, {rows} row{'s' if rows > 1 else ''}" for name, rows in most]
        return f"most often: {', '.join(often)}"


@dataclass(frozen=True, eq=False)
class Validation(Verdict):
    """A verdict with the pairs of a frame split into accepted and quarantined, in their order.

    `quarantined` has a further column `broken`: the names of the row checks that the pair failed, in the suite's order.
    """

    accepted: pd.DataFrame
    quarantined: pd.DataFrame
