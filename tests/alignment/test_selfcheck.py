"""The self-check: faults that are planted in a model are found after the first batch, in each of the stages."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from alignment import logits
from alignment.config import build_config
from alignment.conventions import Conventions
from alignment.errors import SelfCheckError
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.rewards.classifier import score_texts
from alignment.sampling.cache import AxisCache
from alignment.sampling.engine import Request, request
from alignment.sampling.local import generate
from alignment.selfcheck import SelfCheck, plain_logprob
from tests.alignment.architectures import EOS, PAD, Spelling, build, tokenizer

SAMPLING = build_config({"sampling": {"total_tokens": 24, "batch_tokens": 192}}).sampling
PROMPTS = [[1, 5, 6, 7], [1, 5, 6, 7], [1, 8], [1, 9, 10, 11, 12, 13, 14]]
COMPLETIONS = [[20, 21, 22], [23, 24, EOS], [25, 26, 27, 28, 29, 30, 31], [32]]


def sample(model: Any, conventions: Conventions | None = None) -> None:
    requests = [
        request(ids, SAMPLING, seed=0, purpose="test", prompt_id=str(ids), index=index)
        for index, ids in enumerate(PROMPTS)
    ]
    generate(model, requests, SAMPLING, conventions or Conventions((EOS,), PAD), name="base.model x")


def score(model: Any) -> None:
    score_completions(model, PROMPTS, COMPLETIONS, pad_id=PAD, name="base.model x")


def reward(model: Any) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choice("ABCDEF") for _ in range(length)) for length in (3, 9, 4, 17)]
    score_texts(Loaded(model, tokenizer(Spelling()), "reward.model x"), texts, column=0)


STAGES: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "sampling": (
        sample,
        "CausalLM",
        r"^base\.model x: sampling in a batch is off by [\d.e+-]+ nats per token from a plain",
    ),
    "scoring": (
        score,
        "CausalLM",
        r"^base\.model x: scoring in a batch is off by [\d.e+-]+ nats per token from a plain",
    ),
    "reward": (
        reward,
        "SequenceClassification",
        r"^reward\.model x: reward in a batch is off by [\d.e+-]+ logits from a plain",
    ),
}


@contextmanager
def changed_batches(model: Any, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Have `change` at the arguments of each forward pass of several rows, as a fault of the architecture would."""

    def hook(_: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = dict(given)
        if given["input_ids"].shape[0] > 1 or "flat_rows" in given:
            change(given)
        return args, given

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def shift_positions(given: dict[str, Any]) -> None:
    known = given.get("position_ids")
    given["position_ids"] = 1 + (torch.arange(given["input_ids"].shape[1])[None] if known is None else known)


@pytest.mark.parametrize("stage", STAGES)
def test_a_sound_model_passes(stage):
    run, task, _ = STAGES[stage]
    run(build("gpt2", task=task, num_labels=1))


@pytest.mark.parametrize("stage", STAGES)
def test_positions_that_are_shifted_by_one_are_found(stage):
    run, task, message = STAGES[stage]
    model = build("gpt2", task=task, num_labels=1)
    with changed_batches(model, shift_positions), pytest.raises(SelfCheckError, match=message):
        run(model)


def test_positions_that_the_sampler_numbers_otherwise_than_the_model_are_found():
    """RoBERTa's begin behind the padding id; nothing else tells."""
    with pytest.raises(SelfCheckError, match=STAGES["sampling"][2]):
        sample(build("roberta"), Conventions((EOS,), PAD, first_position=0))
    sample(build("roberta"), Conventions((EOS,), PAD, first_position=PAD + 1))


def test_a_cache_that_is_mixed_up_is_found(monkeypatch):
    """On one time axis, after which plain batches are tried, and there."""
    spread, put = DynamicCache.reorder_cache, AxisCache.put
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda cache, rows: spread(cache, rows.roll(1)))
    monkeypatch.setattr(AxisCache, "put", lambda cache, filled, rows: put(cache, filled, rows.roll(1)))
    with pytest.raises(SelfCheckError, match=STAGES["sampling"][2]):
        sample(build("llama"))


