"""What a configuration asks for and can never get, as its own fields tell: nothing is read, and nothing computed."""

import math
from collections.abc import Iterator

from alignment.config import AlignConfig
from alignment.data.pairs.strategies import pair
from alignment.errors import Fault
from alignment.kinds import PAIRS, PROMPTS, STRATEGIES

DEVIATIONS = 5
"""Standard deviations from the mean that a hash's split of the rows never reaches: once in 3.5 million times."""


def unreachable(config: AlignConfig) -> Iterator[Fault]:
    """Every bound that no run of this configuration can keep, each with the fields that are at odds."""
    yield from _prompts(config)
    yield from _pairs(config)
    yield from _lengths(config)


def _prompts(config: AlignConfig) -> Iterator[Fault]:
    """The rows against what both sides need of them."""
    data, prompts, rows = config.data, config.prompts, config.data.rows
    needed = min(prompts.min_eval, prompts.eval_count)
    if PROMPTS.origin(prompts.source).package:  # a row of theirs may give any number of prompts
        rows = 0
    if rows and prompts.source != "empty" and not prompts.eval_path:
        most = _at_most(rows, prompts.eval_fraction)
        if most < needed:
            enough = math.ceil(needed / prompts.eval_fraction * 1.5)
            yield Fault(
                ("data.rows", "prompts.eval_fraction", "prompts.min_eval"),
                f"data.rows = {rows} with prompts.eval_fraction = {prompts.eval_fraction:g} holds out about "
                f"{rows * prompts.eval_fraction:.0f} prompts, and the evaluation needs {needed} (prompts.min_eval): "
                f"raise data.rows to {enough} or so",
            )
    distinct = config.validation.min_distinct_prompts
    if prompts.count < distinct:
        yield Fault(
            ("prompts.count", "validation.min_distinct_prompts"),
            f"prompts.count = {prompts.count} can never reach validation.min_distinct_prompts = {distinct}: raise "
            f"prompts.count, or lower validation.min_distinct_prompts to {prompts.count} at most",
        )
    if rows and rows < distinct <= prompts.count and data.path != "grammar" and prompts.source != "empty":
        yield Fault(
            ("data.rows", "validation.min_distinct_prompts"),
            f"data.rows = {rows} can never give validation.min_distinct_prompts = {distinct} prompts: raise data.rows",
        )


def _pairs(config: AlignConfig) -> Iterator[Fault]:
    """The pairs that are made at most, against how many have to be accepted."""
    wanted, pairs, samples = config.validation.min_pairs, config.pairs, config.sampling.samples_per_prompt
    if pairs.max_pairs and pairs.max_pairs < wanted:
        yield Fault(
            ("pairs.max_pairs", "validation.min_pairs"),
            f"pairs.max_pairs = {pairs.max_pairs} can never reach validation.min_pairs = {wanted}: raise "
            f"pairs.max_pairs, or set it to 0, or lower validation.min_pairs",
        )
    each = pairs_of_a_prompt(config)
    if each is None or config.prompts.count * each >= wanted:
        return
    number = f"{each} pair{'s' if each != 1 else ''} of {samples} samples by pairs.strategy = {pairs.strategy}"
    if pairs.source == "judged":
        number = f"{each} pair{'s' if each != 1 else ''} of {samples} samples"
    yield Fault(
        ("prompts.count", "validation.min_pairs"),
        f"prompts.count = {config.prompts.count} can never reach validation.min_pairs = {wanted}, since a prompt gives "
        f"{number}: raise prompts.count to {math.ceil(wanted / each)} or more, or lower validation.min_pairs to "
        f"{config.prompts.count * each} or less",
    )


def pairs_of_a_prompt(config: AlignConfig) -> int | None:
    """How many a prompt gives at most; None where that is not known, as for given pairs or a strategy of others."""
    samples, strategy = config.sampling.samples_per_prompt, config.pairs.strategy
    if config.pairs.source == "judged":
        return samples // 2
    if config.pairs.source != "samples" or STRATEGIES.origin(strategy).package:
        return None
    return len(pair(range(samples), strategy, seed="").pairs)


def _lengths(config: AlignConfig) -> Iterator[Fault]:
    """The tokens of a completion, against what a pair's sides have to have."""
    if not PAIRS.origin(config.pairs.source).options.get("sampled", True):
        return
    sampling, bounds, prompts = config.sampling, config.validation, config.prompts
    shortest = {"first_tokens": prompts.tokens_min, "empty": 0}.get(prompts.source, 1)
    room = sampling.total_tokens - shortest
    longest = min(room, sampling.new_tokens_max or room)
    if longest < bounds.min_tokens:
        name = "new_tokens_max" if longest < room else "total_tokens"
        yield Fault(
            (f"sampling.{name}", "validation.min_tokens"),
            f"sampling.{name} = {getattr(sampling, name)} leaves completions of {longest} tokens at most, "
            f"and validation.min_tokens = {bounds.min_tokens} sets every one of them apart: raise the one, or lower "
            "the other",
        )


def _at_most(rows: int, fraction: float) -> int:
    """The most of `rows` that a hash puts on a side that gets this fraction of them."""
    return min(rows, math.floor(rows * fraction + DEVIATIONS * math.sqrt(rows * fraction * (1 - fraction))))
