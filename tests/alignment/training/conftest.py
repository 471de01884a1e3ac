"""The small policy, and pairs whose reference it is."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.alignment.training.small import Pair, make_pairs


@pytest.fixture
def model(tiny_gpt2: Callable[..., Any]) -> Any:
    return tiny_gpt2(0, width=16)


@pytest.fixture
def pairs(model: Any) -> list[Pair]:
    return make_pairs(model, 10)
