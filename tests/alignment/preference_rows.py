"""Preference data in TRL's formats, and a tokenizer that knows chats, for tests of given pairs."""

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORMATS = ("standard explicit", "standard implicit", "conversational explicit", "conversational implicit")


def content(number: int) -> tuple[str, str, str]:
    """Prompt, chosen and rejected; the completions part at their first letter, so that each format means the same."""
    return (
        f"Was film {number} fine?{' Be brief.' * (number % 3)}",
        f" Yes, the plot of film {number} was fine{'.' * (number % 2)}",
        f" No, the acting was{' very' * (number % 4)} dull",
    )


def row_of(number: int, format: str) -> dict[str, Any]:
    """The row of a number in one of the formats."""
    prompt, chosen, rejected = content(number)
    if format == "standard explicit":
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if format == "standard implicit":
        return {"chosen": prompt + chosen, "rejected": prompt + rejected}
    asked = [{"role": "user", "content": prompt}]
    sides = {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    if format == "conversational explicit":
        return {"prompt": asked, **sides}
    return {side: asked + answer for side, answer in sides.items()}


def with_chatml(tokenizer: Any) -> Any:
    """A copy of a tokenizer that knows ChatML, and ends texts by another token than chats."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The rows as a .jsonl file."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
