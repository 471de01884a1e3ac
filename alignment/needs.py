"""The memory that each stage of a configuration needs, on the device that it computes on."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from alignment.batching import COPY_BYTES, COPY_TOKENS, CPU_BYTES, CPU_ROWS, CPU_TOKENS
from alignment.config import AlignConfig, RewardFields
from alignment.config.policy import global_batch
from alignment.memory import FLOAT, HALF, Memory, Shape, sampling, scoring, training
from alignment.rewards.parts import is_trained, judges

Shapes = Mapping[str, Shape]
Rule = Callable[[AlignConfig, Shapes, str], Memory | None]
_RULES: dict[str, Rule] = {}

LABELS, SECOND = "reward", "evaluation.gold"
"""How the places of judges begin: of those that label, and of second ones."""

OF_FRONTIERS = ("trajectory", "reference_samples")
"""Stages that a run does not have."""


def _of(*stages: str) -> Callable[[Rule], Rule]:
    def note(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(stages, rule))
        return rule

    return note


def need(stage: str, config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """What a stage needs on a device of a `kind`, `cpu` or `cuda`; None where that is not known, or it has no model.

    `shapes` are those of the models `base` and `reward` of the configuration, where they are known.
    """
    rule = _RULES.get(stage)
    return None if rule is None else rule(config, shapes, kind)


def needs(config: AlignConfig, shapes: Shapes, kind: str) -> dict[str, Memory]:
    """The same of every stage of a run that has a model whose shape is known; the greatest first."""
    found = {stage: need(stage, config, shapes, kind) for stage in _RULES if stage not in OF_FRONTIERS}
    known = [(stage, memory) for stage, memory in found.items() if memory is not None]
    return dict(sorted(known, key=lambda each: -each[1].peak))


def of_machine(config: AlignConfig, shapes: Shapes) -> dict[str, int]:
    """What stages need of the memory of a machine with GPUs beside theirs, in bytes.

    A model that is given is copied there, what was trained over a rounded base is merged, and each process of a sharded
    training has the whole model while it is loaded.
    """
    copied = [FLOAT * shape.weights for _, judge, shape in _known(config, shapes, LABELS) if not is_trained(judge)]
    found = {"reward": max(copied)} if copied else {}
    if (shape := shapes.get("base")) is not None:
        whole = FLOAT * shape.weights
        found |= {"base": whole} if config.base.model != "train" else {}
        found |= {"policy": whole} if config.base.load_in != "fp32" else {}
        found |= {"policy": config.dpo.processes * whole} if config.dpo.sharding == "fsdp" else {}
    return found


@_of("base")
def _base(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    if (shape := shapes.get("base")) is None:
        return None
    if config.base.model != "train":  # it is copied, by the processor
        return Memory(FLOAT * shape.weights) if kind == "cpu" else None
    tokens = config.base.batch_size * config.base.context
    return training(shape, tokens, predicted=tokens, kind=kind)


@_of("reward")
def _reward(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """A model that is trained here, or on a CPU the largest copy."""
    found = [
        training(shape, config.reward.batch_size * config.reward.context, predicted=0, kind=kind)
        if is_trained(judge)
        else Memory(FLOAT * shape.weights)
        for _, judge, shape in _known(config, shapes, LABELS)
        if is_trained(judge) or kind == "cpu"
    ]
    return max(found, key=_peak, default=None)


@_of("samples", "reference_samples")
def _samples(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    shape, asked = shapes.get("base"), config.sampling.shard_prompts * config.sampling.samples_per_prompt
    return None if shape is None or config.sampling.engine != "local" else _drawn(config, shape, asked, kind)


@_of("before", "after")
def _evaluated(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """A model's samples, then their log-probs, by it and by the base, and their rewards; one model at a time."""
    if (shape := shapes.get("base")) is None:
        return None
    asked = config.prompts.eval_count * config.evaluation.samples_per_prompt
    scored = scoring(shape, _scored_tokens(config, kind), config.evaluation.precision)
    return _greatest(_drawn(config, shape, asked, kind), scored, _scores(config, shapes, kind))


