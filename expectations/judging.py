"""Both suites over the pairs, shard by shard: rows that break a check are set apart, the rest is judged as a set.

    judge = Judge(config, eval_prompt_ids, read)
    for shard in shards:
        split = judge.split(shard)
        judge.accept(shard[split.accepted])
    verdict = judge.verdict(read_accepted)

Where the shards are cut decides nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation

from alignment.config import ValidationConfig
from alignment.data.preferences import FAULTS
from alignment.errors import ValidationError
from expectations import arrays
from expectations.arrays import Bools
from expectations.evaluation import Evaluator, Group, failing_rows, grouped, name_of
from expectations.suites import row_suite, set_suite
from expectations.summary import Summary
from expectations.verdict import Check, Verdict

Read = Callable[[Sequence[str] | None], pd.DataFrame]
"""Reads those of some columns that there are, or every one for None, of a whole set in the pairs' order."""


@dataclass(frozen=True)
class Split:
    """Which pairs of a shard are accepted, and for each that is not the names of the row checks that it broke."""

    accepted: Bools
    broken: list[list[str]]


class Judge:
    """The suites of a configuration, and what they found of the shards that came so far."""

    def __init__(self, config: ValidationConfig, eval_prompt_ids: Collection[str], read: Read) -> None:
        """`eval_prompt_ids` are held out; `read` reads all pairs that will come, for checks that compare rows."""
        self._evaluator = Evaluator()
        self._row_suite, self._set_suite = row_suite(config).expectations, set_suite(config).expectations
        groups = grouped(self._row_suite)
        self._alone = [group for group in groups if group.alone]
        self._summary = Summary(eval_prompt_ids)
        self._has = {"scores": False, "gap": False}
        self._faults: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._failed = dict.fromkeys(map(_name, self._row_suite), 0)
        self._unsuccessful: set[str] = set()
        self._sound = self._quarantined = 0
        self._compared = [self._compare(group, read) for group in groups if not group.alone]

    def split(self, shard: pd.DataFrame) -> Split:
        """Judge the pairs of the next shard one by one."""
        faults = _faults(shard)
        whole = np.asarray(faults == "", bool)
        sound = shard if whole.all() else shard[whole]
        failing = self._failing(self._alone, sound)
        for compared in self._compared:
            failing |= compared[self._sound : self._sound + len(sound)]
        accepted = whole.copy()
        accepted[whole] = ~failing.any(axis=1)
        names = _names(list(self._failed), failing[~accepted[whole]])
        split = Split(accepted, [[fault] if fault else next(names) for fault in faults[~accepted]])

        self._has["scores"] |= bool(sound["chosen_score"].notna().any())
        self._has["gap"] |= bool(sound["gap"].notna().any())
        for name, rows in zip(self._failed, failing.sum(axis=0), strict=True):
            self._failed[name] += int(rows)
        self._faults.update(faults[~whole])
        self._reasons.update(name for broken in split.broken for name in broken)
        self._quarantined += len(split.broken)
        self._sound += len(sound)
        return split

    def accept(self, accepted: pd.DataFrame) -> None:
        """Take the accepted pairs of that shard."""
        self._summary.add(accepted)

    def verdict(self, read: Read) -> Verdict:
        """What was found of all shards; `read` reads accepted pairs, for checks that look at more than figures.

        Raises ValidationError where a row check failed and no row failed it.
        """
        figures = self._summary.figures(self._quarantined)
        checks = [*self._fault_checks(), *self._row_checks(), *self._set_checks(figures, read)]
        return Verdict(tuple(checks), figures, dict(self._reasons))

    def _compare(self, group: Group, read: Read) -> Bools:
        """Which sound pairs of the whole set fail the checks of a group that compares rows, shape [pairs, checks]."""
        columns = group.columns or ()
        texts = (name.removesuffix("_chars") for name in columns)
        rows = read(list(dict.fromkeys(["fault", *columns, *texts])) if columns else None)
        return self._failing([group], rows[_faults(rows) == ""])

    def _failing(self, groups: Sequence[Group], sound: pd.DataFrame) -> Bools:
        """Which sound pairs fail which row checks by the expectations of some groups, shape [pairs, checks]."""
        failing = np.zeros((len(sound), len(self._failed)), bool)
        names = list(self._failed)
        rows = _with_chars(sound.reset_index(drop=True))
        for group in groups if len(sound) else ():
            for result in self._evaluator.evaluate(group.frame(rows), group.expectations):
                failing[failing_rows(result), names.index(name_of(result))] = True
                if not result.success:
                    self._unsuccessful.add(name_of(result))
        return failing

    def _fault_checks(self) -> Iterator[Check]:
        """A check for each fault that some row has, most frequent first."""
        for name, rows in self._faults.most_common():
            yield Check(
                name=name,
                scope="row",
                severity="warning",
                observed=rows,
                bound=FAULTS.get(name, ""),
                passed=False,
                failed_rows=rows,
            )

    def _row_checks(self) -> Iterator[Check]:
        """The checks, each over its expectations together."""
        first = {_name(expectation): expectation for expectation in reversed(self._row_suite)}
        for name, rows in self._failed.items():
            if not rows and name in self._unsuccessful:
                raise ValidationError(
                    f"pairs: the row check `{name}` fails but names no row; register it as a set check"
                )
            yield self._check(first[name], "row", observed=rows, passed=not rows, failed_rows=rows)

    def _set_checks(self, figures: dict[str, float], read: Read) -> Iterator[Check]:
        """The checks, one for each expectation."""
        of_figures = [each for each in self._set_suite if _bounds_figure(each, figures)]
        others = [each for each in self._set_suite if not _bounds_figure(each, figures)]
        results = self._evaluator.evaluate(pd.DataFrame(figures, index=[0]), of_figures)
        for group in grouped(others):
            frame = _with_figures(group, figures, read)
            results.extend(self._evaluator.evaluate(group.frame(frame), group.expectations))
        names = [_name(expectation) for expectation in self._set_suite]
        for result in sorted(results, key=lambda result: names.index(name_of(result))):
            failing = len(failing_rows(result))
            figure = result.result.get("observed_value")
            observed = float(figure) if isinstance(figure, int | float | np.number) else failing
            yield self._check(
                result.expectation_config, "set", observed=observed, passed=bool(result.success), failed_rows=failing
            )

    def _check(
        self, expectation: Any, scope: Literal["row", "set"], *, observed: float, passed: bool, failed_rows: int
    ) -> Check:
        check = Check(
            name=_name(expectation),
            scope=scope,
            severity=str(expectation.severity.value),
            observed=observed,
            bound=expectation.meta["bound"],
            passed=passed,
            failed_rows=failed_rows,
        )
        needs = str(expectation.meta.get("needs", ""))
        if self._has.get(needs, True):
            return check
        return check.model_copy(
            update={"passed": True, "observed": 0.0, "failed_rows": 0, "not_applied": f"no {needs}"}
        )


