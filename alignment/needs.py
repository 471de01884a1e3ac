"""The memory that each stage of a configuration needs, and the fields that make it less."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from alignment.batching import COPY_BYTES, COPY_TOKENS, CPU_BYTES, CPU_ROWS, CPU_TOKENS
from alignment.config import AlignConfig
from alignment.config.policy import global_batch
from alignment.memory import FLOAT, HALF, Memory, Shape, sampling, scoring, training
from alignment.rewards.parts import described, is_trained

Shapes = Mapping[str, Shape]
Rule = Callable[[AlignConfig, Shapes, str], Memory | None]
_RULES: dict[str, Rule] = {}


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
    found = {stage: need(stage, config, shapes, kind) for stage in _RULES}
    known = [(stage, memory) for stage, memory in found.items() if memory is not None]
    return dict(sorted(known, key=lambda each: -each[1].peak))


@_of("base")
def _base(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    if (shape := shapes.get("base")) is None:
        return None
    if config.base.model != "train":
        return Memory(FLOAT * shape.weights)
    tokens = config.base.batch_size * config.base.context
    return training(shape, tokens, predicted=tokens, kind=kind)


@_of("reward")
def _reward(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    if (shape := shapes.get("reward")) is None:
        return None
    if not any(is_trained(each) for each in described(config)):
        return Memory(FLOAT * shape.weights)
    return training(shape, config.reward.batch_size * config.reward.context, predicted=0, kind=kind)


@_of("samples", "reference_samples")
def _samples(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    shape, asked = shapes.get("base"), config.sampling.shard_prompts * config.sampling.samples_per_prompt
    return None if shape is None or config.sampling.engine != "local" else _drawn(config, shape, asked, kind)


@_of("before", "after")
def _evaluated(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    """A model's samples, and then their log-probs, by the base that is loaded beside it, and their scores."""
    if (shape := shapes.get("base")) is None:
        return None
    drawn = _drawn(config, shape, config.prompts.eval_count * config.evaluation.samples_per_prompt, kind)
    scored = scoring(shape, _scored_tokens(config, kind))
    return max(drawn, replace(scored, weights=2 * scored.weights), key=lambda each: each.peak)


@_of("scores")
def _scores(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    shape = shapes.get("reward")
    tokens = config.reward.batch_tokens or (CPU_TOKENS if kind == "cpu" else config.sampling.total_tokens)
    return None if shape is None else scoring(shape, tokens)


@_of("reference")
def _reference(config: AlignConfig, shapes: Shapes, kind: str) -> Memory | None:
    shape = shapes.get("base")
    return None if shape is None else scoring(shape, _scored_tokens(config, kind))


@_of("policy", "trajectory")
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
    return found.of(dpo.processes) if kind == "cpu" else found


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


def advice(stage: str, config: AlignConfig, kind: str) -> str:
    """The three fields that make a stage take less, with what to set them to, those first that change the least."""
    dpo, sampling, train = config.dpo, config.sampling, config.base.model == "train"
    shorter = f"sampling.total_tokens to fewer than {sampling.total_tokens:,}"
    card = kind != "cpu" and config.base.load_in != "4bit"
    half = f"sampling.batch_tokens to half of {sampling.batch_tokens or CPU_TOKENS:,}"
    if stage in ("policy", "trajectory"):
        found = [
            *([f"dpo.batch_size to {dpo.batch_size // 2} or less"] if dpo.batch_size > 1 else []),
            *([] if dpo.gradient_checkpointing else ["dpo.gradient_checkpointing to true"]),
            *(["dpo.adapter to lora"] if dpo.adapter == "none" else []),
            *(["base.load_in to 4bit, with an adapter"] if card else []),
            shorter,
            "base.model to a smaller model",
        ]
    elif stage == "base" and train:
        found = ["base.batch_size to fewer", "base.context to fewer tokens", "base.width to less"]
    elif stage == "reward":
        found = ["reward.batch_size to fewer", "reward.context to fewer tokens", "reward.model to a smaller model"]
    elif stage in ("scores", "gold"):
        found = ["reward.batch_tokens to 2,048 or fewer", shorter, "reward.model to a smaller model"]
    elif stage in ("base", "anchor"):
        found = ["base.model to a smaller model", "base.revision to one of shorter floats"]
    else:
        precision = ["sampling.precision to bf16"] if sampling.precision != "bf16" else []
        found = [half, *precision, shorter, "base.model to a smaller model"]
    *others, last = found[:3]
    return f"set {', '.join(others)}, or {last}"