@_of("ranking")
def _ranked(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """Log-probs by the aligned model, then by the base."""
    if (shape := shapes.get("base")) is None or config.pairs.source != "given":
        return None
    return scoring(shape, _scored_tokens(config, kind), config.evaluation.precision)


@_of("regression")
def _on_tasks(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """The same of the tasks' texts, by the base first."""
    if (shape := shapes.get("base")) is None or not config.evaluation.tasks:
        return None
    return scoring(shape, _scored_tokens(config, kind), config.evaluation.precision)


@_of("drift")
def _drifted(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """What an evaluation takes, with the anchor in the base's place."""
    if (shape := shapes.get("anchor")) is None:
        return None
    return _evaluated(config, {**shapes, "base": shape}, kind)


@_of("scores")
def _scores(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    return _judged(config, shapes, kind, LABELS)


@_of("gold")
def _gold(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    return _judged(config, shapes, kind, SECOND)


def _judged(config: AlignConfig, shapes: Shapes, kind: str, group: str) -> Memory | None:
    """One model after the other; those that are trained here are small."""
    tokens = config.reward.batch_tokens or (CPU_TOKENS if kind == "cpu" else config.sampling.total_tokens)
    found = [scoring(shape, tokens, judge.precision) for _, judge, shape in _known(config, shapes, group)]
    return max(found, key=_peak, default=None)


def _known(config: AlignConfig, shapes: Shapes, group: str) -> list[tuple[str, RewardFields, Shape]]:
    """The judges of a group whose model's shape is known, each with its place in the configuration."""
    found = [(place, judge, shapes.get(place)) for place, judge in judges(config) if place.startswith(group)]
    return [(place, judge, shape) for place, judge, shape in found if shape is not None]


def model_of(stage: str, config: AlignConfig, shapes: Shapes, kind: str) -> tuple[str, str]:
    """The field that names the model by which a stage takes the most, and its value."""
    groups = {"reward": LABELS, "scores": LABELS, "gold": SECOND}
    needed = need(stage, config, shapes, kind)
    if stage in ("before", "after", "drift") and needed is not None and needed == need("scores", config, shapes, kind):
        stage = "scores"
    if found := _known(config, shapes, groups.get(stage, "none")):
        place, judge, _ = max(found, key=lambda each: scoring(each[2], 0, each[1].precision).weights)
        return f"{place}.model", judge.model
    if stage in ("anchor", "drift"):
        return "evaluation.anchor", config.evaluation.anchor
    return ("reward.model", config.reward.model) if stage in groups else ("base.model", config.base.model)


def _peak(memory: Memory) -> int:
    return memory.peak


@_of("reference")
def _reference(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    shape, tokens = shapes.get("base"), _scored_tokens(config, kind)
    return None if shape is None else scoring(shape, tokens, config.dpo.precision, config.base.load_in)


@_of("trajectory")
def _trajectory(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """A training, and beside it the policy as it stands and the base, while it is measured."""
    found, measured = _policy(config, shapes, kind), _evaluated(config, shapes, kind)
    if found is None or measured is None:
        return found
    both = measured.weights + shapes["base"].loaded("bf16" if config.evaluation.precision == "bf16" else "fp32")
    return replace(found, weights=found.weights + both, cache=measured.cache)


@_of("policy")
def _policy(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """As many tokens as its pairs may have at most; of one process, or on a CPU, whose memory all share, of all."""
    dpo, shape = config.dpo, shapes.get("base")
    if shape is None or dpo.trainer != "dpo":
        return None
    pairs = min(dpo.batch_size, -(-global_batch(dpo) // dpo.processes))
    tokens = 2 * pairs * config.sampling.total_tokens
    found = training(
        shape,
        tokens,
        predicted=tokens,
        optimizer=dpo.optimizer,
        precision=dpo.precision,
        load_in=config.base.load_in,
        rank=dpo.adapter_rank if dpo.adapter == "lora" else 0,
        checkpointing=dpo.gradient_checkpointing,
        accumulated=global_batch(dpo) > pairs * dpo.processes,
        kind=kind,
    )
    if dpo.sharding == "fsdp":  # each has all logits at once, and what autocast rounds of all weights until it is used
        rounded = HALF * shape.weights if dpo.precision == "bf16" and not dpo.gradient_checkpointing else 0
        found = found.sharded(dpo.processes)
        found = replace(found, weights=found.weights + rounded, logits=3 * FLOAT * tokens * shape.vocabulary)
    if kind == "cpu" and config.base.load_in != "fp32":  # at its end it is merged into the base as that was given
        found = _greatest(found, Memory(shape.loaded(config.base.load_in) + FLOAT * shape.weights))
    return found.of(dpo.processes) if kind == "cpu" else found


def _greatest(first: Memory, *others: Memory | None) -> Memory:
    """What takes the most of several things that are done one after the other."""
    return max(first, *(each for each in others if each is not None), key=_peak)


def _drawn(config: AlignConfig, shape: Shape, asked: int, kind: str) -> Memory:
    """On a CPU as many rows as gain something; a card's memory is filled with as many as fit, and one row has to."""
    length, given = config.sampling.total_tokens, config.sampling.batch_tokens
    row = max(1, FLOAT * shape.cached() * length)
    fits = min(CPU_ROWS, CPU_BYTES // row) if kind == "cpu" else 1
    rows = max(1, min(asked, given // length if given else fits))
    copied = kind == "cpu" and asked * length >= COPY_TOKENS and FLOAT * shape.linear <= COPY_BYTES
    return sampling(shape, rows, length, config.sampling.precision, copied=copied)


def _scored_tokens(config: AlignConfig, kind: str) -> int:
    return config.sampling.batch_tokens or (CPU_TOKENS if kind == "cpu" else config.sampling.total_tokens)
