"""One time axis: rows that leave, rows that come in and columns that move give what each request gives alone."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alignment.conventions import Conventions
from alignment.device import round_products
from alignment.errors import ModelError
from alignment.sampling import local
from alignment.sampling.cache import AxisCache, is_plain
from alignment.sampling.choice import choose
from alignment.sampling.continuous import Running
from alignment.sampling.engine import Completion, Request
from alignment.sampling.plain import draw_batch
from tests.alignment.architectures import BOS, EOS, PAD, build
from tests.alignment.sampling.test_local import assert_same, draw_alone, make_config, make_requests

CONTEXT = 24
ENDS = Conventions(ends=(EOS,), pad_id=PAD)
PROMPTS = [
    [BOS, *range(4, 4 + length)] for length in (1, 2, 2, 9, 9, 3, 14, 1, 5, 5, 5, 5, 2, 17, 22, 2, 8, 3, 3, 12, 22, 1)
]
PROMPTS += PROMPTS[:6]

FAMILIES = ["gpt2", "llama", "qwen2", "mistral", "gpt_neox", "gemma", "gemma2", "gpt_oss", "bloom", "opt", "mpt"]
"""Learned positions, rotary ones, windows of 8 columns, a cap on logits, sinks, ALiBi, positions of its own."""


def make_drawable(count: int = len(PROMPTS), **changes: Any) -> tuple[list[Request], Any]:
    config = make_config(**({"total_tokens": CONTEXT, "batch_tokens": 5 * CONTEXT} | changes))
    return make_requests(PROMPTS[:count], config), config


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often rows were taken in, moved into the places of others, and along the axis."""
    counts = dict.fromkeys(("put", "keep", "move"), 0)
    for name in counts:
        real = getattr(AxisCache, name)

        def counted(cache: AxisCache, *given: Any, name: str = name, real: Any = real) -> Any:
            counts[name] += 1
            return real(cache, *given)

        monkeypatch.setattr(AxisCache, name, counted)
    return counts


def assert_drawn_from(model: Any, asked: Request, drawn: Completion, config: Any) -> None:
    """Each token is what a plain forward pass over the text before it chooses, and the log-prob is that pass's."""
    ids = torch.tensor(drawn.ids)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*asked.prompt, *drawn.ids]])).logits[0, len(asked.prompt) - 1 : -1]
    chosen = choose(logits, torch.tensor(asked.uniforms[: len(ids)]), config)
    assert chosen.tolist() == drawn.ids
    assert EOS not in drawn.ids[:-1]
    assert drawn.finished == (drawn.ids[-1] == EOS)
    assert drawn.finished or len(drawn.ids) == len(asked.uniforms)
    own = logits.double().log_softmax(-1).gather(1, ids[:, None]).sum()
    assert drawn.logprob == pytest.approx(float(own), abs=1e-5 * len(ids))


@pytest.mark.parametrize("kind", FAMILIES)
def test_refilled_and_compacted_it_is_what_plain_forward_passes_give(kind: str, watched: dict[str, int]) -> None:
    """Five rows for 28 prompts of 2 to 23 tokens, of which many end early."""
    requests, config = make_drawable(new_tokens_min=1, new_tokens_max=20)
    model = build(kind, eos_token_id=EOS)
    found = local.generate(model, requests, config, ENDS)
    assert model not in local.BATCHED
    assert watched["put"] > 3
    assert watched["keep"] > 3
    for asked, drawn in zip(requests, found, strict=True):
        assert_drawn_from(model, asked, drawn, config)


def test_the_columns_move_where_the_axis_is_full_and_where_a_longer_prompt_comes_in(
    tiny_gpt2: Callable[..., Any], watched: dict[str, int]
) -> None:
    """One stream without ends, whose rows are refilled far beyond the 46 columns that are allocated."""
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable()
    filled = model(input_ids=torch.tensor([[1]]), use_cache=True).past_key_values
    endless = Conventions(ends=(), pad_id=0)
    found: dict[int, Completion] = {}
    with torch.inference_mode():
        running = Running(model, filled, 3, CONTEXT, config, endless, None, "the model")
        running.run(requests, range(len(requests)), 64, lambda drawn, *_: found.update(drawn))
    assert watched["move"] > 2
    drawn = draw_batch(model, requests, config, endless, None, "the model")
    assert_same([found[place] for place in range(len(requests))], drawn)
    assert all(len(each.ids) == len(asked.uniforms) for each, asked in zip(drawn, requests, strict=True))


