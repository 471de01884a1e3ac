"""What `plumbline bootstrap` reports of each thing that it made, changed or left."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Change:
    """One line of its output."""

    how: Literal["made", "changed", "left", "skipped"]
    what: str
    note: str = ""
