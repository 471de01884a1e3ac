"""A row of preference data in any of TRL's formats as one form: a prompt, two completions, and scores where given.

The formats are those of TRL's documentation ("Dataset formats and types", version 1.16): standard (texts) or
conversational (lists of messages with a role and a content), with an explicit prompt or one that both sides begin with.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from alignment.data.chat import FOLLOWS, Message, clean, looks_like_chat

Side: TypeAlias = str | list[Message]
"""A text, or a list of messages."""

COLUMNS = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "margin")
"""The columns that are read; all but chosen and rejected may be missing."""

FAULTS = {
    "missing_column": "whole: the columns chosen and rejected are needed",
    "null": "without null in prompt, chosen and rejected",
    "not_text": "texts, or lists of messages",
    "messages_in_a_text": "lists of messages, and not texts that spell them",
    "mixed_formats": "texts throughout, or messages throughout",
    "empty_chat": "conversations of one message or more",
    "not_messages": "messages with a role and a content, both texts",
    "roles_out_of_order": "messages of user and assistant in turn, after a system message or none; a completion begins "
    "and ends with the assistant's",
    "prompts_differ": "of one prompt on both sides",
    "no_common_prompt": "of one prompt: a column of its own, or what both sides begin with",
    "chosen_is_rejected": "unequal on the two sides",
    "score_is_no_number": "numbers, or missing, in score_chosen, score_rejected and margin",
    "one_score": "with both scores, or neither",
    "template_failed": "messages that the chat template takes",
    "no_prompt_token": "of a prompt of one token or more",
    "too_long": "no longer than the model's context, prompt and completion together",
}
"""What may be wrong with a row, and what completes the sentence "the row must be ..."."""


@dataclass(frozen=True)
class Preference:
    """A row: what was preferred over what as a completion of the prompt.

    Prompt and completions are of one kind, texts or messages. `explicit` says whether the row named its prompt. Scores
    are both there or both None; `margin` is by how much chosen was preferred, where the row says so.
    """

    prompt: Side
    chosen: Side
    rejected: Side
    explicit: bool
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None

    @property
    def gap(self) -> float | None:
        """Chosen score minus rejected score, or the margin where there are none; None where neither was given."""
        if self.chosen_score is None or self.rejected_score is None:
            return self.margin
        return self.chosen_score - self.rejected_score

    @property
    def is_chat(self) -> bool:
        """Whether it is of messages."""
        return not isinstance(self.prompt, str)

    @property
    def format(self) -> str:
        """The format in TRL's words."""
        kind = "conversational" if self.is_chat else "standard"
        return f"{kind}, {'explicit' if self.explicit else 'implicit'} prompt"


class FaultyRowError(ValueError):
    """A row that gives no pair: `name` is one of FAULTS, and the message says what stands there."""

    def __init__(self, name: str, found: str) -> None:
        """`found` is told to people."""
        super().__init__(found)
        self.name = name


def preference(row: Mapping[str, Any]) -> Preference:
    """The row's prompt and completions. Raises FaultyRowError where it has no such."""
    for column in ("chosen", "rejected"):
        if column not in row:
            raise FaultyRowError("missing_column", f"there is no `{column}`")
    sides = {column: _side(column, row[column]) for column in COLUMNS[:3] if column in row}
    if isinstance(sides["chosen"], str) != isinstance(sides["rejected"], str):
        raise FaultyRowError("mixed_formats", "one of chosen and rejected is a text, the other a conversation")
    if sides["chosen"] == sides["rejected"]:
        raise FaultyRowError("chosen_is_rejected", f"both are {_shown(sides['chosen'])}")
    scores = _scores(row)
    given = sides.get("prompt")
    if isinstance(sides["chosen"], str) and isinstance(given, list):
        raise FaultyRowError("mixed_formats", "the prompt is a conversation, chosen and rejected are texts")
    explicit = given is not None and isinstance(given, str) == isinstance(sides["chosen"], str)
    prompt, chosen, rejected = (given, sides["chosen"], sides["rejected"]) if explicit else _split(sides)
    if isinstance(prompt, str):
        if not explicit and not prompt:
            raise FaultyRowError("no_common_prompt", "chosen and rejected begin with no text that they share")
    else:
        _require_order(prompt, (chosen, rejected))
        if isinstance(given, str):
            _require_asked(given, prompt)
    return Preference(prompt, chosen, rejected, explicit, *scores)


