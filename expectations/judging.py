"""Both suites over the pairs: rows that break a check are set apart, part by part, and the rest is judged as a set.

    judge = Judge(config, eval_prompt_ids, read)
    for shard in shards:
        split = judge.split(shard)
        judge.accept(shard[split.accepted])
    found = verdict(config, [judge.tally], read_accepted)

Neither where the parts are cut nor where their shards are decides anything.
"""

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
from expectations.figures import figures
from expectations.suites import row_suite, set_suite
from expectations.tally import Counts, Left, Tally, together
from expectations.verdict import Check, Verdict

Read = Callable[[Sequence[str] | None], pd.DataFrame]
"""Reads those of some columns that there are, or every one for None, of a whole set in the pairs' order."""


@dataclass(frozen=True)
class Split:
    """Which pairs of a shard are accepted, and for each that is not the names of the row checks that it broke."""

    accepted: Bools
    broken: list[list[str]]


class Judge:
    """The row suite of a configuration over the shards of a part, and what they leave: `tally`."""

    def __init__(self, config: ValidationConfig, eval_prompt_ids: Collection[str], read: Read) -> None:
        """`eval_prompt_ids` are held out; `read` reads all pairs that will come, for checks that compare rows."""
        self.tally = Tally(eval_prompt_ids)
        self._evaluator = Evaluator()
        suite = row_suite(config).expectations
        groups = grouped(suite)
        self._names = list(dict.fromkeys(map(_name, suite)))
        self._alone = [group for group in groups if group.alone]
        self._sound = 0
        self._compared = [self._compare(group, read) for group in groups if not group.alone]

    def split(self, shard: pd.DataFrame) -> Split:
        """Judge the pairs of the next shard one by one."""
        self.tally.take(shard)
        faults = _faults(shard)
        whole = np.asarray(faults == "", bool)
        sound = shard if whole.all() else shard[whole]
        failing = self._failing(self._alone, sound)
        for compared in self._compared:
            failing |= compared[self._sound : self._sound + len(sound)]
        accepted = whole.copy()
        accepted[whole] = ~failing.any(axis=1)
        names = _broken(self._names, failing[~accepted[whole]])
        split = Split(accepted, [[fault] if fault else next(names) for fault in faults[~accepted]])

        counts = self.tally.counts
        scored = sound["chosen_score"].notna().any()
        counts.has.update((["scores"] if scored else []) + (["gap"] if sound["gap"].notna().any() else []))
        counts.failed.update({name: int(rows) for name, rows in zip(self._names, failing.sum(axis=0), strict=True)})
        counts.faults.update(faults[~whole])
        counts.reasons.update(name for broken in split.broken for name in broken)
        counts.quarantined += len(split.broken)
        self._sound += len(sound)
        return split

    def accept(self, accepted: pd.DataFrame) -> None:
        """Take the accepted pairs of that shard."""
        self.tally.accept(accepted)

    def _compare(self, group: Group, read: Read) -> Bools:
        """Which sound pairs of the whole set fail the checks of a group that compares rows, shape [pairs, checks]."""
        columns = group.columns or ()
        texts = (name.removesuffix("_chars") for name in columns)
        rows = read(list(dict.fromkeys(["fault", *columns, *texts])) if columns else None)
        return self._failing([group], rows[_faults(rows) == ""])

    def _failing(self, groups: Sequence[Group], sound: pd.DataFrame) -> Bools:
        """Which sound pairs fail which row checks by the expectations of some groups, shape [pairs, checks]."""
        failing = np.zeros((len(sound), len(self._names)), bool)
        rows = _with_chars(sound.reset_index(drop=True))
        for group in groups if len(sound) else ():
            for result in self._evaluator.evaluate(group.frame(rows), group.expectations):
                failing[failing_rows(result), self._names.index(name_of(result))] = True
                if not result.success:
                    self.tally.counts.unsuccessful.add(name_of(result))
        return failing


def compares_rows(config: ValidationConfig) -> bool:
    """Whether some row check looks at other rows than its own, so that all pairs have to be one part."""
    return not all(group.alone for group in grouped(row_suite(config).expectations))


def verdict(config: ValidationConfig, parts: Sequence[Left], read: Read) -> Verdict:
    """What was found of the pairs of all parts, in order.

    `read` reads accepted pairs, for checks that look at more than figures. Raises ValidationError where a row check
    failed and no row failed it.
    """
    counts, found = together(parts), figures(parts)
    checks = [*_fault_checks(counts), *_row_checks(config, counts), *_set_checks(config, counts, found, read)]
    return Verdict(tuple(checks), found, dict(counts.reasons))


def _fault_checks(counts: Counts) -> Iterator[Check]:
    """A check for each fault that some row has, most frequent first."""
    for name, rows in counts.faults.most_common():
        yield Check(
            name=name,
            scope="row",
            severity="warning",
            observed=rows,
            bound=FAULTS.get(name, ""),
            passed=False,
            failed_rows=rows,
        )


def _row_checks(config: ValidationConfig, counts: Counts) -> Iterator[Check]:
    """The checks, each over its expectations together."""
    first = {_name(expectation): expectation for expectation in reversed(row_suite(config).expectations)}
    for name in dict.fromkeys(map(_name, row_suite(config).expectations)):
        rows = counts.failed[name]
        if not rows and name in counts.unsuccessful:
            raise ValidationError(f"pairs: the row check `{name}` fails but names no row; register it as a set check")
        yield _check(counts, first[name], "row", observed=rows, passed=not rows, failed_rows=rows)


def _set_checks(config: ValidationConfig, counts: Counts, figures: dict[str, float], read: Read) -> Iterator[Check]:
    """The checks, one for each expectation."""
    evaluator, suite = Evaluator(), set_suite(config).expectations
    of_figures = [each for each in suite if _bounds_figure(each, figures)]
    others = [each for each in suite if not _bounds_figure(each, figures)]
    results = evaluator.evaluate(pd.DataFrame(figures, index=[0]), of_figures)
    for group in grouped(others):
        frame = _with_figures(group, figures, read)
        results.extend(evaluator.evaluate(group.frame(frame), group.expectations))
    names = [_name(expectation) for expectation in suite]
    for result in sorted(results, key=lambda result: names.index(name_of(result))):
        failing = len(failing_rows(result))
        figure = result.result.get("observed_value")
        observed = float(figure) if isinstance(figure, int | float | np.number) else failing
        yield _check(
            counts,
            result.expectation_config,
            "set",
            observed=observed,
            passed=bool(result.success),
            failed_rows=failing,
        )


def _check(
    counts: Counts,
    expectation: Any,
    scope: Literal["row", "set"],
    *,
    observed: float,
    passed: bool,
    failed_rows: int,
) -> Check:
    needs = str(expectation.meta.get("needs", ""))
    applies = needs not in ("scores", "gap") or needs in counts.has
    return Check(
        name=_name(expectation),
        scope=scope,
        severity=str(expectation.severity.value),
        observed=observed if applies else 0.0,
        bound=expectation.meta["bound"],
        passed=passed or not applies,
        failed_rows=failed_rows if applies else 0,
        not_applied="" if applies else f"no {needs}",
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


def _broken(checks: list[str], failing: Bools) -> Iterator[list[str]]:
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
