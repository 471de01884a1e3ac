"""The prompts `messages`: chats, or plain prompts as a user's first turn, written by the model's chat template."""

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.data.chat import FAULTS, FIRST, Chat, Message, as_text, clean, fault_of, looks_like_chat
from alignment.data.prompts.select import Candidate, select
from alignment.data.prompts.source import Prompts, Rows, prompt_source
from alignment.data.prompts.whole import WAY_OUT, longest_prompt
from alignment.errors import DataError
from alignment.rows import Text

if TYPE_CHECKING:
    from alignment.models import Loaded

logger = logging.getLogger(__name__)


@prompt_source("messages", nested=True)
def messages(rows: Rows, base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The chat of each row up to the model's turn; one that is too long loses its oldest turns, where so configured."""
    chats = Chats(Chat(base.tokenizer, config.prompts, base.name), config)
    _warn_of_turns(chats.chat, base)

    def make(batch: Sequence[Text]) -> Iterator[Candidate | str]:
        for row in batch:
            yield chats.candidate(json.loads(row["text"]), row["columns"])

    try:
        found = select(rows, make, config.prompts, excluded, way_out=WAY_OUT, where="too_long")
    except DataError as error:
        raise DataError(f"{error}; {chats.first_fault}" if chats.first_fault else str(error)) from error
    if chats.first_fault:
        logger.warning("prompts: %d rows are left out, the first as %s", chats.faults, chats.first_fault)
    base.conventions.require_known([each.ids for each in (*found.train, *found.held_out)], base.name, base.tokenizer)
    return found


def _warn_of_turns(chat: Chat, base: "Loaded") -> None:
    """Answers run on where the template ends them with a token that the model does not stop at."""
    end = chat.turn_end()
    if end is not None and end not in base.conventions.ends:
        token = base.tokenizer.convert_ids_to_tokens(end)
        logger.warning(
            "%s: its chat template ends an answer with %r, which neither tokenizer nor config nor generation config "
            "names as an end, so answers may run on; add the id %d to `eos_token_id` in its generation_config.json",
            base.name,
            token,
            end,
        )


class Chats:
    """Makes candidates of the chats of rows, and keeps the first fault in words."""

    def __init__(self, chat: Chat, config: AlignConfig) -> None:
        """`config` decides how long a prompt may be, and what becomes of a longer one."""
        self.chat = chat
        self.settings = config.prompts
        self.most = longest_prompt(config)
        self.faults = 0
        self.first_fault = ""

    def candidate(self, value: Any, columns: str) -> Candidate | str:
        """The prompt of a row whose chat or plain prompt is `value`, or why it gives none.

        Raises DataError where a text is a list of messages written as a string: then the whole column is.
        """
        if isinstance(value, str):
            if looks_like_chat(value):
                raise DataError(
                    f"data.text_column: holds lists of messages as strings, such as {value[:60]!r}; store them as "
                    "lists of objects with `role` and `content`, in .parquet or .jsonl"
                )
            value = [{"role": "user", "content": value}]
        elif fault := fault_of(value):
            return self._fault(fault, f"{_shown(value)} {FAULTS[fault]}")
        turns = self.chat.with_system(clean(value))
        if not self.settings.min_chars <= len(str(turns[-1].get("content", ""))) <= self.settings.max_chars:
            return "outside_char_bounds"
        try:
            ids = self.chat.encode(turns)
            while len(ids) > self.most and self.settings.too_long == "keep_end" and (shorter := _without_oldest(turns)):
                turns, ids = shorter, self.chat.encode(shorter)
        except DataError as error:
            return self._fault("template_failed", str(error))
        return Candidate(tuple(ids), as_text(turns), columns) if len(ids) <= self.most else "too_long"

    def _fault(self, name: str, words: str) -> str:
        self.faults += 1
        self.first_fault = self.first_fault or words
        return name


def _shown(value: Any) -> str:
    text = as_text([value])[1:-1]
    return text if len(text) <= 80 else f"{text[:79]}…"


def _without_oldest(turns: Sequence[Message]) -> list[Message]:
    """A chat without its oldest exchange, its system message kept; empty where only the last turn would be left out."""
    head = [turns[0]] if turns[0]["role"] in FIRST else []
    rest = list(turns[len(head) :])
    next_user = next((index for index, turn in enumerate(rest[1:], 1) if turn["role"] == "user"), None)
    return [] if next_user is None else [*head, *rest[next_user:]]
