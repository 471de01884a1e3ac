"""Sampling: one at a time and in batches alike, by hand and by frequency, and never beyond its bounds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.logprobs import score_completions
from alignment.sampling.choice import choose
from alignment.sampling.engine import Completion, Request, request
from alignment.sampling.local import generate

EOS = 0  # which is also the padding
CONTEXT = 24


@pytest.fixture(scope="module")
def model(tiny_gpt2: Callable[..., Any]) -> Any:
    """A context of exactly `total_tokens`: a position beyond it is an error."""
    return tiny_gpt2(0, context=CONTEXT)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Unlike lengths, one prompt twice, and two that fill the context but for one and two tokens."""
    draws = np.random.default_rng(0)
    found = [draws.integers(1, 50, length).tolist() for length in (3, 11, 1, 7, 3, 22, 23)]
    return [*found, found[0]]


def make_config(**changes: Any) -> SamplingConfig:
    return SamplingConfig(**{"total_tokens": CONTEXT, "batch_tokens": 16 * CONTEXT} | changes)


def make_requests(prompts: Sequence[list[int]], config: SamplingConfig, **changes: Any) -> list[Request]:
    """One request a prompt, whose name is its place."""
    arguments: dict[str, Any] = {"seed": 0, "purpose": "train", "index": 0} | changes
    return [request(prompt, config, prompt_id=str(place), **arguments) for place, prompt in enumerate(prompts)]


def draw(model: Any, requests: Sequence[Request], config: SamplingConfig) -> list[Completion]:
    return generate(model, requests, config, Conventions(ends=(EOS,), pad_id=EOS))


def draw_alone(model: Any, request: Request, config: SamplingConfig) -> Completion:
    """The textbook loop: no batch, no padding, no cache."""
    ids: list[int] = []
    logprob = 0.0
    for uniform in request.uniforms:
        with torch.no_grad():
            logits = model(torch.tensor([[*request.prompt, *ids]])).logits[:, -1]
        token = int(choose(logits, torch.tensor([uniform], dtype=torch.float64), config))
        logprob += logits.log_softmax(-1)[0, token].item()
        ids.append(token)
        if token == EOS:
            return Completion(ids, True, logprob)
    return Completion(ids, False, logprob)


def assert_same(found: Sequence[Completion], expected: Sequence[Completion]) -> None:
    assert [(c.ids, c.finished) for c in found] == [(c.ids, c.finished) for c in expected]
    assert [c.logprob for c in found] == pytest.approx([c.logprob for c in expected], abs=1e-4)


SETTINGS = {
    "plain": make_config(),
    "cold and filtered": make_config(temperature=0.7, top_k=10, top_p=0.9),
    "lengths drawn": make_config(new_tokens_min=2, new_tokens_max=9),
}
every_setting = pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)


