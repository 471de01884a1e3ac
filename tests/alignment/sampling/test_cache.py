"""A cache that cannot be split between samples: whole sequences instead, said once, with the same samples."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alignment.errors import ModelError
from alignment.sampling import plain
from tests.alignment.architectures import build
from tests.alignment.sampling.test_local import CONTEXT, assert_same, draw, draw_alone, make_config, make_requests

PROMPTS = [[3, 4, 5], [6, 7, 8, 9, 10], [3, 4, 5], [11]]


class Cache:
    """A cache of a kind of its own, with no more methods than it is given."""

    def __init__(self, **methods: Callable[..., None]) -> None:
        vars(self).update(methods)


class Own(torch.nn.Module):
    """A model whose cache is `cache`; it fails where it is given one that it handed out."""

    def __init__(self, inner: Any, cache: Cache, fault: Exception | None = None) -> None:
        super().__init__()
        self.inner, self.cache, self.fault, self.config = inner, cache, fault, inner.config
        self.calls: list[bool] = []

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> Any:
        self.calls.append(use_cache)
        if past_key_values is not None and self.fault is not None:
            raise self.fault
        out = self.inner(input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False)
        out.past_key_values = self.cache if use_cache else None
        return out


def refuse(*_: Any) -> None:
    raise NotImplementedError("no beams")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == plain.__name__]


@pytest.mark.parametrize(
    ("cache", "fault", "reason"),
    [
        (Cache(), None, "AttributeError: 'Cache' object has no attribute 'reorder_cache'"),
        (Cache(reorder_cache=refuse), None, "NotImplementedError: no beams"),
        (Cache(reorder_cache=lambda _: None), RuntimeError("4 rows\nagainst 3"), "RuntimeError: 4 rows against 3"),
    ],
    ids=["it cannot", "it refuses", "the next step fails"],
)
def test_whole_sequences_are_taken_instead_and_that_is_said_once(
    cache: Cache, fault: Exception | None, reason: str, tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    inner = tiny_gpt2(0, context=CONTEXT)
    model = Own(inner, cache, fault)
    config = make_config(batch_tokens=2 * CONTEXT)
    requests = make_requests(PROMPTS, config)
    with caplog.at_level(logging.WARNING):
        found = draw(model, requests, config)
    assert_same(found, [draw_alone(inner, asked, config) for asked in requests])
    assert said(caplog) == [
        f"the model: its cache cannot be split between samples ({reason}); from here on each token costs a pass over "
        "the whole text, which is slow and gives the same log-probs"
    ]
    model.calls.clear()
    assert_same(draw(model, requests, config), found)
    assert not any(model.calls)
    assert len(said(caplog)) == 1


def test_a_real_one_gives_what_it_gives_without_a_cache(caplog: pytest.LogCaptureFixture) -> None:
    """MiniMax's linear attention keeps its states where `reorder_cache` does not reach them."""
    cached, uncached = make_config(), make_config(cache=False)
    requests = make_requests(PROMPTS, cached)
    found = draw(build("minimax", eos_token_id=0), requests, cached)
    assert len(said(caplog)) == 1
    assert_same(found, draw(build("minimax", eos_token_id=0), requests, uncached))
    assert len(said(caplog)) == 1


def test_a_model_that_fails_either_way_is_an_error_and_its_cache_is_not_blamed(
    tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    inner = tiny_gpt2(0, context=8)
    requests = make_requests([[1] * 20], make_config())
    with pytest.raises(ModelError, match="cannot be used for sampling"):
        draw(Own(inner, Cache()), requests, make_config())
    assert said(caplog) == []


def test_where_memory_runs_out_whole_sequences_would_take_more(
    tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    class OutOfMemoryError(RuntimeError):
        """torch's, by its name."""

    model = Own(tiny_gpt2(0, context=CONTEXT), Cache(reorder_cache=lambda _: None), OutOfMemoryError())
    with pytest.raises(ModelError, match="the GPU's memory does not hold one sequence"):
        draw(model, make_requests(PROMPTS, make_config()), make_config())
    assert said(caplog) == []
