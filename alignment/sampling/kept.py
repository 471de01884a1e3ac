"""What another process drew, kept in a file as it arrives, so that a crash draws nothing twice."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.stages.store import digest, disk_errors

FILE = "drawn.jsonl"


@dataclass(frozen=True)
class Drawn:
    """A sample as another process gives it: every token that it drew, with log-probs, and why it ended there."""

    ids: list[int]
    logprobs: list[float]
    reason: str = ""


class KeptDraws:
    """What was drawn by the request that it answers and who answered it; a line that was cut off does not count."""

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        """In the `folder`, or without one in memory alone; `identity` is that of the engine."""
        self._file = folder / FILE if folder else None
        self._identity = dict(identity)
        self._found: dict[str, Drawn] = {}
        if self._file is not None and self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._found[row["request"]] = Drawn(row["ids"], row["logprobs"], row["reason"])
                except (ValueError, KeyError, TypeError):
                    continue

    def find(self, request: Mapping[str, Any]) -> Drawn | None:
        """What was drawn for this request, or None."""
        return self._found.get(self._name(request))

    def keep(self, request: Mapping[str, Any], drawn: Drawn) -> None:
        """Write it down. Raises StoreError where the disk refuses."""
        name = self._name(request)
        self._found[name] = drawn
        if self._file is not None:
            line = json.dumps({"request": name} | asdict(drawn))
            with disk_errors(self._file, self._file.parent):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as out:
                    out.write(f"\n{line}")  # behind whatever a crash has left of the line before

    def _name(self, request: Mapping[str, Any]) -> str:
        return digest({"request": request, "engine": self._identity})
