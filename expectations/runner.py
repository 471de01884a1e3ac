"""Runs both suites over the pairs: rows that break a check are set apart, and the rest is judged as a set."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import groupby
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from alignment.config import ValidationConfig
from alignment.data.preferences import FAULTS
from alignment.errors import ValidationError
from expectations.columns import REQUIRED, TEXT
from expectations.summary import summarise
from expectations.verdict import Check, Validation

Judged: TypeAlias = tuple[Check, str]  # a check's result, and what of the pairs it needs

_ROW = "_row"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def validate(pairs: pd.DataFrame, config: ValidationConfig, eval_prompt_ids: Collection[str]) -> Validation:
    """Judge every pair by the row suite and the accepted ones by the set suite; nothing is dropped.

    `pairs` has one row a pair: texts (`chosen` and `rejected` begin with `prompt`), token ids (of the completion
    alone for `chosen_ids`, `rejected_ids`), scores in units of the reward and lengths in tokens. `eval_prompt_ids`
    are the prompts held out for the evaluation. Both frames of the result are numbered anew, in the pairs' order.
    A row with a `fault` gave no pair: it is quarantined under that name, and no other check judges it.

    A failed set check does not raise here: `Validation.require` does, once the result is written.
    Raises ValidationError where there are no pairs, a column is missing, a pair id comes twice, or a check
    could not be evaluated.
    """
    _require_usable(pairs)
    from expectations.suites import row_suite, set_suite

    faults = pairs["fault"].fillna("").tolist() if "fault" in pairs else [""] * len(pairs)
    sound = pairs[[not fault for fault in faults]]
    row_results = _evaluate(_row_frame(sound), row_suite(config))
    row_checks, found = _judge_rows(row_results, len(sound))
    of_sound = iter(found)
    broken = [[fault] if fault else next(of_sound) for fault in faults]
    bad = np.array([bool(names) for names in broken])
    accepted = pairs[~bad].reset_index(drop=True)
    quarantined = pairs[bad].reset_index(drop=True)
    quarantined["broken"] = pd.Series([names for names in broken if names], dtype=object)

    figures = summarise(accepted, len(quarantined), eval_prompt_ids)
    set_checks = _judge_set(_evaluate(_set_frame(accepted, figures), set_suite(config)))
    has = {"scores": bool(sound["chosen_score"].notna().any()), "gap": bool(sound["gap"].notna().any())}
    checks = [check.model_copy(update=_not_applied(needs, has)) for check, needs in (*row_checks, *set_checks)]
    return Validation(accepted, quarantined, (*_of_faults(faults), *checks), figures)


def _of_faults(faults: list[str]) -> list[Check]:
    """A check for each fault that some row has, most frequent first."""
    return [
        Check(
            name=name,
            scope="row",
            severity="warning",
            observed=rows,
            bound=FAULTS.get(name, ""),
            passed=False,
            failed_rows=rows,
        )
        for name, rows in Counter(filter(None, faults)).most_common()
    ]


def _not_applied(needs: str, has: dict[str, bool]) -> dict[str, Any]:
    """What of a check's result is other because no pair has what it needs."""
    if has.get(needs, True):
        return {}
    return {"passed": True, "observed": 0.0, "failed_rows": 0, "not_applied": f"no {needs}"}


def _require_usable(pairs: pd.DataFrame) -> None:
    if pairs.empty:
        raise ValidationError("pairs: there are none to validate; sample more, or see why none was made")
    missing = [name for name in REQUIRED if name not in pairs]
    if missing:
        raise ValidationError(f"pairs: the columns {', '.join(missing)} are missing from {', '.join(map(str, pairs))}")
    ids = pairs["pair_id"].dropna()
    if ids.duplicated().any():
        raise ValidationError(f"pairs: pair_id {ids[ids.duplicated()].iloc[0]} comes more than once; make ids unique")


