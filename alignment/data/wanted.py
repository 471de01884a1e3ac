"""What is wanted of a source of rows: its columns, and the errors that name the source and what is wrong with it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.errors import DataError

Row = tuple[str | None, str | None, str]
"""Text and label, None where there is none, and the further columns as a JSON object; empty where none are wanted."""

_SHOWN = 20  # columns that a message names


@dataclass(frozen=True)
class Wanted:
    """A source, and the columns to read from it.

    `path` is how errors name the source. No label is read where `label` is empty. `columns` are further ones,
    and `optional` some that a source may lack. Where `nested`, a text may be a list or an object, such as the messages
    of a chat, and is given as JSON.
    """

    path: str
    text: str
    label: str = ""
    columns: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    nested: bool = False
    split: str = "train"

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the columns that have to be there, once each."""
        return tuple(dict.fromkeys(filter(None, (self.text, self.label, *self.columns))))

    def named(self, names: Sequence[str]) -> list[str]:
        """The wanted columns among those that the source has."""
        return [name for name in dict.fromkeys((*self.needed, *self.optional)) if name in names]

    def others(self, names: Sequence[str]) -> list[str]:
        """Those of them beside text and label that go into the JSON object."""
        return [name for name in dict.fromkeys((*self.columns, *self.optional)) if name in names]


def fault(wanted: Wanted, what: str) -> DataError:
    """The error that a source is not what it should be."""
    return DataError(f"data.path {wanted.path}: {what}")


def require_columns(names: Sequence[str], wanted: Wanted) -> None:
    """Raise DataError where a needed column is missing, or one is there more than once."""
    further = (("columns", name) for name in wanted.columns)
    roles = [("text_column", wanted.text), ("label_column", wanted.label), *further]
    for role, column in roles:
        if column and column not in names:
            others = ", ".join(f"`{name[:40]}`" for name in names[:_SHOWN]) or "none"
            more = ", …" if len(names) > _SHOWN else ""
            if wanted.optional:
                raise fault(
                    wanted,
                    f"has no column `{column}` (it has {others}{more}); pairs need `chosen` and `rejected`, and "
                    "`prompt` where these do not begin with it: rename the columns, or, for prompts without pairs, set "
                    "prompts.source to messages or column and data.text_column to theirs",
                )
            hint = ' or to "" if the texts have no labels' if role == "label_column" else ""
            raise fault(
                wanted, f"has no column `{column}` (it has {others}{more}); set data.{role} to one of them{hint}"
            )
    for column in wanted.named(names):
        if list(names).count(column) > 1:
            raise fault(wanted, f"has {list(names).count(column)} columns `{column}`; rename all but one of them")


def not_text(wanted: Wanted, where: str, kind: str, column: str = "") -> DataError:
    """The error that a column holds no texts, or no labels."""
    column = column or wanted.text
    role = "text" if column == wanted.text else "label"
    way_out = "write each text as one string" if role == "text" else "write each label as one value"
    if role == "text" and "list" in kind:
        way_out += ", or set prompts.source to messages if these are chats"
    place = f"{where}: " if where else ""
    return fault(wanted, f"{place}the column `{column}` holds {kind}, and not a {role}; {way_out}")


def as_json(value: Any) -> str:
    """A value of any column as JSON: what JSON does not have, such as a date, as its text, and NaN as null."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
