"""What a source of prompts is: a function from rows to the prompts of both sides, registered under its name."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignment.config import AlignConfig
from alignment.data.prompts.ids import Split
from alignment.kinds import PROMPTS, registers
from alignment.rows import Text

if TYPE_CHECKING:
    from alignment.models import Loaded


@dataclass(frozen=True)
class Cut:
    """A prompt as it was cut: its token ids, the side it is on, and an id that is the hash of its content.

    `messages` are those of a chat and `columns` further columns of its row, both as JSON, or empty.
    """

    id: str
    ids: tuple[int, ...]
    split: Split
    messages: str = ""
    columns: str = ""


@dataclass(frozen=True)
class Prompts:
    """The prompts of both sides, and what became of each row: kept, or dropped and why; `counts` sums to the rows."""

    train: list[Cut]
    held_out: list[Cut]
    counts: dict[str, int]


@dataclass(frozen=True)
class Rows:
    """The rows that prompts are made of; `held_out` are those of `prompts.eval_path`, None where there is none."""

    all: Callable[[], Sequence[Text]]
    held_out: Callable[[], Sequence[Text]] | None = None


PromptSource = Callable[[Rows, "Loaded", AlignConfig, Collection[str]], Prompts]


def prompt_source(name: str, *, nested: bool = False, opens: bool = False) -> Callable[[PromptSource], PromptSource]:
    """Register `(rows, base, config, excluded) -> Prompts` under its name in `prompts.source`.

    Prompts with an `excluded` id are on neither side. Where it is `nested`, the text of a row is JSON: a string, or a
    list such as the messages of a chat. Say `opens=True` of prompts that are openings of texts, so that prompt and
    completion together are one text.
    """
    del nested, opens  # read from here by `alignment.stages`, without an import
    return registers(PROMPTS, name)
