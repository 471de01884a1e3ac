"""Chats: lists of messages, checked, and as token ids through a model's chat template."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.config import PromptsConfig
from alignment.errors import ConfigError, DataError, ModelError

Message = dict[str, Any]
"""`role` and `content`, both texts, and whatever else a template may read, such as `tool_calls`."""

FIRST = ("system", "developer")
FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "": (*FIRST, "user"),
    "system": ("user",),
    "developer": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
"""Which roles may follow a role; after "" come those that a chat begins with."""

FAULTS: Mapping[str, str] = {
    "no_chat": "is no list of messages; write each chat as a list of objects with `role` and `content`",
    "empty_chat": "is an empty chat; leave the row out, or give it a user's turn",
    "no_role_or_content": "has a message without `role` or `content` as texts; give each both",
    "roles_out_of_order": "has its roles out of order; a system message may come first, then user and assistant take "
    "turns",
    "not_the_users_turn": "does not end with a user's turn, so there is nothing to answer; leave its last message out",
}


def fault_of(value: Any, *, last: Sequence[str] = ("user", "tool")) -> str:
    """Why a value is no chat that ends with one of the roles `last`: a key of `FAULTS`, or empty where it is one."""
    if not isinstance(value, list):
        return "no_chat"
    if not value:
        return "empty_chat"
    role = ""
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return "no_role_or_content"
        if not isinstance(message.get("content") or "", str) or not (message.get("content") or len(message) > 2):
            return "no_role_or_content"
        if message["role"] not in FOLLOWS[role]:
            return "roles_out_of_order"
        role = message["role"]
    return "" if role in last else "not_the_users_turn"


def require_messages(value: Any, where: str) -> list[Message]:
    """The messages of a chat that ends with the user's turn. Raises DataError, which begins with `where`."""
    if fault := fault_of(value):
        raise DataError(f"{where} {FAULTS[fault]}")
    return clean(value)


def clean(value: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages without fields that are null, as tables have them where another row has a value."""
    return [{name: found for name, found in message.items() if found is not None} for message in value]


def looks_like_chat(text: str) -> bool:
    """Whether a text is a list of messages that was written as one string."""
    start = text.lstrip()[:200].replace(" ", "")
    return start.startswith(("[{", "{")) and ("'role'" in start or '"role"' in start)


class Chat:
    """A model's chat template, or the one of `prompts.chat_template`, with the settings of the prompts."""

    def __init__(self, tokenizer: Any, config: PromptsConfig, name: str = "the model") -> None:
        """Raises ModelError where there is no template; `name` is how errors name the model."""
        self.tokenizer = tokenizer
        self.name = name
        self.system = config.system
        self.template = read_template(config.chat_template) if config.chat_template else None
        self.variables = dict(config.chat_template_kwargs)
        if self.template is None and not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{name}: its tokenizer has no chat template, which chats are written by; set prompts.chat_template to "
                "a file with one, or take an instruct model"
            )

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, begun with `prompts.system` where they bring no system message."""
        if not self.system or (messages and messages[0]["role"] in FIRST):
            return list(messages)
        return [{"role": "system", "content": self.system}, *messages]

    def encode(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """The token ids of messages as the template writes them, as `apply_chat_template` of the same messages gives.

        Raises DataError where the template fails, as many do on roles that their model does not know.
        """
        try:
            found = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.template,
                add_generation_prompt=add_generation_prompt,
                tokenize=True,
                return_dict=False,
                **self.variables,
            )
        except Exception as error:  # a template raises whatever it likes
            raise DataError(
                f"{self.name}: its chat template fails ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
                "leave out what it does not know, such as a system message, or set prompts.chat_template"
            ) from error
        return [int(token) for token in found]

    def turn_end(self) -> int | None:
        """The special token with which the template ends an answer; None where there is none, or it will not tell."""
        asked = self.with_system([{"role": "user", "content": "a"}])
        try:
            prompt = self.encode(asked)
            whole = self.encode([*asked, {"role": "assistant", "content": "a"}], add_generation_prompt=False)
        except DataError:  # it asks for more than that, such as a system message
            return None
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return next((token for token in whole[len(prompt) :] if token in special), None)


def read_template(path: str) -> str:
    """The text of a chat template's file. Raises ConfigError where it cannot be read or is empty."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"prompts.chat_template {path}: cannot be read ({reason}); give a file in Jinja") from error
    if not text.strip():
        raise ConfigError(f"prompts.chat_template {path}: is empty; give a file in Jinja, or leave the field empty")
    return text


def as_text(messages: Sequence[Message]) -> str:
    """Messages as the JSON that rows hold."""
    return json.dumps(list(messages), ensure_ascii=False)
