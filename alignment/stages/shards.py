"""Where the prompts of a stage are cut, so that its parts come out to the bit as the whole would."""

from math import gcd

from alignment.config import AlignConfig
from alignment.parquet import GROUP_ROWS
from alignment.stages.stage import Refs


def by_whole_groups(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The training prompts in ranges, first to last (excluded), of about a shard, whose samples are whole row groups.

    So a batch of samples is the same wherever the cuts are.
    """
    prompts, samples = refs["prompts"].counts["train"], config.sampling.samples_per_prompt
    whole = GROUP_ROWS // gcd(GROUP_ROWS, samples)
    size = whole * -(-config.sampling.shard_prompts // whole)
    return [(first, min(first + size, prompts)) for first in range(0, prompts, size)]
