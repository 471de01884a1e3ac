"""A run's result as Markdown: tables, lists and sample texts, and the same rows for a terminal."""

from collections.abc import Iterable, Sequence

from alignment.judging.comparison import ANCHOR
from alignment.judging.formats import NONE, percent, plain, signed, times
from alignment.judging.metric import Metric, ratio
from alignment.judging.report import EvalReport, GateResult, Judgement, RewardResult, SampleRow, TaskResult
from alignment.kinds import METRICS

Row = tuple[str, str, str, str]

HEADINGS: Row = ("Metric", "Base, own fresh samples", "Aligned", "Change")
MAX_TEXT = 400  # characters of a sample text that are shown
CONTROL_SIGNS = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}


def result_rows(report: EvalReport) -> list[Row]:
    """Before and after, one row per metric: name with its unit, base, aligned, change; others' under their plain names.

    "Base" is always the base model's own fresh samples on the same prompts. The biased baseline is the mean score of
    the pairs' winners, which selection alone lifts above that; there is none where the reward scored no pairs. The
    last rows are of the models that were trained here.
    """
    rows = [row for metric in METRICS.all().values() if (row := _row(metric, report)) is not None]
    rows += [_row_without_metric(name, report) for name in report.base.names() if name not in METRICS.names()]
    rows += [_row_of_reward(f"part {each.name}", each) for each in report.parts]
    rows += [_row_of_reward(f"gold {each.name}", each) for each in report.gold]
    rows += [_row_of_task(each) for each in report.tasks]
    rows += _rows_of_pairs(report)
    if report.has_reward and (report.unscored_base or report.unscored_aligned):
        rows.append(("samples without a reward", f"{report.unscored_base:,}", f"{report.unscored_aligned:,}", NONE))
    aligned = report.aligned.get("reward_mean")
    if aligned is not None and report.winners_mean is not None:
        rows.append(
            (
                "biased baseline: mean score of the winners",
                signed(report.winners_mean),
                signed(aligned),
                signed(aligned - report.winners_mean),
            )
        )
    if report.base_validation_perplexity is not None:
        rows.append(("base model's perplexity of held-out texts", plain(report.base_validation_perplexity), NONE, NONE))
    if report.reward_validation_accuracy is not None:
        accuracy = percent(report.reward_validation_accuracy)
        rows.append(("reward model's accuracy on held-out texts", accuracy, accuracy, NONE))
    return rows


def _rows_of_pairs(report: EvalReport) -> list[Row]:
    """How held-out pairs are ranked; the base's implicit reward is 0 for every text, so it ties."""
    found = report.preferences
    if found is None:
        return []
    accuracy, margin = (
        " to ".join(map(told, ends)) for told, ends in ((percent, found.accuracy_ci), (signed, found.margin_ci))
    )
    return [
        (f"accuracy on {found.pairs:,} held-out pairs", percent(0.5), percent(found.accuracy), accuracy),
        ("margin of held-out pairs (implicit reward, nats)", signed(0), signed(found.margin), margin),
    ]


def _row_of_reward(title: str, found: RewardResult) -> Row:
    """One of several rewards: both means, and the gain with its interval."""
    low, high = map(signed, found.gain_ci)
    weighted = "" if found.weight is None else f", weight {found.weight:g}"
    unscored = found.unscored_base + found.unscored_aligned
    left_out = f", {unscored:,} samples without a score" if unscored else ""
    told = f"{signed(found.gain)} ({low} to {high})"
    return f"{title}{weighted}{left_out}", signed(found.base_mean), signed(found.aligned_mean), told


def _row_of_task(found: TaskResult) -> Row:
    """A task of lm-eval: what both models reach, and the change with the errors of both."""
    errors = [error for error in (found.base_error, found.aligned_error) if error is not None]
    told = f"{-found.drop:+.3f}"
    if errors:
        told += f" (standard errors {' and '.join(f'{each:.3f}' for each in errors)})"
    title = f"{found.task} ({found.metric}, {found.samples:,} samples)"
    return title, f"{found.base:.3f}", f"{found.aligned:.3f}", told


def _row(metric: Metric, report: EvalReport) -> Row | None:
    """A metric's row; None where it does not apply, or is shown in none."""
    if metric.of == "both":
        missing = report.delta.get(metric.name) is None and not report.has_reward
        return _row_of_both(metric, report) if metric.shown and not missing else None
    value, change = metric.format
    if metric.of == "aligned":
        found = report.delta.get(metric.name)
        return None if found is None else (metric.title, "0", value(found), NONE)
    if metric.of == "anchor":
        name = metric.name.removeprefix(ANCHOR)
        sides = (report.drift.get(f"base_{name}"), report.drift.get(name)) if report.drift is not None else (None, None)
    else:
        sides = report.base.get(metric.name), report.aligned.get(metric.name)
    before, after = sides
    if not metric.shown or before is None or after is None:
        return None
    recorded = report.delta.get(metric.delta) if metric.of == "model" and metric.delta else None
    if metric.change == "difference":
        told = change(after - before if recorded is None else recorded)
    elif metric.change == "ratio":
        told = times(ratio(after, before) if recorded is None else recorded)
    else:
        told = _estimate(METRICS.get(metric.change), report) if metric.change else NONE
    return metric.title, value(before), value(after), told


def _row_of_both(metric: Metric, report: EvalReport) -> Row:
    if metric.shown == "change":
        return metric.title, NONE, NONE, _estimate(metric, report)
    found, interval = report.delta.get(metric.name), report.delta.interval(metric.name)
    written = NONE if found is None else metric.format.value(found)
    told = NONE if interval is None else " to ".join(map(metric.format.value, interval))
    return metric.title, NONE, written, told


