"""The header of a safetensors file: which tensors it holds, and whether the file has all of their bytes."""

import json
import math
import struct
from pathlib import Path
from typing import Any

from alignment.errors import ModelError

HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have."""


def header_of(file: Path, where: str) -> dict[str, Any]:
    """What a file says of each tensor by its name: `shape`, `data_offsets`, `dtype`. No tensor is read.

    Raises ModelError, which begins with `where`, if the file has no such header, or ends before its last tensor does.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, HEADER)))
        found = {name: each for name, each in header.items() if name != "__metadata__"}
        for each in found.values():
            math.prod(each["shape"])
        needed = 8 + length + max((each["data_offsets"][1] for each in found.values()), default=0)
        size = file.stat().st_size
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise ModelError(
            f"{where}: its header cannot be read as safetensors, as after a download that broke off; get the file again"
        ) from error
    if size < needed:
        raise ModelError(
            f"{where}: the file is cut off ({size:,} of {needed:,} bytes), as after a download that broke off; get it "
            "again"
        )
    return found
