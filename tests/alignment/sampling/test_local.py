"""Sampling: one at a time and in batches alike, by hand and by frequency, and never beyond its bounds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.logprobs import score_completions
from alignment.sampling.choice import choose
from alignment.sampling.engine import Completion, Request, request
from alignment.sampling.local import generate

EOS = 0  # which is also the padding
CONTEXT = 24

relaxed = settings(deadline=None)


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


class TestChoose:
    """Four tokens with p = 0.4, 0.1, 0.3, 0.2, whose distribution function steps at 0.4, 0.5, 0.8 and 1."""

    P = (0.4, 0.1, 0.3, 0.2)

    def chosen(self, uniforms: Sequence[float], p: Sequence[float] = P, **changes: Any) -> list[int]:
        logits = torch.tensor(p, dtype=torch.float64).log().repeat(len(uniforms), 1)
        return choose(logits, torch.tensor(uniforms, dtype=torch.float64), make_config(**changes)).tolist()

    def shares(self, **changes: Any) -> list[float]:
        """The part of [0, 1) that leads to each token."""
        steps = 10_000
        uniforms = ((np.arange(steps) + 0.5) / steps).tolist()
        return [n / steps for n in np.bincount(self.chosen(uniforms, **changes), minlength=4).tolist()]

    def test_by_hand(self) -> None:
        assert self.chosen([0.0, 0.39, 0.41, 0.49, 0.51, 0.79, 0.81, 0.999]) == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_temperature(self) -> None:
        """At T = 1/2 the p square: 16, 1, 9 and 4 of 30."""
        assert self.shares(temperature=0.5) == pytest.approx([16 / 30, 1 / 30, 9 / 30, 4 / 30], abs=2e-4)

    @pytest.mark.parametrize(
        ("k", "expected"),
        [(1, [1, 0, 0, 0]), (2, [4 / 7, 0, 3 / 7, 0]), (3, [4 / 9, 0, 3 / 9, 2 / 9]), (4, P), (9, P), (0, P)],
    )
    def test_top_k(self, k: int, expected: list[float]) -> None:
        assert self.shares(top_k=k) == pytest.approx(expected, abs=2e-4)

    @pytest.mark.parametrize(
        ("p", "expected"),
        [
            (0.01, [1, 0, 0, 0]),
            (0.39, [1, 0, 0, 0]),
            (0.5, [4 / 7, 0, 3 / 7, 0]),
            (0.75, [4 / 9, 0, 3 / 9, 2 / 9]),
            (0.95, P),
            (1.0, P),
        ],
    )
    def test_top_p_keeps_the_smallest_set_with_that_probability(self, p: float, expected: list[float]) -> None:
        """In falling order the sums are 0.4, 0.7, 0.9 and 1."""
        assert self.shares(top_p=p) == pytest.approx(expected, abs=2e-4)

    def test_filters_follow_each_other(self) -> None:
        """T = 1/2: 16, 9, 4, 1 of 30. Top 3: 16, 9, 4 of 29. The sums 0.55, 0.86 reach 0.8 with two: 16, 9 of 25."""
        assert self.shares(temperature=0.5, top_k=3, top_p=0.8) == pytest.approx([16 / 25, 0, 9 / 25, 0], abs=2e-4)

    @pytest.mark.parametrize("changes", [{}, {"top_k": 2}, {"top_p": 0.75}])
    def test_the_ends_of_the_unit_interval_never_reach_an_excluded_token(self, changes: dict[str, Any]) -> None:
        """Here the first and last tokens are impossible."""
        ends = [0.0, math.nextafter(0, 1), math.nextafter(1, 0)]
        assert self.chosen(ends, p=(0, 0.5, 0.2, 0.3, 0), **changes) == [1, 1, 3]

    @relaxed
    @given(
        st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=9),
        st.floats(0, 1, exclude_max=True),
        st.floats(0.1, 3),
    )
    def test_agrees_with_adding_up_the_probabilities(
        self, logits: list[float], uniform: float, temperature: float
    ) -> None:
        """The first token at which their sum exceeds the uniform; within rounding, where it meets it."""
        row = torch.tensor([logits])
        token = int(choose(row, torch.tensor([uniform], dtype=torch.float64), make_config(temperature=temperature)))
        sums = np.cumsum((row.double() / temperature).softmax(-1)[0].numpy())
        assert sums[token] > uniform - 1e-5
        assert token == 0 or sums[token - 1] <= uniform + 1e-5

    def test_frequencies_follow_the_softmax(self) -> None:
        """20,000 draws over 20 tokens: Pearson's chi-square, seeded."""
        draws = np.random.default_rng(0)
        logits = torch.tensor(draws.normal(size=20), dtype=torch.float32)
        found = choose(logits.repeat(20_000, 1), torch.tensor(draws.random(20_000)), make_config())
        expected = logits.double().softmax(-1).numpy() * 20_000
        assert chisquare(np.bincount(found.numpy(), minlength=20), expected).pvalue > 0.01
