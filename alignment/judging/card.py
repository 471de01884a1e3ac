"""A run's result as Markdown: tables, sample texts and the model card, and the same rows for a terminal."""

from collections.abc import Iterable, Mapping, Sequence

from alignment.config import AlignConfig, SamplingConfig
from alignment.judging.comparison import ANCHOR
from alignment.judging.formats import NONE, percent, plain, signed, times
from alignment.judging.metric import Metric, ratio
from alignment.judging.report import EvalReport, GateResult, Judgement, RewardResult, SampleRow
from alignment.kinds import METRICS, REWARD_MODELS

Row = tuple[str, str, str, str]

HEADINGS: Row = ("Metric", "Base, own fresh samples", "Aligned", "Change")
MAX_TEXT = 400  # characters of a sample text that are shown
CONTROL_SIGNS = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}


def result_rows(report: EvalReport) -> list[Row]:
    """Before and after, one row per metric: name with its unit, base, aligned, change; others' under their plain names.

    "Base" is always the base model's own fresh samples on the same prompts. The biased baseline is the mean score of
    the pairs' winners, which selection alone lifts above that. The last rows are of the models that were trained here.
    """
    rows = [row for metric in METRICS.all().values() if (row := _row(metric, report)) is not None]
    rows += [_row_without_metric(name, report) for name in report.base.names() if name not in METRICS.names()]
    rows += [_row_of_reward(f"part {each.name}", each) for each in report.parts]
    rows += [_row_of_reward(f"gold {each.name}", each) for each in report.gold]
    if report.unscored_base or report.unscored_aligned:
        rows.append(("samples without a reward", f"{report.unscored_base:,}", f"{report.unscored_aligned:,}", NONE))
    aligned = report.aligned.get("reward_mean")
    if aligned is not None and report.winners_mean is not None:
        rows.append(
            (
                "biased baseline: mean score of the winners (logits)",
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


def _row_of_reward(title: str, found: RewardResult) -> Row:
    """One of several rewards: both means, and the gain with its interval."""
    low, high = map(signed, found.gain_ci)
    weighted = "" if found.weight is None else f", weight {found.weight:g}"
    unscored = found.unscored_base + found.unscored_aligned
    left_out = f", {unscored:,} samples without a score" if unscored else ""
    told = f"{signed(found.gain)} ({low} to {high})"
    return f"{title}{weighted}{left_out}", signed(found.base_mean), signed(found.aligned_mean), told


def _row(metric: Metric, report: EvalReport) -> Row | None:
    """A metric's row; None where it does not apply, or is shown in none."""
    if metric.of == "both":
        return _row_of_both(metric, report) if metric.shown else None
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
    found, interval = report.delta.get(metric.name), report.delta.interval(metric.name)
    written = NONE if found is None else metric.format.value(found)
    if metric.shown == "change":
        return metric.title, NONE, NONE, written
    told = NONE if interval is None else " to ".join(map(metric.format.value, interval))
    return metric.title, NONE, written, told


def _row_without_metric(name: str, report: EvalReport) -> Row:
    """The figures of a metric whose package was removed since."""
    before, after = report.base.get(name), report.aligned.get(name)
    change = NONE if before is None or after is None else signed(after - before)
    return name, NONE if before is None else plain(before), NONE if after is None else plain(after), change


def _estimate(metric: Metric, report: EvalReport) -> str:
    """A figure of both models with its interval."""
    found, interval = report.delta.get(metric.name), report.delta.interval(metric.name)
    value = metric.format.value
    return (
        NONE if found is None or interval is None else f"{value(found)} ({value(interval[0])} to {value(interval[1])})"
    )


def result_table(report: EvalReport) -> str:
    """The result as a Markdown table, and a line that says what stands behind it."""
    note = (
        f"{report.prompts:,} held-out prompts, {report.samples_per_prompt} fresh samples each from both models; "
        "intervals by bootstrap over prompts. The biased baseline is for comparison only: winners are picked for their "
        "score, so their mean is above that of the model which wrote them."
    )
    return f"{_table(HEADINGS, result_rows(report))}\n\n{note}"


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
    return _table(("Gate", "Value", "Bound", "Verdict", "A failure means"), rows)


def samples_table(rows: Sequence[SampleRow], limit: int) -> str:
    """The first `limit` prompts with both continuations, of a chat both answers, and their rewards; long texts cut."""
    return _table(
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
    return "\n".join(
        f"- {gate.name.replace('_', ' ')} {gate.value:.4g}, bound {_bound(gate)}: "
        f"{'passed' if gate.passed else f'**FAILED**, {gate.why}'}"
        for gate in judgement.gates
    )


def samples_list(rows: Sequence[SampleRow], limit: int) -> str:
    """The first `limit` prompts with both continuations and their rewards in logits as a Markdown list."""
    return "\n".join(
        f"- {in_markdown(prompt)}\n  - {_reward_of(row.base_reward)} before: {in_markdown(base)}\n"
        f"  - {_reward_of(row.aligned_reward)} after: {in_markdown(aligned)}"
        for row, (prompt, base, aligned) in ((row, row.shown) for row in rows[: max(0, limit)])
    )


def model_card(
    config: AlignConfig,
    report: EvalReport,
    judgement: Judgement,
    samples: Sequence[SampleRow],
    lineage: Mapping[str, str],
    policy: Mapping[str, int] = {},
) -> str:
    """The model card: what was made of what and how, the result, the gates, its limits, and where it came from.

    `lineage` names each thing that the model came from and its hash or link; `policy` is what its stage counted.
    """
    sections = [
        f"# {config.registry.model_name}",
        judgement.sentence,
        _made_of(config, policy),
        f"## Result\n\n{result_table(report)}",
        f"## Gates\n\n{gates_table(judgement)}",
        f"## Samples\n\nOn held-out prompts, not chosen by hand.\n\n{samples_table(samples, 5)}",
        "## Limits: what was not checked\n\n" + "\n".join(f"- {limit}" for limit in _limits(config, report)),
    ]
    if lineage:
        sections.append("## Lineage\n\n" + _table(("What", "Hash or link"), list(lineage.items())))
    return "\n\n".join(sections) + "\n"


def _made_of(config: AlignConfig, policy: Mapping[str, int]) -> str:
    dpo, sampling, prompts = config.dpo, config.sampling, config.prompts
    extras = [
        f"label smoothing {dpo.label_smoothing:g}" if dpo.label_smoothing else "",
        f"NLL weight {dpo.nll_weight:g}" if dpo.nll_weight else "",
    ]
    span = (
        f"{prompts.tokens_min}"
        if prompts.tokens_min == prompts.tokens_max
        else f"{prompts.tokens_min}–{prompts.tokens_max}"
    )
    cut = {
        "empty": "BOS alone",
        "first_tokens": f"the first {span} tokens of a text",
        "column": "whole texts",
        "messages": "chats, by the model's chat template",
    }.get(prompts.source, prompts.source)
    rows = [
        ("Base", "trained here from the data" if config.base.model == "train" else config.base.model),
        (
            "Data",
            config.data.path if config.data.path == "grammar" else f"{config.data.path}, split {config.data.split}",
        ),
        ("Reward", _reward(config)),
        ("Prompts", cut),
        (
            "Pairs",
            f"{config.pairs.strategy.replace('_', ' ')} of {sampling.samples_per_prompt} samples per prompt, "
            f"temperature {sampling.temperature:g}, top-k {sampling.top_k}, top-p {sampling.top_p:g}",
        ),
        (
            "Loss",
            ", ".join(part for part in (f"{dpo.trainer.upper()}, {dpo.loss}", f"beta {dpo.beta:g}", *extras) if part),
        ),
        (
            "Optimiser",
            f"{dpo.optimizer}, peak learning rate {dpo.learning_rate:g}, {dpo.schedule}, "
            f"{min(dpo.warmup_steps, dpo.steps)} steps of warm-up",
        ),
        *([("Adapter", adapter)] if (adapter := _adapter(config, policy)) else []),
        ("Steps", f"at most {dpo.steps:,} of {dpo.batch_size * dpo.accumulation} pairs per device, {dpo.precision}"),
        ("Seed", str(config.seed)),
    ]
    return f"## How it was made\n\n{_table(('What', 'Value'), rows)}"


def _adapter(config: AlignConfig, policy: Mapping[str, int]) -> str:
    """What was trained in place of every weight; empty where nothing was."""
    trained, parameters = policy.get("trainable_parameters", 0), policy.get("all_parameters", 0)
    if config.dpo.adapter == "none" or not parameters:
        return ""
    return (
        f"LoRA, rank {config.dpo.adapter_rank}, {trained:,} trainable parameters ({percent(trained / parameters)} of "
        "all); merged into the weights, and kept by itself among the run's artifacts"
    )


def _limits(config: AlignConfig, report: EvalReport) -> Iterable[str]:
    if report.has_reward:
        yield (
            "The reward model that labelled the pairs also scores the result. A higher score says that it prefers "
            "these texts, not that people do; nobody read them."
        )
    else:
        yield "No reward is configured: whether the texts became better was not measured, and nobody read them."
    if report.gold:
        names = ", ".join(each.name for each in report.gold)
        yield f"Judges that labelled nothing ({names}) scored the result too; they may share the reward's blind spots."
    yield (
        f"All of it rests on one seed ({config.seed}) and on {report.prompts:,} prompts, drawn as the training prompts "
        "were."
    )
    yield (
        "Texts were sampled with the settings above; other temperatures, longer texts and other kinds of prompts "
        "were not tried."
    )
    if not _is_plain(config.sampling):
        yield (
            "Samples were drawn with a temperature, top-k or top-p that change the distribution, while log-probs are "
            "the model's own: KL from the base is an estimate on shifted samples."
        )
    if report.aligned.get("grammatical") is None:
        yield "Whether the sentences are grammatical was not judged; perplexity and KL stand in for it."
    if report.delta.get("win_rate_length_matched") is None:
        yield "No prompt had texts of like length from both models, so length may explain the wins."
    yield "Facts, toxicity, social bias, memorised training text, other languages and other tasks were not checked."


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
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


def _reward(config: AlignConfig) -> str:
    if config.reward.kind not in REWARD_MODELS.names():
        return config.reward.kind
    model = "trained here from the data's labels" if config.reward.model == "train" else config.reward.model
    return f"{config.reward.kind}, {model}"


def _reward_of(score: float | None) -> str:
    return NONE if score is None else signed(score)


def _is_plain(config: SamplingConfig) -> bool:
    """Whether samples come from the model's own distribution, under which their log-probs are taken."""
    return config.temperature == 1 and config.top_k == 0 and config.top_p == 1