@pytest.mark.parametrize("every", [3, 16])
def test_rows_that_are_looked_at_seldom_give_the_same(
    every: int, tiny_gpt2: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a look waits for the device: what a row draws after its end counts for nothing."""
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable(new_tokens_min=1, new_tokens_max=20)
    expected = local.generate(model, requests, config, Conventions(ends=(0,), pad_id=0))
    monkeypatch.setattr("alignment.sampling.continuous.looks_every", lambda _: every)
    assert_same(local.generate(model, requests, config, Conventions(ends=(0,), pad_id=0)), expected)


def test_what_fails_on_one_axis_is_drawn_in_plain_batches_and_that_is_said_once(
    tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable(12)
    expected = local.generate(model, requests, config, ENDS)
    put = AxisCache.put
    monkeypatch.setattr(AxisCache, "put", lambda cache, filled, rows: put(cache, filled, rows.roll(1)))
    for _ in range(2):
        assert_same(local.generate(model, requests, config, ENDS), expected)
    (said,) = [record.getMessage() for record in caplog.records if record.name == local.__name__]
    assert said.startswith(
        "the model: it cannot be sampled on one time axis (the model: sampling in a batch is off by "
    )


def test_where_memory_runs_out_half_as_many_rows_run_and_what_fits_is_remembered(
    tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable(12)
    expected = [draw_alone(model, asked, config) for asked in requests]
    step = Running._step

    def tight(running: Running) -> None:
        if running.rows > 2:
            raise torch.OutOfMemoryError
        step(running)

    monkeypatch.setattr(Running, "_step", tight)
    for _ in range(2):
        assert_same(local.generate(model, requests, config, Conventions(ends=(0,), pad_id=0)), expected)
    assert [record.getMessage() for record in caplog.records if record.name == local.__name__] == [
        "the model: 120 tokens at once do not fit; sampling.batch_tokens is 48 from here on"
    ]
    monkeypatch.setattr(Running, "_step", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(ModelError, match=r"^the model: the GPU's memory does not hold one sequence of 24 tokens"):
        local.generate(model, requests, config, Conventions(ends=(0,), pad_id=0))


@pytest.mark.parametrize("cache", [True, False])
def test_rounded_products_give_no_exact_log_probs(tiny_gpt2: Callable[..., Any], cache: bool) -> None:
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable(2)
    config = config.model_copy(update={"cache": cache})
    assert all(drawn.exact for drawn in local.generate(model, requests, config, ENDS))
    round_products(model)
    assert not any(drawn.exact for drawn in local.generate(model, requests, config, ENDS))


def test_rows_that_come_in_later_are_checked_too(
    tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_gpt2(0, context=CONTEXT)
    requests, config = make_drawable(40)
    expected = [draw_alone(model, asked, config) for asked in requests]
    put = AxisCache.put

    def late(cache: AxisCache, filled: Any, rows: torch.Tensor) -> None:
        put(cache, filled, rows.roll(1) if cache.axis.rows else rows)  # right at first, wrong beside others

    monkeypatch.setattr(AxisCache, "put", late)
    assert_same(local.generate(model, requests, config, Conventions(ends=(0,), pad_id=0)), expected)
    assert any("cannot be sampled on one time axis" in record.getMessage() for record in caplog.records)


def test_a_request_without_room_is_empty(tiny_gpt2: Callable[..., Any]) -> None:
    requests, config = make_drawable(2)
    full = Request([1] * CONTEXT, [])
    found = local.generate(tiny_gpt2(0, context=CONTEXT), [full, *requests], config, ENDS)
    assert found[0] == Completion([], False, 0.0)
    assert all(completion.ids for completion in found[1:])


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("llama", True), ("mistral", True), ("deepseek_v3", True), ("lfm2", False), ("minimax", False)],
)
def test_the_way_follows_from_what_the_models_cache_is(kind: str, plain: bool) -> None:
    with torch.inference_mode():
        cache = build(kind)(input_ids=torch.tensor([[1, 5]]), use_cache=True).past_key_values
    assert is_plain(cache) is plain


def test_the_log_is_told_of_a_cache_that_is_not_plain_once(caplog: pytest.LogCaptureFixture) -> None:
    model = build("lfm2", eos_token_id=EOS)
    requests, config = make_drawable(4)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            local.generate(model, requests, config, ENDS)
    assert [record.getMessage() for record in caplog.records if record.name == local.__name__] == [
        "the model: its cache is not one of keys and values alone, so it is sampled in plain batches"
    ]
