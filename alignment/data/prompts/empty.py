"""The prompts `empty`: no text at all, such as BOS alone, as often as prompts are asked for."""

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from alignment.config import AlignConfig, PromptsConfig
from alignment.data.prompts.ids import hash_ids
from alignment.data.prompts.source import Cut, Prompts, Rows, prompt_source
from alignment.models import require_room

if TYPE_CHECKING:
    from alignment.models import Loaded


@prompt_source("empty")
def nothing(_: Rows, base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The empty prompt, such as BOS, as often as prompts are asked for."""
    require_room(len(base.conventions.opening), config.sampling.total_tokens, base)
    return empty(base.conventions.opening, config.prompts, excluded)


def empty(opening: Sequence[int], config: PromptsConfig, excluded: Collection[str] = ()) -> Prompts:
    """`count` + `eval_count` copies of the empty prompt, such as BOS; each has its own id, for its random numbers.

    The train side's ids are the first that are not `excluded`.
    """
    ids = (hash_ids(opening, f"train:{i}") for i in itertools.count())
    unused = itertools.islice((prompt_id for prompt_id in ids if prompt_id not in excluded), config.count)
    train = [Cut(prompt_id, tuple(opening), "train") for prompt_id in unused]
    held_out = [Cut(hash_ids(opening, f"eval:{i}"), tuple(opening), "eval") for i in range(config.eval_count)]
    return Prompts(train, held_out, {"train": len(train), "eval": len(held_out)})