def _side(column: str, value: Any) -> Side:
    if value is None:
        raise FaultyRowError("null", f"{column} is null")
    if isinstance(value, str):
        if looks_like_chat(value):
            raise FaultyRowError("messages_in_a_text", f"{column} is a text that spells messages: {value[:40]!r}")
        return value
    if not isinstance(value, list):
        raise FaultyRowError("not_text", f"{column} is {_shown(value)}")
    if not value:
        raise FaultyRowError("empty_chat", f"{column} has no message")
    return [_message(column, number, each) for number, each in enumerate(value, 1)]


def _message(column: str, number: int, value: Any) -> Message:
    """A message with all that a template may read; its content may be missing beside something else, as tool calls."""
    if not isinstance(value, Mapping):
        raise FaultyRowError("not_messages", f"message {number} of {column} is {_shown(value)}")
    (found,) = clean([value])
    if not isinstance(found.get("role"), str):
        raise FaultyRowError("not_messages", f"message {number} of {column} has {_shown(value.get('role'))} as role")
    if not isinstance(found.get("content", ""), str) or ("content" not in found and len(found) < 2):
        raise FaultyRowError(
            "not_messages", f"message {number} of {column} has {_shown(value.get('content'))} as content"
        )
    return found


def _scores(row: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    chosen, rejected, margin = (_number(name, row.get(name)) for name in COLUMNS[3:])
    if (chosen is None) != (rejected is None):
        there, missing = ("score_rejected", "score_chosen") if chosen is None else ("score_chosen", "score_rejected")
        raise FaultyRowError("one_score", f"there is a {there} and no {missing}")
    return chosen, rejected, margin


def _number(name: str, value: Any) -> float | None:
    """A number, which a table of texts has as a text; None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise FaultyRowError("score_is_no_number", f"{name} is {_shown(value)}")
    return found


def _split(sides: Mapping[str, Any]) -> tuple[Any, ...]:
    """The prompt that both sides begin with, and what each adds to it: `trl.extract_prompt`, version 1.16.

    The longest common prefix in characters or messages, without a space at its end; where one side is the beginning of
    the other, its last character or message is left to it as its completion.
    """
    chosen, rejected = sides["chosen"], sides["rejected"]
    shorter = min(len(chosen), len(rejected))
    place = next((place for place in range(shorter) if chosen[place] != rejected[place]), max(shorter - 1, 0))
    if place and place < shorter and chosen[place] != rejected[place] and chosen[place - 1] == " ":
        place -= 1
    return chosen[:place], chosen[place:], rejected[place:]


def _require_order(prompt: Sequence[Message], sides: Sequence[Sequence[Message]]) -> None:
    """Raise FaultyRowError unless both are conversations of one question, and differ in what the assistant says."""
    for side in sides:
        roles = [message["role"] for message in (*prompt, *side)]
        for number, (before, role) in enumerate(zip(["", *roles], roles, strict=False), 1):
            if role not in FOLLOWS.get(before, ()):
                after = f"after the {before}'s" if before else "first"
                raise FaultyRowError("roles_out_of_order", f"message {number} is the {role}'s, {after}")
    chosen, rejected = sides
    if chosen[0] != rejected[0] and {chosen[0]["role"], rejected[0]["role"]} != {"assistant"}:
        raise FaultyRowError("prompts_differ", f"they part at {_shown(chosen[0])} and {_shown(rejected[0])}")
    for side in sides:
        first, last = side[0]["role"], side[-1]["role"]
        if (first, last) != ("assistant", "assistant"):
            raise FaultyRowError("roles_out_of_order", f"a completion goes from the {first}'s message to the {last}'s")


def _require_asked(prompt: str, shared: Sequence[Message]) -> None:
    """Raise FaultyRowError unless a prompt that is given as a text beside conversations stands in them."""
    asked = [message.get("content", "").strip() for message in shared if message["role"] != "assistant"]
    if prompt.strip() not in asked:
        raise FaultyRowError("prompts_differ", f"the prompt {_shown(prompt)} is no message of both conversations")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text if len(text) <= 60 else f"{text[:59]}…") if isinstance(value, str) else text[:60]
