"""The prompts `pairs`: those of given pairs, whole texts or chats, as they are sampled to for the evaluation."""

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from alignment.config import AlignConfig
from alignment.data.chat import Chat
from alignment.data.preferences import FaultyRowError, Preference, preference
from alignment.data.prompts.messages import Chats
from alignment.data.prompts.select import Candidate, select
from alignment.data.prompts.source import Prompts, Rows, prompt_source
from alignment.data.prompts.whole import WAY_OUT, whole
from alignment.errors import DataError
from alignment.rows import Text

if TYPE_CHECKING:
    from alignment.models import Loaded

logger = logging.getLogger(__name__)


@prompt_source("pairs", nested=True)
def pairs(rows: Rows, base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The prompt of each pair; a row that is no pair gives none, and is counted under what is wrong with it."""
    prompts = PairPrompts(base, config)

    def make(batch: Sequence[Text]) -> Iterator[Candidate | str]:
        for row in batch:
            yield prompts.of_row(row["columns"])

    try:
        found = select(rows, make, config.prompts, excluded, way_out=WAY_OUT, where="too_long")
    except DataError as error:
        raise DataError(f"{error}; {prompts.first_fault}" if prompts.first_fault else str(error)) from error
    if prompts.first_fault:
        logger.warning("prompts: %s", prompts.first_fault)
    base.conventions.require_known([each.ids for each in (*found.train, *found.held_out)], base.name, base.tokenizer)
    return found


class PairPrompts:
    """Makes candidates of the prompts of given pairs, and keeps the first fault in words."""

    def __init__(self, base: "Loaded", config: AlignConfig) -> None:
        """`config` decides how long a prompt may be, and what becomes of a longer one."""
        self.base = base
        self.config = config
        self.first_fault = ""

    @cached_property
    def chats(self) -> Chats:
        """Makes those of conversations. Raises ModelError where the model has no chat template."""
        return Chats(Chat(self.base.tokenizer, self.config.prompts, self.base.name), self.config)

    def of_row(self, columns: str) -> Candidate | str:
        """The prompt of a row whose columns are given as JSON, or why it gives none."""
        try:
            return self.of(preference(json.loads(columns)), columns)
        except FaultyRowError as fault:
            self.first_fault = self.first_fault or f"the first row that is no pair: {fault}"
            return fault.name

    def of(self, given: Preference, columns: str = "") -> Candidate | str:
        """The prompt of a pair, or why it gives none."""
        if not isinstance(given.prompt, str):
            return self.chats.candidate(given.prompt, columns)
        (ids,) = self.base.encode([given.prompt])
        if not ids:
            return "no_prompt_token"
        return whole(given.prompt, ids, columns, self.config, self.base.conventions.begins)