class TestGenerate:
    @every_setting
    def test_a_left_padded_batch_is_one_by_one(
        self, model: Any, prompts: list[list[int]], config: SamplingConfig
    ) -> None:
        """Prompts of 1 to 23 tokens in one batch draw what each draws alone."""
        requests = make_requests(prompts, config)
        assert_same(draw(model, requests, config), [draw_alone(model, asked, config) for asked in requests])

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
    def test_the_batch_size_does_not_matter(self, model: Any, prompts: list[list[int]], batch_size: int) -> None:
        requests = make_requests(prompts, make_config())
        found = draw(model, requests, make_config(batch_tokens=batch_size * CONTEXT))
        assert_same(found, draw(model, requests, make_config()))

    def test_the_order_does_not_matter(self, model: Any, prompts: list[list[int]]) -> None:
        config = make_config(batch_tokens=3 * CONTEXT)
        requests = make_requests(prompts, config)
        assert_same(draw(model, requests[::-1], config)[::-1], draw(model, requests, config))

    @every_setting
    def test_logprobs_are_the_models_own(self, model: Any, prompts: list[list[int]], config: SamplingConfig) -> None:
        """At temperature 1 and unfiltered, whatever the settings: so they serve as DPO's reference."""
        found = draw(model, make_requests(prompts, config), config)
        scored = score_completions(model, prompts, [c.ids for c in found], pad_id=EOS)
        assert [c.logprob for c in found] == pytest.approx(scored.tolist(), abs=1e-4)

    def test_finished_is_where_eos_was_drawn_and_nothing_follows_it(self, model: Any, prompts: list[list[int]]) -> None:
        """Of many draws some end and some are cut; EOS is the last token of those that end and in no other."""
        config = make_config()
        found = [c for index in range(8) for c in draw(model, make_requests(prompts, config, index=index), config)]
        assert {c.finished for c in found} == {True, False}
        for completion in found:
            assert (completion.ids[-1] == EOS) is completion.finished
            assert EOS not in completion.ids[:-1]

    def test_a_cut_sample_fills_its_room(self, model: Any, prompts: list[list[int]]) -> None:
        config = make_config()
        for prompt, completion in zip(prompts, draw(model, make_requests(prompts, config), config), strict=True):
            length = len(prompt) + len(completion.ids)
            assert length <= CONTEXT
            assert completion.finished or length == CONTEXT

    def test_top_k_1_is_greedy(self, model: Any, prompts: list[list[int]]) -> None:
        """The likeliest token each time, as `generate(do_sample=False)` of transformers takes it."""
        config = make_config(top_k=1)
        for prompt, completion in zip(prompts, draw(model, make_requests(prompts, config), config), strict=True):
            expected = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_length=CONTEXT
            )
            assert completion.ids == expected[0, len(prompt) :].tolist()

    def test_reports_progress(self, model: Any, prompts: list[list[int]]) -> None:
        config = make_config(batch_tokens=3 * CONTEXT, new_tokens_min=1, new_tokens_max=1)
        reports: list[tuple[int, int]] = []
        generate(
            model,
            make_requests(prompts, config),
            config,
            Conventions(ends=(EOS,), pad_id=EOS),
            progress=lambda *report: reports.append(report),
        )
        done = [count for count, _ in reports]
        assert done == sorted(set(done))
        assert len(done) > 2
        assert reports[-1] == (8, 8)

    def test_nothing_to_draw(self, model: Any) -> None:
        assert draw(model, [], make_config()) == []


class TestRequest:
    def asked(self, **changes: Any) -> Request:
        config = changes.pop("config", make_config())
        arguments: dict[str, Any] = {"seed": 0, "purpose": "train", "prompt_id": "a", "index": 0} | changes
        return request([1, 2, 3], config, **arguments)

    def test_same_arguments_same_uniforms(self) -> None:
        assert self.asked() == self.asked()

    @pytest.mark.parametrize("change", [{"seed": 1}, {"purpose": "evaluate"}, {"prompt_id": "b"}, {"index": 1}])
    def test_other_arguments_other_uniforms(self, change: dict[str, Any]) -> None:
        assert not set(self.asked().uniforms) & set(self.asked(**change).uniforms)

    def test_the_room_is_what_the_prompt_leaves(self) -> None:
        assert len(self.asked().uniforms) == CONTEXT - 3

    def test_lengths_are_drawn_from_the_range_and_reach_both_ends(self) -> None:
        config = make_config(new_tokens_min=4, new_tokens_max=7)
        lengths = {len(self.asked(config=config, index=index).uniforms) for index in range(64)}
        assert lengths == {4, 5, 6, 7}

    def test_a_drawn_length_never_exceeds_the_room(self) -> None:
        config = make_config(new_tokens_min=40, new_tokens_max=50)
        assert len(self.asked(config=config).uniforms) == CONTEXT - 3

    def test_uniforms_are_uniform(self) -> None:
        """2,100 of them in ten bins."""
        uniforms = [u for index in range(100) for u in self.asked(index=index).uniforms]
        counts, _ = np.histogram(uniforms, bins=10, range=(0, 1))
        assert chisquare(counts).pvalue > 0.01
