"""What the recorded runs prove: bounds chosen on one half of the seeds, and what they catch on the other."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.gates.criteria import ALL, GATE, READ_THE_TRUTH, Bounds, Choice, chosen, criteria, todays
from benchmarks.gates.grid import DATA, HALVES, Half
from benchmarks.gates.rows import Row, flat
from benchmarks.gates.table import Count, count, lines, missed, wrong
from benchmarks.gates.truth import CLASSES, Class, by, class_of, signals

TITLES: dict[Half, str] = {
    "test": "Seeds that no bound was chosen on",
    "choose": "Seeds that the bounds were chosen on",
}


def line(row: Row) -> str:
    """A run in a line: what became of it, and what the gates read."""
    read = ", ".join(
        f"{name.removeprefix(GATE)} {value:.3f}" for name, value in row.figures.items() if name.startswith(GATE)
    )
    said = ", ".join(f"{name} {value:.3f}" for name, value in signals(row).items())
    return f"{row.run.name}: {class_of(row)} ({said}); {read}; distinct 3-grams ×{row.get('distinct_3_ratio'):.2f}"


def half_of(rows: Sequence[Row], half: Half) -> list[Row]:
    """The runs of one half."""
    return [row for row in rows if row.run.half == half]


def bounds_of(rows: Sequence[Row]) -> tuple[dict[str, Choice], Bounds]:
    """What was chosen on the choosing half, and every bound with it; the others are the configuration's."""
    today = todays()
    found = chosen(half_of(rows, "choose"), today)
    return found, today | {name: choice.bound for name, choice in found.items()}


def counts(rows: Sequence[Row], bounds: Bounds) -> dict[str, dict[Class, Count]]:
    """What each criterion gets right; where other bounds are configured, so do all gates with those."""
    several = criteria(bounds)
    if bounds != todays():
        several[f"{ALL}, as configured"] = criteria(todays())[ALL]
    return {name: count(rows, passes) for name, passes in several.items()}


def text(rows: Sequence[Row]) -> Iterator[str]:
    """The whole report, line by line."""
    choices, bounds = bounds_of(rows)
    yield f"{len(rows)} runs, without the gates that read what the classes are made of: {', '.join(READ_THE_TRUTH)}."
    yield ""
    yield from made_of(rows)
    yield agreement(rows)
    yield ""
    yield "Bounds, chosen one after the other, each on the runs that those before it let pass:"
    yield from (told(name, choice) for name, choice in choices.items())
    for half, title in TITLES.items():
        of_half = half_of(rows, half)
        yield f"\n## {title}: {len(of_half)} runs\n"
        yield from lines(counts(of_half, bounds))
        yield ""
        yield from verdict(of_half, bounds)


def made_of(rows: Sequence[Row]) -> Iterator[str]:
    """How many runs of each class there are, by half and data."""
    for half in HALVES:
        for data in DATA:
            found = Counter(class_of(row) for row in half_of(rows, half) if row.run.data == data)
            yield f"{half}, {data}: " + ", ".join(f"{found[name]} {name}" for name in CLASSES)


def agreement(rows: Sequence[Row]) -> str:
    """How far the real/fake judge, which has a say on reviews, is right where the parser knows."""
    known = [row for row in half_of(rows, "test") if row.run.data == "grammar"]
    said = [(by("told", row.get("told_after")), class_of(row)) for row in known]
    right, bad = (
        sum(one == other for one, other in said),
        sum((one == "good") == (other == "good") for one, other in said),
    )
    return (
        f"The real/fake judge on the grammar's unseen seeds: good or not as the parser says in {bad} of {len(said)} "
        f"runs, the very class in {right}."
    )


def told(name: str, choice: Choice) -> str:
    """A chosen bound in a line."""
    beyond = "none beyond" if choice.first_beyond is None else f"the first beyond at {choice.first_beyond:.3f}"
    return (
        f"- {name} {choice.bound:g}: the last run within it is at {choice.last_within:.3f}, {beyond}; it refuses "
        f"{choice.refused} of {choice.bad} bad runs, and {choice.good_refused} good ones"
    )


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
        "runs": [flat(row) | {"half": row.run.half, "class": class_of(row), **signals(row)} for row in rows],
    }


def _counts(rows: Sequence[Row], bounds: Bounds) -> Mapping[str, Any]:
    return {
        name: {each: {**asdict(of), "interval": of.interval} for each, of in found.items()}
        for name, found in counts(rows, bounds).items()
    }