def _row_without_metric(name: str, report: EvalReport) -> Row:
    """The figures of a metric whose package was removed since."""
    before, after = report.base.get(name), report.aligned.get(name)
    change = NONE if before is None or after is None else signed(after - before)
    return name, NONE if before is None else plain(before), NONE if after is None else plain(after), change


def _estimate(metric: Metric, report: EvalReport) -> str:
    """A figure of both models, with its interval where it has one."""
    found, interval = report.delta.get(metric.name), report.delta.interval(metric.name)
    value = metric.format.value
    if found is None:
        return NONE
    return value(found) if interval is None else f"{value(found)} ({value(interval[0])} to {value(interval[1])})"


def result_table(report: EvalReport) -> str:
    """The result as a Markdown table, and a line that says what stands behind it."""
    note = (
        f"{report.prompts:,} held-out prompts, {report.samples_per_prompt} fresh samples each from both models; "
        "intervals by bootstrap over prompts."
    )
    if report.winners_mean is not None:
        note += (
            " The biased baseline is for comparison only: winners are picked for their score, so their mean is above "
            "that of the model which wrote them."
        )
    return f"{table(HEADINGS, result_rows(report))}\n\n{' '.join((note, *notes(report)))}"


def notes(report: EvalReport) -> list[str]:
    """What a reader of the figures has to know, a sentence each: of judges, of real texts, of engines, of rounding."""
    found = [f"The judge “{each.name}” {each.note}." for each in report.gold if each.note]
    if (real := report.real_texts) is not None:
        found.append(
            f"Real texts themselves ({real.held_out:,} of them, by the model of {real.fitted:,} others) have a "
            f"perplexity of {plain(real.perplexity)} a word, and {percent(real.seen_bigrams)} of their pairs of words "
            "are known."
        )
    if (engines := report.engines) is not None:
        if engines.training:
            found.append(f"The engine “{engines.training}” drew the training samples.")
        shared = (
            "with common random numbers"
            if engines.common_random_numbers
            else "without common random numbers, so that the intervals of differences are wider than with them"
        )
        found.append(f"The engine “{engines.evaluation}” drew both models' samples, {shared}.")
    if report.precision != "fp32":
        found.append(f"The log-probs of both models, and so KL and perplexity, were computed in {report.precision}.")
    return found


def gates_table(judgement: Judgement) -> str:
    """Each gate with its value, bound, verdict, and what a failure of it means."""
    rows = [
        (
            gate.name.replace("_", " "),
            f"{gate.value:.4g}",
            _bound(gate),
            "passed" if gate.passed else "FAILED",
            gate.why,
        )
        for gate in judgement.gates
    ]
    rows += [(name.replace("_", " "), NONE, NONE, "not applied", why) for name, why in judgement.not_applied.items()]
    return table(("Gate", "Value", "Bound", "Verdict", "A failure means"), rows)


def samples_table(rows: Sequence[SampleRow], limit: int) -> str:
    """The first `limit` prompts with both continuations, of a chat both answers, and their rewards; long texts cut."""
    return table(
        ("Prompt", "Base", "Reward", "Aligned", "Reward"),
        [
            (prompt, base, _reward_of(row.base_reward), aligned, _reward_of(row.aligned_reward))
            for row, (prompt, base, aligned) in ((row, row.shown) for row in rows[: max(0, limit)])
        ],
    )


def result_list(report: EvalReport) -> str:
    """The result as a Markdown list, for where a table has no room."""
    return "\n".join(f"- {name}: {_in_words(*figures)}" for name, *figures in result_rows(report))


def gates_list(judgement: Judgement) -> str:
    """Each gate with its value and bound as a Markdown list, the failed ones with what that means."""
    lines = [
        f"- {gate.name.replace('_', ' ')} {gate.value:.4g}, bound {_bound(gate)}: "
        f"{'passed' if gate.passed else f'**FAILED**, {gate.why}'}"
        for gate in judgement.gates
    ]
    lines += [f"- {name.replace('_', ' ')}: not applied, {why}" for name, why in judgement.not_applied.items()]
    return "\n".join(lines)


def samples_list(rows: Sequence[SampleRow], limit: int) -> str:
    """The first `limit` prompts with both continuations and their rewards as a Markdown list."""
    return "\n".join(
        f"- {in_markdown(prompt)}\n  - {_reward_of(row.base_reward)} before: {in_markdown(base)}\n"
        f"  - {_reward_of(row.aligned_reward)} after: {in_markdown(aligned)}"
        for row, (prompt, base, aligned) in ((row, row.shown) for row in rows[: max(0, limit)])
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *([in_markdown(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def in_markdown(text: str) -> str:
    """A text on one line that cannot break out of a Markdown table or become HTML, cut where it is long.

    Tabs and line breaks become spaces, other control characters the signs for them, NUL for instance ␀: a byte-level
    model may write some, and PostgreSQL refuses a NUL.
    """
    line = " ".join(text.split()).translate(CONTROL_SIGNS)
    line = line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"
    for sign in "\\|`*[":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("&", "&amp;").replace("<", "&lt;") or " "


def _bound(gate: GateResult) -> str:
    return gate.bound.replace(">=", "≥").replace("<=", "≤")


def _in_words(before: str, after: str, change: str) -> str:
    sides = " → ".join(figure for figure in (before, after) if figure != NONE)
    return ", ".join(part for part in (sides, change) if part not in {"", NONE}) or NONE


def _reward_of(score: float | None) -> str:
    return NONE if score is None else signed(score)
