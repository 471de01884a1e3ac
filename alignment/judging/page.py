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
from alignment.judging.card import notes, result_rows
from alignment.judging.differences import differences
from alignment.judging.formats import NONE, duration, signed
from alignment.judging.links import is_link
from alignment.judging.report import SampleRow
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


def compare_page(one: Run, two: Run) -> str:
    """The page of two runs, A and B; what keeps them from being compared is said first.

    Raises InputError where both are the same run.
    """
    if one.id == two.id:
        raise InputError(f"compare: both are run {one.id} ({one.title}); name two different runs or versions")
    both = sections.same_prompts(one.samples, two.samples)
    first = _first(both, lambda pair: (*sections.texts(pair[0]), sections.texts(pair[1])[2]))
    return _fitting(
        [_sample_beside(number, *pair) for number, pair in enumerate(first, start=1)],
        lambda rows: render(
            "compare.html",
            a=one,
            b=two,
            warnings=incomparable(one, two),
            tiles=_tiles_beside(one, two),
            figures=figures_beside(one, two),
            gates=_gates_beside(one, two),
            curves=sections.curves_beside(one.curves, two.curves),
            settings=sections.settings_beside(one, two),
            samples=rows,
            recorded=len(both),
        ),
    )


def incomparable(one: Run, two: Run) -> list[str]:
    """What two runs do not share that a comparison of their figures takes for granted, each in a sentence."""
    told = {
        "reward": "They were scored by different rewards: gains, wins and spreads are in different units, and do not "
        "compare.",
        "base": "Their base models differ, so each change is a change from another model.",
    }
    found = [sentence for stage, sentence in told.items() if _differs(one, two, stage)] + _other_prompts(one, two)
    differing = {name for name, _, _ in sections.settings_beside(one, two)}
    if sampling := sorted(name for name in differing if name.startswith("sampling.") and name not in NOT_TEXTS):
        found.append(f"Their texts were written with different settings of the sampling: {', '.join(sampling)}.")
    if one.report.has_reward != two.report.has_reward:
        found.append("One of them had a reward, the other had none: only what needs no reward compares.")
    return found


NOT_TEXTS = {"sampling.batch_tokens", "sampling.shard_prompts"}
"""Settings of the sampling that change no text."""


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


def _sample_beside(number: int, one: SampleRow, two: SampleRow) -> Mapping[str, Any]:
    prompt, base, first = sections.texts(one)
    _, other, second = sections.texts(two)
    compared = differences(first, second)
    bases = [("Base", sections.side(base, one.base_reward))]
    if other != base:
        bases = [("Base of A", bases[0][1]), ("Base of B", sections.side(other, two.base_reward))]
    rewards = one.aligned_reward, two.aligned_reward
    gain = sections.change(*rewards)
    return {
        "number": number,
        "prompt": prompt[: sections.MAX_TEXT],
        "earlier": sections.earlier_turns(one),
        "sides": [
            *bases,
            ("A", sections.side(first, rewards[0], compared.before)),
            ("B", sections.side(second, rewards[1], compared.after)),
        ],
        "gain": gain,
        "gained": "" if gain is None else signed(gain),
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


def _differs(one: Run, two: Run, stage: str) -> bool:
    """Whether a stage had another result; where a record has no lineage, whether its settings differ."""
    digests = [run.stages[stage].digest if stage in run.stages else None for run in (one, two)]
    if None not in digests:
        return digests[0] != digests[1]
    return any(name.startswith(f"{stage}.") for name, _, _ in sections.settings_beside(one, two))


def _other_prompts(one: Run, two: Run) -> list[str]:
    """What is known of whether the held-out prompts differ: of those that were set apart, not all may be recorded.

    The stage has the prompts of the training as well, so another result of it may have the same held-out ones.
    """
    if not _differs(one, two, "prompts"):
        return []
    held = [sorted(map(repr, map(sections.identity, run.samples))) for run in (one, two)]
    all_recorded = all(len(run.samples) == run.report.prompts for run in (one, two))
    if all_recorded and held[0] == held[1]:
        return []
    differ = all_recorded or one.report.prompts != two.report.prompts
    return [
        f"They {'were' if differ else 'may have been'} judged on different held-out prompts: "
        "a difference may be one of the prompts."
    ]


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