def _row_frame(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs as the row suite sees them: numbered, with lengths in characters, and text that can be hashed.

    Great Expectations fingerprints the frame and fails on a lone surrogate, so U+FFFD, equally broken, stands for it.
    """
    frame = pairs.reset_index(drop=True)
    for name in TEXT:
        frame[name] = frame[name].astype(object).map(_mark_surrogates)
    for side in ("chosen", "rejected"):
        texts = frame[side]
        frame[f"{side}_chars"] = [len(text) if isinstance(text, str) else np.nan for text in texts]
    return frame.assign(**{_ROW: np.arange(len(frame))})


def _mark_surrogates(value: Any) -> Any:
    return _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def _set_frame(accepted: pd.DataFrame, figures: dict[str, float]) -> pd.DataFrame:
    """The accepted pairs with each figure as a constant column; one blank row where none was accepted."""
    rows = accepted if len(accepted) else accepted.reindex([0])
    return rows.assign(**figures, **{_ROW: np.arange(len(rows))})


def _evaluate(frame: pd.DataFrame, suite: Any) -> list[Any]:
    """Great Expectations' results in the suite's order. Raises ValidationError where one could not be evaluated."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False, "profilers": False}
    asset = context.data_sources.add_pandas("pairs").add_dataframe_asset("pairs")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    results = batch.validate(
        suite,
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [_ROW],
            "exclude_unexpected_values": True,
            "include_unexpected_rows": False,
            "return_unexpected_index_query": False,
        },
    ).results
    for result in results:
        for raised in _exceptions(result.exception_info):
            raise ValidationError(
                f"pairs: the check `{_name(result)}` could not be evaluated: {' '.join(raised.split())}"
            )
    names = [expectation.meta["name"] for expectation in suite.expectations]
    return sorted(results, key=lambda result: names.index(_name(result)))


def _exceptions(info: dict[str, Any] | None) -> Iterable[str]:
    """Messages of what an expectation raised; Great Expectations reports them flat, or one a metric."""
    infos = [info] if info and "raised_exception" in info else (info or {}).values()
    return (str(each["exception_message"]) for each in infos if each["raised_exception"])


def _judge_rows(results: list[Any], rows: int) -> tuple[list[Judged], list[list[str]]]:
    """The checks, each over its expectations together, and for each row the names of those that it broke."""
    checks: list[Judged] = []
    broken: list[list[str]] = [[] for _ in range(rows)]
    for name, group in groupby(results, key=_name):
        ours = list(group)
        failing = set().union(*map(_failing_rows, ours))
        if not failing and not all(result.success for result in ours):
            raise ValidationError(f"pairs: the row check `{name}` fails but names no row; register it as a set check")
        check = _check(ours[0], "row", observed=len(failing), passed=not failing, failed_rows=len(failing))
        checks.append((check, _needs(ours[0])))
        for row in failing:
            broken[row].append(name)
    return checks, broken


def _judge_set(results: list[Any]) -> list[Judged]:
    checks: list[Judged] = []
    for result in results:
        failing = len(_failing_rows(result))
        figure = result.result.get("observed_value")
        observed = float(figure) if isinstance(figure, int | float | np.number) else failing
        check = _check(result, "set", observed=observed, passed=bool(result.success), failed_rows=failing)
        checks.append((check, _needs(result)))
    return checks


def _check(result: Any, scope: Literal["row", "set"], *, observed: float, passed: bool, failed_rows: int) -> Check:
    return Check(
        name=_name(result),
        scope=scope,
        severity=str(result.expectation_config.severity.value),
        observed=observed,
        bound=result.expectation_config.meta["bound"],
        passed=passed,
        failed_rows=failed_rows,
    )


def _needs(result: Any) -> str:
    return str(result.expectation_config.meta.get("needs", ""))


def _name(result: Any) -> str:
    return str(result.expectation_config.meta["name"])


def _failing_rows(result: Any) -> set[int]:
    return {int(row) for entry in result.result.get("unexpected_index_list") or [] for row in entry[_ROW]}
