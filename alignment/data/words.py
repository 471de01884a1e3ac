"""Stands in for a model where none is known yet: a token is a word with the white space before it."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from alignment.conventions import Conventions
from alignment.models import Loaded

NAME = "words"
"""What `base.model` says for it."""

BEGIN = 0
"""The id that every text begins with, as BOS."""

_WORD = re.compile(r"\s*\S+|\s+$")


class WordTokenizer:
    """Numbers words as they come; a chat is its messages with a token before each, which names the role."""

    chat_template = "{{ messages }}"
    eos_token = ""
    all_special_ids = ()
    added_tokens_decoder: Mapping[int, Any] = {}

    def __init__(self) -> None:
        """No word is known yet."""
        self.words: dict[str, int] = {"": BEGIN}

    def ids(self, text: str) -> list[int]:
        """The words of a text."""
        return [self.words.setdefault(word, len(self.words)) for word in _WORD.findall(text)]

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, **_: Any
    ) -> list[int]:
        """The tokens of a chat."""
        turns = [(message["role"], str(message.get("content", ""))) for message in messages]
        turns += [("assistant", "")] if add_generation_prompt else []
        return [
            BEGIN,
            *(token for role, text in turns for token in self.ids(f"\n{role}:") + self.ids(f" {text}".rstrip())),
        ]


class Words(Loaded):
    """Tokenises, decodes, and has no weights and no limit."""

    def __init__(self) -> None:
        """No word is known yet."""
        super().__init__(model=None, tokenizer=WordTokenizer(), name=NAME)

    @cached_property
    def conventions(self) -> Conventions:
        """Texts begin with one token and end with none."""
        return Conventions(ends=(), pad_id=BEGIN, begins=(BEGIN,), opening=(BEGIN,))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The words of texts, after the token that begins each."""
        return [[BEGIN, *self.tokenizer.ids(text)] for text in texts]

    def decode(self, rows: Sequence[Sequence[int]], finished: Sequence[bool]) -> list[str]:
        """The texts of words."""
        del finished
        words = list(self.tokenizer.words)
        return ["".join(words[token] for token in ids) for ids in rows]
