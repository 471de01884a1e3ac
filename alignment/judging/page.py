"""A run, or two beside each other, as one HTML page that needs no network: plain records in, a text out.

Every text of a run is escaped by the templates, which mark none as safe. The page's Content-Security-Policy allows its
own style sheet and its own script, by their hashes, and nothing else.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignment.errors import InputError
from alignment.judging import sections
from alignment.judging.beside import incomparable, paired
from alignment.judging.card import notes, result_rows
from alignment.judging.differences import differences
from alignment.judging.formats import NONE, duration, signed
from alignment.judging.links import is_link
from alignment.judging.paired import Beside, Paired
from alignment.judging.sections import Run

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 2_000_000  # of a page
MARKUP = 600  # bytes of a sample beside its texts, at least

T = TypeVar("T")


def report_page(run: Run) -> str:
    """The page of one run. Of very many or long samples the first ones stand in it, as many as keep it below 2 MB."""
    return _fitting(
        sections.samples(_first(run.samples, sections.texts)),
        lambda rows: render(
            "report.html",
            run=run,
            tiles=sections.tiles(run),
            figures=result_rows(run.report),
            notes=notes(run.report),
            gates=sections.gate_rows(run.judgement),
            curves=sections.curve_charts(run.curves),
            histograms=sections.histograms(run),
            pairs=_pairs(run),
            samples=rows,
            settings=sections.settings(run),
        ),
    )


def compare_page(one: Run, two: Run, found: Paired | None = None) -> str:
    """The page of two runs, A and B; what keeps them from being compared is said first.

    `found` is what to show of their samples in place of those that were recorded.

    Raises InputError where both are the same run.
    """
    if one.id == two.id:
        raise InputError(f"compare: both are run {one.id} ({one.title}); name two different runs or versions")
    found = found or paired(one, two)
    first = _first(
        _most_changed(found.samples), lambda row: (*sections.texts(row[1].one), sections.texts(row[1].two)[2])
    )
    return _fitting(
        [_sample_beside(number, row) for number, row in first],
        lambda rows: render(
            "compare.html",
            a=one,
            b=two,
            warnings=incomparable(one, two),
            paired=found,
            tiles=_tiles_beside(one, two),
            figures=figures_beside(one, two),
            gates=_gates_beside(one, two),
            curves=sections.curves_beside(one.curves, two.curves),
            settings=sections.settings_beside(one, two),
            samples=sorted(rows, key=lambda row: row["number"]),
            recorded=len(found.samples),
        ),
    )


def _most_changed(rows: Sequence[Beside]) -> list[tuple[int, Beside]]:
    """Samples with their numbers, those whose rewards differ most first: what a page keeps where it has no room."""
    return sorted(enumerate(rows, start=1), key=lambda row: -abs(row[1].gain or 0.0))


def figures_beside(one: Run, two: Run) -> list[tuple[str, str, str, str, str, str, str]]:
    """Each figure of either run: name, then base, aligned and change of the one and of the other."""
    rows = [{name: values for name, *values in result_rows(run.report)} for run in (one, two)]
    nothing = [NONE] * 3
    return [
        (name, *rows[0].get(name, nothing), *rows[1].get(name, nothing))  # type: ignore[misc]
        for name in dict.fromkeys([*rows[0], *rows[1]])
    ]


def _tiles_beside(one: Run, two: Run) -> list[tuple[str, list[Any]]]:
    """The headlines by their titles, each with A's tile and B's, None where one has none."""
    found = [
        {tile.headline.title: tile for tile in sections.tiles(run, other)} for run, other in ((one, two), (two, one))
    ]
    return [(title, [tiles.get(title) for tiles in found]) for title in dict.fromkeys([*found[0], *found[1]])]


def _gates_beside(one: Run, two: Run) -> list[tuple[str, list[Any]]]:
    found = [{row.name: row for row in sections.gate_rows(run.judgement)} for run in (one, two)]
    names = {row.name: row.label for rows in found for row in rows.values()}
    return [(label, [rows.get(name) for rows in found]) for name, label in names.items()]


def _sample_beside(number: int, row: Beside) -> Mapping[str, Any]:
    prompt, base, first = sections.texts(row.one)
    _, other, second = sections.texts(row.two)
    compared = differences(first, second)
    bases = [("Base", sections.side(base, row.one.base_reward))]
    if other != base:
        bases = [("Base of A", bases[0][1]), ("Base of B", sections.side(other, row.two.base_reward))]
    return {
        "number": number,
        "prompt": prompt[: sections.MAX_TEXT],
        "earlier": sections.earlier_turns(row.one),
        "sides": [
            *(bases if row.one.base else []),
            ("A", sections.side(first, row.one.aligned_reward, compared.before)),
            ("B", sections.side(second, row.two.aligned_reward, compared.after)),
        ],
        "gain": row.gain,
        "gained": "" if row.gain is None else signed(row.gain),
        "length": max(len(first), len(second)),
        "changed": compared.changed,
    }


def _pairs(run: Run) -> Mapping[str, Any]:
    """What became of the pairs, in counts that sum, and why those that were set apart were."""
    counts = run.stages["validation"].counts if "validation" in run.stages else {}
    made = run.stages["pairs"].counts if "pairs" in run.stages else {}
    failed = {check["name"]: check["failed_rows"] for check in run.checks if check["scope"] == "row"}
    return {
        "made": {name.replace("_", " "): count for name, count in made.items()},
        "accepted": counts.get("accepted"),
        "quarantined": counts.get("quarantined"),
        "built": counts.get("pairs"),
        "broken": run.drawn.get("broken"),
        "failed": {name: count for name, count in failed.items() if count},
    }


def _first(rows: Sequence[T], shown: Callable[[T], Iterable[str]]) -> Sequence[T]:
    """Those that a page could have room for, by the texts that it shows of each; only their texts are compared."""
    room = MAX_BYTES
    for number, row in enumerate(rows):
        room -= MARKUP + sum(min(len(text), sections.MAX_TEXT) for text in shown(row))
        if room < 0:
            return rows[:number]
    return rows


def _fitting(rows: Sequence[T], page: Callable[[Sequence[T]], str]) -> str:
    """The page with as many of the rows, from the first on, as it has room for."""
    kept = len(rows)
    while True:
        text = page(rows[:kept])
        size = len(text.encode())
        if size <= MAX_BYTES or not kept:
            return text
        kept = min(kept - 1, int(kept * 0.95 * MAX_BYTES / size))


def render(template: str, **values: Any) -> str:
    """A page of this template; every value is escaped."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["link"] = is_link
    made.filters["short"] = lambda digest: digest[: sections.SHORT]
    made.filters["figure"] = lambda value: f"{value:.4g}".replace("-", "−")
    made.filters["words"] = lambda name: name.replace("_", " ")
    made.globals["series"] = lambda chart: [line.values for line in chart.lines]
    made.filters["duration"] = duration
    made.globals["hash_of"] = lambda name: _hash(made.get_template(name).render())
    return made


def _hash(text: str) -> str:
    """What a Content-Security-Policy knows a style sheet or a script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
