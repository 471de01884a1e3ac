"""Whole prompts: the source `column`, and how long a whole prompt may be."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from alignment.config import AlignConfig
from alignment.data.prompts.select import Candidate, select
from alignment.data.prompts.source import Prompts, Rows, prompt_source
from alignment.rows import Text

if TYPE_CHECKING:
    from alignment.models import Loaded

WAY_OUT = "raise prompts.max_tokens or sampling.total_tokens where prompts are too long, "


@prompt_source("column")
def column(rows: Rows, base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The whole text of each row, begun as the base's tokenizer begins a text; a longer one as `too_long` says."""

    def make(batch: Sequence[Text]) -> Iterator[Candidate | str]:
        for row, ids in zip(batch, base.encode([row["text"] for row in batch]), strict=True):
            yield whole(row["text"], ids, row["columns"], config, base.conventions.begins)

    return select(rows, make, config.prompts, excluded, way_out=WAY_OUT, where="too_long")


def whole(text: str, ids: Sequence[int], columns: str, config: AlignConfig, begins: Sequence[int]) -> Candidate | str:
    """A whole text's prompt, or why it gives none; `ids` are its token ids, `begins` what stands before every text."""
    most, settings = longest_prompt(config), config.prompts
    if not settings.min_chars <= len(text) <= settings.max_chars:
        return "outside_char_bounds"
    if len(ids) > most and settings.too_long == "drop":
        return "too_long"
    if len(ids) > most and settings.too_long == "keep_end":
        return Candidate((*begins, *ids[len(ids) - most + len(begins) :]), columns=columns)
    return Candidate(tuple(ids[:most]), columns=columns)


def longest_prompt(config: AlignConfig) -> int:
    """The most tokens of a prompt, BOS aside: for whole ones `prompts.max_tokens`, or what a completion leaves."""
    if config.prompts.source in ("empty", "first_tokens"):
        return 1 if config.prompts.source == "empty" else config.prompts.tokens_max
    total, new = config.sampling.total_tokens, config.sampling.new_tokens_max
    return config.prompts.max_tokens or max(total - new if 0 < new < total else total // 2, 1)
