"""A judge's answers, each kept in a file of its own as it arrives, so that nothing is asked and paid for twice."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.stages.store import digest, disk_errors, write_json

logger = logging.getLogger(__name__)

FOLDER = "judge"


@dataclass(frozen=True)
class Answer:
    """What the judge answered to one request: its text, why it ended, and the tokens of both as the endpoint counts."""

    text: str
    finish: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def tokens(self) -> int:
        """What was paid for, in tokens."""
        return self.prompt_tokens + self.answer_tokens


class KeptAnswers:
    """Answers by the hash of their request: the model's name, the messages and the settings, and not the address.

    A file is written whole or not at all, so a process may be killed at any time and several may share the folder.
    """

    def __init__(self, kept: Path) -> None:
        """They lie in the folder `judge` of `kept`, which is made with the first one."""
        self.folder = kept / FOLDER

    def find(self, request: dict[str, Any]) -> Answer | None:
        """The answer to this request, or None; one that cannot be read is asked for again, and a warning says so."""
        file = self._file(request)
        try:
            return Answer(**json.loads(file.read_text(encoding="utf-8"))["answer"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: is not readable (%s); it is asked for again", file, " ".join(str(error).split()))
            return None

    def keep(self, request: dict[str, Any], answer: Answer) -> None:
        """Write an answer down, with its request for whoever looks. Raises StoreError where the disk refuses."""
        file = self._file(request)
        with disk_errors(file, self.folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"request": request, "answer": asdict(answer)})

    def _file(self, request: dict[str, Any]) -> Path:
        name = digest(request)
        return self.folder / name[:2] / f"{name}.json"
