"""The model card: what was made of what and how, the result, its limits, and where it came from."""

from collections.abc import Iterable, Mapping, Sequence

from alignment.config import AlignConfig, RewardFields, SamplingConfig
from alignment.config.label import objective
from alignment.config.policy import global_batch
from alignment.judging.card import gates_table, result_table, samples_table, table
from alignment.judging.formats import percent
from alignment.judging.report import EvalReport, Judgement, SampleRow
from alignment.rewards.parts import SUM, takes_model

REGISTERED = {
    "merged": "merged into the weights, and kept by itself among the run's artifacts",
    "separate": (
        "registered without its base's weights, whose content is pinned by a digest; what was judged is the two merged"
    ),
}
"""What becomes of an adapter, by `registry.adapter`."""


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
        sections.append("## Lineage\n\n" + table(("What", "Hash or link"), list(lineage.items())))
    return "\n\n".join(sections) + "\n"


def _made_of(config: AlignConfig, policy: Mapping[str, int]) -> str:
    dpo, prompts = config.dpo, config.prompts
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
        "pairs": "those of given pairs",
    }.get(prompts.source, prompts.source)
    rows = [
        ("Base", base_of(config)),
        ("Data", data_of(config)),
        ("Reward", reward_of(config)),
        ("Prompts", cut),
        ("Pairs", _pairs(config)),
        (
            "Loss",
            ", ".join(
                part for part in (f"{dpo.trainer.upper()}, {objective(dpo)}", f"beta {dpo.beta:g}", *extras) if part
            ),
        ),
        (
            "Optimiser",
            f"{dpo.optimizer}, peak learning rate {dpo.learning_rate:g}, {dpo.schedule}, "
            f"{min(dpo.warmup_steps, dpo.steps)} steps of warm-up",
        ),
        *([("Adapter", adapter)] if (adapter := _adapter(config, policy)) else []),
        ("Steps", f"at most {dpo.steps:,} of {global_batch(dpo)} pairs, {dpo.precision}"),
        ("Seed", str(config.seed)),
    ]
    return f"## How it was made\n\n{table(('What', 'Value'), rows)}"


def base_of(config: AlignConfig) -> str:
    """The base model, in words."""
    return "trained here from the data" if config.base.model == "train" else config.base.model


def data_of(config: AlignConfig) -> str:
    """The data, in words."""
    return config.data.path if config.data.path == "grammar" else f"{config.data.path}, split {config.data.split}"


def _pairs(config: AlignConfig) -> str:
    sampling = config.sampling
    if config.pairs.source == "given":
        return "given, as they stand in the data"
    chosen = config.pairs.strategy if config.pairs.source == "samples" else config.pairs.source
    return (
        f"{chosen.replace('_', ' ')} of {sampling.samples_per_prompt} samples per prompt, "
        f"temperature {sampling.temperature:g}, top-k {sampling.top_k}, top-p {sampling.top_p:g}"
    )


def _adapter(config: AlignConfig, policy: Mapping[str, int]) -> str:
    """What was trained in place of every weight; empty where nothing was."""
    trained, parameters = policy.get("trainable_parameters", 0), policy.get("all_parameters", 0)
    if config.dpo.adapter == "none" or not parameters:
        return ""
    return (
        f"LoRA, rank {config.dpo.adapter_rank}, {trained:,} trainable parameters ({percent(trained / parameters)} of "
        f"all); {REGISTERED[config.registry.adapter]}"
    )


def _limits(config: AlignConfig, report: EvalReport) -> Iterable[str]:
    if report.has_reward and config.pairs.source != "given":
        yield (
            "The reward model that labelled the pairs also scores the result. A higher score says that it prefers "
            "these texts, not that people do; nobody read them."
        )
    elif report.has_reward:
        yield "A higher reward says that its model prefers these texts, not that people do; nobody read them."
    else:
        yield "No reward is configured: whether the texts became better was not measured, and nobody read them."
    if report.preferences is not None:
        yield (
            "That the model ranks held-out pairs as they were given says which texts it finds likelier than before, "
            "not that it writes such texts."
        )
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
    if report.has_reward and report.delta.get("win_rate_length_matched") is None:
        yield "No prompt had texts of like length from both models, so length may explain the wins."
    yield "Facts, toxicity, social bias, memorised training text, other languages and other tasks were not checked."


def reward_of(config: AlignConfig) -> str:
    """The reward, or the parts of its sum, in words."""
    if config.reward.kind == SUM:
        parts = (
            f"{part.weight:g} × {part.name} ({_in_words(part, config)}{', over its SD' if part.normalise else ''})"
            for part in config.reward.parts
        )
        return f"sum of {'; '.join(parts)}"
    return _in_words(config.reward, config)


def _in_words(fields: RewardFields, config: AlignConfig) -> str:
    """One reward: its kind, and what it scores by."""
    if fields.kind == "function":
        return f"function, {fields.function}"
    if fields.kind == "judge":
        return f"judge, {fields.judge.model}"
    if not takes_model(fields):
        return fields.kind
    if fields.model != "train":
        return f"{fields.kind}, {fields.model}"
    source = "given pairs" if config.reward.trained_on == "pairs" else "the data's labels"
    start = f", starting at {config.reward.start}" if config.reward.start else ""
    return f"{fields.kind}, trained here from {source}{start}"


def _is_plain(config: SamplingConfig) -> bool:
    """Whether samples come from the model's own distribution, under which their log-probs are taken."""
    return config.temperature == 1 and config.top_k == 0 and config.top_p == 1
