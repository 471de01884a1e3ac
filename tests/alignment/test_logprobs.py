"""Scores of completions against the plain computation: one sequence, all logits, one log-softmax."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from alignment import logprobs
from alignment.layout import Layout, lay_flat
from alignment.logprobs import score_completions, together

EOS = 0  # which is also the padding

Ids = list[list[int]]


@pytest.fixture(scope="module")
def model(tiny_gpt2: Callable[..., Any]) -> Any:
    return tiny_gpt2(0)


@pytest.fixture(scope="module")
def prompts() -> Ids:
    draws = np.random.default_rng(0)
    return [draws.integers(1, 50, length).tolist() for length in (3, 11, 1, 7, 3, 2)]


@pytest.fixture(scope="module")
def completions() -> Ids:
    """Unlike lengths; the first and third end in EOS, the fourth is EOS alone."""
    draws = np.random.default_rng(1)
    return [
        draws.integers(1, 50, n).tolist() + end for n, end in ((4, [0]), (1, []), (9, [0]), (0, [0]), (6, []), (2, []))
    ]


def plain(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Σ_t log p(y_t | x, y_<t) from the logits of every position of one unpadded sequence, in float64."""
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *completion]])).logits[0].double().log_softmax(-1)
    return float(sum(logprobs[len(prompt) - 1 + t, token].item() for t, token in enumerate(completion)))


def test_what_has_the_prompt_of_a_longer_one_is_batched_with_it_where_no_prompts_length_parts_them() -> None:
    prompts = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [9], [9]]
    assert together(prompts, [7, 10, 6, 3, 5]) == [10, 10, 6, 3, 5]


class TestScoreCompletions:
    @pytest.mark.parametrize("batch_tokens", [1, 8, 24, 40, 0])
    def test_agrees_with_the_plain_computation_in_the_given_order(
        self, model: Any, prompts: Ids, completions: Ids, batch_tokens: int
    ) -> None:
        found = score_completions(model, prompts, completions, pad_id=EOS, batch_tokens=batch_tokens)
        expected = [plain(model, prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        assert found == pytest.approx(expected, abs=1e-4)

    def test_batched_is_single(self, model: Any, prompts: Ids, completions: Ids) -> None:
        together = score_completions(model, prompts, completions, pad_id=EOS)
        alone = score_completions(model, prompts, completions, pad_id=EOS, batch_tokens=1)
        assert together == pytest.approx(alone, abs=2e-5)

    def test_the_order_of_the_sequences_does_not_matter(self, model: Any, prompts: Ids, completions: Ids) -> None:
        forwards = score_completions(model, prompts, completions, pad_id=EOS, batch_tokens=20)
        backwards = score_completions(model, prompts[::-1], completions[::-1], pad_id=EOS, batch_tokens=20)
        assert backwards[::-1] == pytest.approx(forwards, abs=2e-5)

    def test_both_sides_of_a_pair_share_the_pass_over_their_prompt(
        self, model: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By length alone, 10 11 12 13, each of two batches would have one side of each pair."""
        laid: list[Ids] = []

        def watched(before: Ids, after: Ids) -> Layout:
            laid.append(before)
            return lay_flat(before, after)

        monkeypatch.setattr(logprobs, "lay_flat", watched)
        one, other = [list(range(first, first + 8)) for first in (1, 11)]
        prompts, completions = [one, one, other, other], [[7] * length for length in (2, 4, 3, 5)]
        found = score_completions(model, prompts, completions, pad_id=EOS, batch_tokens=26)
        assert laid[-2:] == [[one, one], [other, other]]
        expected = [plain(model, prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        assert found == pytest.approx(expected, abs=1e-4)

    def test_eos_counts_where_the_sample_ended(self, model: Any) -> None:
        """log p(7 8 EOS) − log p(7 8) = log p(EOS | 7 8), and padding after either adds nothing."""
        prompts, completions = [[5, 6]] * 3, [[7, 8, EOS], [7, 8], [7, 8, 9, 10, 11]]
        ended, cut, _ = score_completions(model, prompts, completions, pad_id=EOS)
        assert ended - cut == pytest.approx(plain(model, [5, 6, 7, 8], [EOS]), abs=1e-4)

    @pytest.mark.parametrize("pad_id", [EOS, 17])
    def test_the_padding_token_does_not_matter(self, model: Any, prompts: Ids, completions: Ids, pad_id: int) -> None:
        """Not even where prompts or completions hold that very token."""
        prompts, completions = [*prompts, [17, 5]], [*completions, [17, 17]]
        found = score_completions(model, prompts, completions, pad_id=pad_id)
        expected = [plain(model, prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        assert found == pytest.approx(expected, abs=1e-4)

    def test_the_chain_rule_holds(self, model: Any) -> None:
        """log p(y₁y₂y₃ | x) = log p(y₁ | x) + log p(y₂y₃ | x y₁)."""
        whole, first, rest = score_completions(model, [[5, 6], [5, 6], [5, 6, 7]], [[7, 8, 9], [7], [8, 9]], pad_id=EOS)
        assert whole == pytest.approx(first + rest, abs=1e-5)

    def test_all_completions_of_one_token_share_the_probability_of_1(self, model: Any) -> None:
        found = score_completions(model, [[5, 6]] * 50, [[token] for token in range(50)], pad_id=EOS)
        assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)

    def test_an_empty_prompt_is_refused(self, model: Any) -> None:
        with pytest.raises(ValueError, match="no prompt token"):
            score_completions(model, [[]], [[5]], pad_id=EOS, batch_tokens=1)

    def test_nothing_to_score(self, model: Any) -> None:
        assert score_completions(model, [], [], pad_id=EOS, batch_tokens=0).shape == (0,)

    def test_reports_progress(self, model: Any, prompts: Ids, completions: Ids) -> None:
        reports: list[tuple[int, int]] = []
        score_completions(
            model, prompts, completions, pad_id=EOS, batch_tokens=36, progress=lambda *report: reports.append(report)
        )
        assert reports == [(4, 6), (6, 6)]
