"""The choice of a token: by hand, by frequency, and never one that is impossible."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from alignment.sampling.choice import BLOCK, RANKS, choose, draw, largest
from tests.alignment.sampling.test_local import make_config

relaxed = settings(deadline=None)


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


def kept(logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> NDArray[np.float64]:
    """The probabilities [V] after temperature, top-k and top-p, spelt out in fp64."""
    p: NDArray[np.float64] = (logits.double() / temperature).softmax(-1).numpy()
    order = np.argsort(-p)
    if top_k:
        p[order[top_k:]] = 0
        p /= p.sum()
    ranked = p[order]
    p[order[np.cumsum(ranked) - ranked >= top_p]] = 0
    p /= p.sum()
    return p


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 9},
    {"top_p": 0.7},
    {"top_k": 12, "top_p": 0.8},
    {"temperature": 1.4, "top_k": 15},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 17, "top_p": 0.85},
]
by_setting = pytest.mark.parametrize("changes", SETTINGS, ids=str)


@by_setting
def test_frequencies_follow_the_softmax(changes: dict[str, Any]) -> None:
    """20,000 draws over 20 tokens: Pearson's chi-square, seeded."""
    draws = np.random.default_rng(0)
    logits = torch.tensor(draws.normal(size=20), dtype=torch.float32)
    found = choose(logits.repeat(20_000, 1), torch.tensor(draws.random(20_000)), make_config(**changes))
    expected = kept(logits, **changes) * 20_000
    counts = np.bincount(found.numpy(), minlength=20)
    assert not counts[expected == 0].any()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


@by_setting
def test_logprobs_are_the_models_own(changes: dict[str, Any]) -> None:
    """At temperature 1 and unfiltered: the log-softmax of what was given."""
    draws = np.random.default_rng(1)
    logits = torch.tensor(draws.normal(scale=4, size=(64, 3 * BLOCK + 5)), dtype=torch.float32)
    tokens, logprobs = draw(logits.clone(), torch.tensor(draws.random(64)), make_config(**changes))
    expected = logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    assert logprobs.tolist() == pytest.approx(expected.tolist(), abs=2e-6)


@by_setting
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17, RANKS[-1] + 1])
def test_every_part_of_a_large_vocabulary_is_reached_as_one_running_sum_would(
    size: int, changes: dict[str, Any]
) -> None:
    """Half of the tokens are impossible, whole blocks and the ends among them; the uniforms include both extremes."""
    draws = np.random.default_rng(size)
    logits = torch.tensor(draws.normal(scale=2, size=size), dtype=torch.float32)
    logits[torch.tensor(draws.random(size) < 0.3)] = -torch.inf
    logits[: size // 4] = logits[-3:] = -torch.inf
    uniforms = np.concatenate([[0.0, math.nextafter(0, 1), math.nextafter(1, 0)], draws.random(500)])
    found = choose(logits.repeat(len(uniforms), 1), torch.tensor(uniforms), make_config(**changes)).numpy()
    p = kept(logits, **changes)
    assert (p[found] > 0).all()
    sums = np.cumsum(p)
    assert (sums[found] > uniforms - 1e-5).all()
    assert (sums[found] - p[found] <= uniforms + 1e-5).all()


def test_tokens_as_likely_as_the_last_one_kept_are_kept_with_it() -> None:
    """So that no order among equals decides: bf16 logits are often equal."""
    logits = torch.tensor([1.0, 3.0, 1.0, 1.0, 0.0]).repeat(100, 1)
    uniforms = torch.linspace(0, 0.999, 100)
    assert set(choose(logits, uniforms, make_config(top_k=2)).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("k", [1, 7, 64])
def test_the_largest_in_falling_order(k: int) -> None:
    values = torch.tensor(np.random.default_rng(k).normal(size=(5, 64)), dtype=torch.float32)
    assert torch.equal(largest(values, k), values.topk(k).values)


def test_what_it_is_given_stays_as_it_is() -> None:
    logits = torch.arange(6.0).reshape(2, 3)
    choose(logits, torch.tensor([0.1, 0.9]), make_config(temperature=0.5, top_k=2))
    assert torch.equal(logits, torch.arange(6.0).reshape(2, 3))