def _name(expectation: Any) -> str:
    return str(expectation.meta["name"])


def _faults(rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.object_]]:
    """The fault of each row, empty where it gave a pair."""
    return rows["fault"].fillna("").to_numpy(object) if "fault" in rows else np.full(len(rows), "", object)


def _with_chars(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the lengths of their texts in characters, NaN where there is no text."""
    sides = [side for side in ("chosen", "rejected") if side in rows]
    return rows.assign(**{f"{side}_chars": arrays.chars(rows[side]) for side in sides})


def _names(checks: list[str], failing: Bools) -> Iterator[list[str]]:
    """For each row of [rows, checks] the names of the checks that it fails."""
    patterns, of_row = np.unique(failing, axis=0, return_inverse=True)
    broken = [[checks[at] for at in np.flatnonzero(pattern)] for pattern in patterns]
    return (list(broken[number]) for number in of_row)


def _bounds_figure(expectation: Expectation, figures: dict[str, float]) -> bool:
    """Whether an expectation needs one row alone: the greatest of a constant column."""
    return type(expectation) is gxe.ExpectColumnMaxToBeBetween and expectation.column in figures


def _with_figures(group: Group, figures: dict[str, float], read: Read) -> pd.DataFrame:
    """The accepted pairs with each figure as a constant column; one blank row where none was accepted."""
    columns = list(figures) if group.columns is None else [name for name in group.columns if name in figures]
    pairs = int(figures["accepted_pairs"])
    others = None if group.columns is None else [name for name in group.columns if name not in figures]
    rows = pd.DataFrame(index=range(pairs)) if others == [] else read(others)
    return rows.reindex(range(max(pairs, 1))).assign(**{name: figures[name] for name in columns})
