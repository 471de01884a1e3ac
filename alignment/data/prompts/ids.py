"""The id of a prompt, the side that it decides, and files of ids that are not trained on again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alignment.errors import DataError

Split = Literal["train", "eval"]


def hash_ids(ids: Sequence[int], salt: str = "") -> str:
    """The id of a prompt: a hash of its token ids."""
    return hashlib.sha256(f"{salt}:{','.join(map(str, ids))}".encode()).hexdigest()[:16]


def split(prompt_id: str, eval_fraction: float) -> Split:
    """The side of a prompt, decided by its id alone."""
    place = int(hashlib.sha256(f"split:{prompt_id}".encode()).hexdigest()[:8], 16) / 16**8
    return "eval" if place < eval_fraction else "train"


def read_ids(path: str) -> set[str]:
    """The prompt ids of a text file, one a line. Raises DataError where it cannot be read."""
    try:
        return set(Path(path).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"prompts.exclude {path}: cannot be read ({reason}); give a text file of prompt ids, or leave it empty"
        ) from error