def test_padding_that_is_not_masked_is_found():
    model = build("llama")
    with (
        changed_batches(model, lambda given: given.pop("attention_mask", None)),
        pytest.raises(SelfCheckError, match=STAGES["sampling"][2]),
    ):
        sample(model)


def test_a_model_that_reads_its_padding_is_found_while_it_scores():
    with pytest.raises(SelfCheckError, match=STAGES["scoring"][2]):
        score(build("bert", is_decoder=False))


def test_padding_that_a_classifier_takes_for_text_is_found(monkeypatch):
    """Its config names another padding token than the one that the batch was padded with; else that is put right."""
    model = build("llama", task="SequenceClassification", num_labels=1)
    loaded = Loaded(model, tokenizer(Spelling()), "reward.model x")
    assert loaded.pad_id == PAD
    texts = ["ABC", "ABCDEFGHI", "AC"]
    expected = score_texts(loaded, texts, column=0, batch_tokens=1)
    model.config.pad_token_id = 40
    assert np.allclose(score_texts(loaded, texts, column=0), expected, atol=1e-5)
    monkeypatch.setattr(logits, "padding_named", lambda *_: nullcontext())
    with pytest.raises(SelfCheckError, match=STAGES["reward"][2]):
        score_texts(loaded, texts, column=0)


def test_a_later_batch_without_numbers_is_found_too():
    """Positions from the 20th on are spoilt, which the first, short batch does not reach."""
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.wpe.weight[20:] = float("nan")
    config = SAMPLING.model_copy(update={"batch_tokens": 1, "new_tokens_min": 2, "new_tokens_max": 20})
    requests = [Request([1, 5], [0.5] * 3), Request([1, 5, 6], [0.5] * 21)]
    with pytest.raises(SelfCheckError, match=r"^base\.model x: sampling gives log-probs that are no numbers"):
        generate(model, requests, config, Conventions((), PAD), name="base.model x")


def test_the_check_is_an_error_of_a_stage():
    assert SelfCheckError("").exit_code == 2


# What is compared, and when


@pytest.fixture
def check() -> SelfCheck:
    return SelfCheck("scoring", "base.model x", build("gpt2"))


def test_three_rows_of_the_first_batch_and_of_the_first_with_padding_are_compared(check):
    asked: list[int] = []

    def alone(row: int) -> float:
        asked.append(row)
        return -1.0

    for padded in (False, False, True, True):
        check.logprobs([-1.0] * 9, [3] * 9, alone, padded=padded)
    assert asked == [0, 4, 8, 0, 4, 8]


def test_rounding_is_a_thousandth_and_a_fifth_of_one_a_token(check):
    allowed = 0.001 + 5 * 0.0002
    check.logprobs([allowed - 1e-6], [5], lambda _: 0.0, padded=False)
    with pytest.raises(SelfCheckError):
        check.logprobs([allowed + 1e-6], [5], lambda _: 0.0, padded=True)


def test_a_log_prob_that_is_no_number_is_found(check):
    message = r"^base\.model x: scoring gives log-probs that are no numbers; check its weights, or precision$"
    with pytest.raises(SelfCheckError, match=message):
        check.logprobs([float("nan")], [1], lambda _: float("nan"), padded=False)


def test_a_token_that_a_model_never_writes_is_no_fault(check):
    check.logprobs([-float("inf")], [1], lambda _: -float("inf"), padded=False)
    with pytest.raises(SelfCheckError, match="off by inf nats per token"):
        check.logprobs([-float("inf")], [1], lambda _: -3.0, padded=True)


def test_a_class_that_nobody_asks_for_may_be_no_number(check):
    row = np.array([0.5, np.nan])
    check.logits(row[None], lambda _: row, padded=False)
    with pytest.raises(SelfCheckError, match=r"off by 0\.2 logits"):
        check.logits(row[None], lambda _: row + 0.2, padded=True)


def test_the_plain_log_prob_is_the_sum_of_the_softmaxs_logs():
    model = build("gpt2")
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, 7, 8]])).logits[0].double().numpy()
    steps = [(logits[1], 7), (logits[2], 8)]
    expected = sum(row[token] - np.log(np.exp(row).sum()) for row, token in steps)
    assert plain_logprob(model, [5, 6], [7, 8]) == pytest.approx(expected, abs=1e-5)
