"""Where a run is, in sentences: for its log, and for its page in Prefect."""

from collections.abc import Mapping

from alignment.judging.card import in_markdown, table
from alignment.judging.formats import about, duration
from tasks.progress import Event, Progress, StageProgress

COUNTS = {
    "copied": "copied",
    "eval": "held out",
    "kept": "kept",
    "not_needed": "not needed",
    "scored_in_part": "scored in part",
    "stopped_early": "stopped early",
    "train": "to train on",
    "used_before": "used by earlier rounds",
}
"""Counts whose names do not say enough behind a number."""

PARTS_OF = {("trainable_parameters", "all_parameters"): "of {:,} parameters trained"}
"""Counts that say something only as a part of another one, which is then told with them."""

ITEMS = {
    **dict.fromkeys(("samples", "scores", "reference_samples"), "prompts"),
    **dict.fromkeys(("before", "after"), "samples"),
    "reference": "log-probs",
}
"""What the progress of a stage counts, where it is not the steps of a training."""

FIGURES = {"loss": "loss", "rewards/margin": "margin"}
"""The columns of a training's metrics that are told on the way."""

STATES = {
    "waiting": "",
    "running": "**at work**",
    "queued": "**waits for a GPU slot**",
    "found": "found in the store",
    "computed": "done",
    "stopped": "**stopped**",
}


def counted(counts: Mapping[str, int]) -> str:
    """Counts in words, as in `2,048 samples, 590 finished`; those of none are left out."""
    others, told = dict(counts), []
    for (part, whole), words in PARTS_OF.items():
        if part in others and whole in others:
            told.append(f"{others.pop(part):,} {words.format(others.pop(whole))}")
    told += [f"{count:,} {COUNTS.get(name, name.replace('_', ' '))}" for name, count in others.items() if count]
    return ", ".join(told)


def place(progress: Progress, stage: StageProgress) -> str:
    """As in `stage 10 of 14: train policy`, of a sweep after `point 2 of 8, `."""
    number = list(progress.stages).index(stage.name) + 1
    of_stage = f"stage {number} of {len(progress.stages)}: {stage.title}"
    return ", ".join(filter(None, (progress.points.place, of_stage)))


def finished(progress: Progress, event: Event) -> str:
    """A finished stage, or part of one, in a line of the log."""
    name, _, part = event.stage.partition(" ")
    stage = progress.stages[name]
    ref = event.ref
    told = [] if ref is None else [counted(ref.counts) or "nothing to do"]
    if event.kind == "cached":
        told.append("found in the store")
    elif ref is not None:
        told.append(duration(ref.seconds))
    return f"{place(progress, stage)}{f', {part}' if part else ''}: {', '.join(told)}"


def at_work(progress: Progress) -> str:
    """The stage at work, as in `stage 10 of 14: train policy, step 120 of 150, loss 0.41, 2 min left`."""
    stage = progress.current
    if stage is None:
        return ""
    if all(each.state in {"found", "computed"} for each in progress.stages.values()):
        point = progress.points.place
        done = f"all {len(progress.stages)} stages{f' of {point}' if point else ''} are done"
        return f"{done}; {'its' if point else 'the'} result is recorded"
    if stage.state == "queued":
        return f"waits for a GPU slot{f': {stage.who}' if stage.who else ''}; {place(progress, stage)}"
    return ", ".join((place(progress, stage), *details(progress, stage), *_left(progress)))


def details(progress: Progress, stage: StageProgress) -> list[str]:
    """How far a stage is, its last figures, and its pace."""
    told = []
    items = "steps" if stage.trains else ITEMS.get(stage.name, "")
    if stage.total and stage.trains:
        told.append(f"step {stage.done:,} of {stage.total:,}")
    elif stage.total:
        told.append(f"{stage.done:,} of {stage.total:,}{f' {items}' if items else ''}")
    told += [f"{title} {stage.row[name]:.3g}" for name, title in FIGURES.items() if name in stage.row]
    rate = progress.rate()
    if rate is not None:
        told.append(f"{rate:,.{0 if rate >= 10 else 1 if rate >= 1 else 2}f} {items or 'items'} per second")
    return told


def _left(progress: Progress) -> list[str]:
    of_run, of_stage = progress.left(), progress.left_of_stage()
    if of_run is not None:
        return [f"{_to_come(of_run)} left"]
    return [] if of_stage is None else [f"{_to_come(of_stage)} left of this stage"]


def _to_come(seconds: float) -> str:
    """A time to come, no finer than it is known."""
    return about(max(5, 5 * round(seconds / 5)))


def stages_table(progress: Progress) -> str:
    """The stages of a run in a Markdown table: what each has made, and how long it took."""
    rows = []
    for number, stage in enumerate(progress.stages.values(), 1):
        seconds = duration(stage.seconds) if stage.state == "computed" else ""
        made = counted(stage.counts) if stage.counts else ", ".join(details(progress, stage)[:1]) * bool(stage.total)
        rows.append((str(number), stage.title, stage.state, made, seconds))
    lines = table(("", "Stage", "State", "Made", "Time"), rows)
    for state, words in STATES.items():
        lines = lines.replace(f"| {state} |", f"| {words} |")
    return lines


def page(about: Mapping[str, str], progress: Progress | None, heading: str = "") -> str:
    """The run's page: what it is about, each value Markdown, and how its stages stand."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in about.items())]
    if heading:
        parts.append(f"## {in_markdown(heading)}")
    if progress is not None:
        parts.append(stages_table(progress))
    return "\n\n".join(parts)
