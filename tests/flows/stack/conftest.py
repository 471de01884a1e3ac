"""A home for a stack, in which no process is left after the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.stack.processes import end_marked


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_marked(tmp_path)
