"""What the recorded runs prove: bounds chosen on one half of the seeds, and what they catch on the other."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.gates.criteria import ALL, GATE, Bounds, Choice, chosen, criteria, todays
from benchmarks.gates.grid import DATA, HALVES, Half
from benchmarks.gates.rows import Row, flat
from benchmarks.gates.table import Count, count, lines, missed, wrong
from benchmarks.gates.truth import CLASSES, Class, class_of, disorder

TITLES: dict[Half, str] = {
    "test": "Seeds that no bound was chosen on",
    "choose": "Seeds that the bounds were chosen on",
}


def line(row: Row) -> str:
    """A run in a line: what became of it, and what the gates read."""
    read = ", ".join(
        f"{name.removeprefix(GATE)} {value:.3f}" for name, value in row.figures.items() if name.startswith(GATE)
    )
    return f"{row.run.name}: {class_of(row)} ({disorder(row):.3f}); {read}"


def half_of(rows: Sequence[Row], half: Half) -> list[Row]:
    """The runs of one half."""
    return [row for row in rows if row.run.half == half]


def bounds_of(rows: Sequence[Row]) -> tuple[dict[str, Choice], Bounds]:
    """What was chosen on the choosing half, and every bound with it; the others are the configuration's."""
    today = todays()
    found = chosen(half_of(rows, "choose"), today)
    return found, today | {name: choice.bound for name, choice in found.items()}


def counts(rows: Sequence[Row], bounds: Bounds) -> dict[str, dict[Class, Count]]:
    """What each criterion gets right."""
    return {name: count(rows, passes) for name, passes in criteria(bounds).items()}


def text(rows: Sequence[Row]) -> Iterator[str]:
    """The whole report, line by line."""
    choices, bounds = bounds_of(rows)
    yield f"{len(rows)} runs. The gate grammatical_drop is left out: the grammar's classes are made of what it reads."
    yield ""
    yield from made_of(rows)
    yield ""
    yield "Bounds chosen: outermost good run, first bad run beyond it, and bad runs beyond."
    yield from (told(name, choice) for name, choice in choices.items())
    for half, title in TITLES.items():
        of_half = half_of(rows, half)
        yield f"\n## {title}: {len(of_half)} runs\n"
        yield from lines(counts(of_half, bounds))
    yield ""
    yield from verdict(half_of(rows, "test"), bounds)


def made_of(rows: Sequence[Row]) -> Iterator[str]:
    """How many runs of each class there are, by half and data."""
    for half in HALVES:
        for data in DATA:
            found = Counter(class_of(row) for row in half_of(rows, half) if row.run.data == data)
            yield f"{half}, {data}: " + ", ".join(f"{found[name]} {name}" for name in CLASSES)


def told(name: str, choice: Choice) -> str:
    """A chosen bound in a line."""
    beyond = "no bad run beyond" if choice.next_bad is None else f"first bad {choice.next_bad:.3f}"
    return f"- {name} {choice.bound:.3f}: worst good {choice.worst_good:.3f}, {beyond}, {choice.refused}/{choice.bad}"


def verdict(rows: Sequence[Row], bounds: Bounds) -> Iterator[str]:
    """The targets that all gates miss, and the runs that they get wrong."""
    passes = criteria(bounds)[ALL]
    short = missed(count(rows, passes))
    yield "All gates meet every target." if not short else "Targets missed: " + "; ".join(short) + "."
    for row in wrong(rows, passes):
        yield f"- {'refused' if class_of(row) == 'good' else 'passed'} though {line(row)}"


def as_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The same as values."""
    choices, bounds = bounds_of(rows)
    return {
        "bounds": dict(bounds),
        "chosen": {name: asdict(choice) for name, choice in choices.items()},
        "counts": {half: _counts(half_of(rows, half), bounds) for half in HALVES},
        "runs": [flat(row) | {"half": row.run.half, "class": class_of(row), "disorder": disorder(row)} for row in rows],
    }


def _counts(rows: Sequence[Row], bounds: Bounds) -> Mapping[str, Any]:
    return {
        name: {each: {**asdict(of), "interval": of.interval} for each, of in found.items()}
        for name, found in counts(rows, bounds).items()
    }
