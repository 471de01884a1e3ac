"""The prompts `first_tokens`: the opening of each text, of a length that is drawn from a range."""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from alignment.config import AlignConfig, PromptsConfig
from alignment.conventions import REPLACEMENT
from alignment.data.prompts.ids import hash_ids
from alignment.data.prompts.select import Candidate, Make, select
from alignment.data.prompts.source import Prompts, Rows, prompt_source
from alignment.models import require_room
from alignment.rows import Text

if TYPE_CHECKING:
    from alignment.models import Loaded

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
Decode = Callable[[Sequence[int]], str]


@prompt_source("first_tokens", opens=True)
def first_tokens(rows: Rows, base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The first tokens of each text, which begins as the base's tokenizer begins one."""
    begins = len(base.conventions.begins)
    require_room(begins + config.prompts.tokens_max, config.sampling.total_tokens, base)
    make = openings(base.encode, lambda ids: base.decode([ids], [True])[0], config.prompts, config.seed, begins=begins)
    way_out = (
        f"ask for fewer tokens than prompts.tokens_min = {config.prompts.tokens_min}, widen the character bounds, "
    )
    return select(rows, make, config.prompts, excluded, way_out=way_out)


def openings(encode: Encode, decode: Decode, config: PromptsConfig, seed: int, *, begins: int = 0) -> Make:
    """Cuts prompts from the openings of texts; `encode` gives token ids.

    The first `begins` of a text's ids are those that stand before every text, such as BOS; they count for no length.
    Where the length is drawn from a range, the draw belongs to the text, so the order of the texts does not matter.
    """

    def make(rows: Sequence[Text]) -> Iterator[Candidate | str]:
        texts = [row["text"] for row in rows]
        for row, text, ids in zip(rows, texts, encode(texts), strict=True):
            opening = ids[: begins + config.tokens_max]
            draw = random.Random(f"{seed}:{hash_ids(opening)}")  # noqa: S311 - reproducible, not secret
            wanted = begins + draw.randint(config.tokens_min, config.tokens_max)
            if not config.min_chars <= len(text) <= config.max_chars:
                yield "outside_char_bounds"
            elif len(ids) < wanted:
                yield "too_few_tokens"
            elif REPLACEMENT in decode(ids[:wanted]) and REPLACEMENT not in text:
                yield "cut_inside_a_character"
            else:
                yield Candidate(tuple(ids[:wanted]), columns=row["columns"])

    return make
