"""DPO's losses against values worked out by hand.

The pair used throughout, in nats: log π(y_w) = −10 and log π_ref(y_w) = −12, so the chosen log-ratio is +2;
log π(y_l) = −9 and log π_ref(y_l) = −8, so the rejected one is −1. Their difference h is 3; with β = 1/2 the margin is
3/2. The chosen text has 4 tokens and the rejected one 2, so the log-ratios per token are 1/2 and −1/2, and h̄ = 1.
The chosen text scores 2 more than the rejected one.
"""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import ConfigError
from alignment.kinds import LOSSES
from alignment.training.losses import PairLogps, chosen_nll, has_smoothing, loss, needs_scores

SOFTPLUS = math.log1p(math.exp(-1.5))  # −log σ(3/2) = 0.2014
relaxed = settings(deadline=None)
margins = st.floats(-30, 30)


def make_pairs(
    chosen: float = -10, rejected: float = -9, reference_chosen: float = -12, reference_rejected: float = -8
) -> PairLogps:
    def one(logp: float) -> torch.Tensor:
        return torch.tensor([logp], dtype=torch.float64)

    references = one(reference_chosen), one(reference_rejected)
    return PairLogps(one(chosen), one(rejected), *references, torch.tensor([4]), torch.tensor([2]), gap=one(2))


def with_gap(h: float) -> PairLogps:
    return make_pairs(chosen=h - 20, rejected=-20, reference_chosen=-20, reference_rejected=-20)


def value(name: str, pairs: PairLogps, beta: float = 0.5, label_smoothing: float = 0.0) -> float:
    found: float = LOSSES.get(name)(pairs, beta, label_smoothing).item()
    return found


def test_every_loss_that_can_be_chosen_is_registered() -> None:
    assert LOSSES.names() == tuple(LOSSES.all()) == ("sigmoid", "hinge", "ipo", "robust", "distill")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ConfigError, match="two losses are called 'ipo'"):
        loss("ipo")(lambda pairs, beta, label_smoothing: pairs.chosen)


def test_log_ratios_and_their_gap() -> None:
    pairs = make_pairs()
    assert (pairs.chosen_logratio.item(), pairs.rejected_logratio.item(), pairs.logratio_gap.item()) == (2, -1, 3)


class TestSigmoid:
    def test_by_hand(self) -> None:
        """−log σ(3/2) = ln(1 + e^−1.5) = 0.2014."""
        assert value("sigmoid", make_pairs()) == pytest.approx(0.2014, abs=5e-5)

    @pytest.mark.parametrize("beta", [0.1, 0.5, 10])
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_is_ln_2_where_policy_and_reference_agree(self, beta: float, label_smoothing: float) -> None:
        """The step-0 value: σ(0) = 1/2 on both sides, so the labels' noise does not matter."""
        assert value("sigmoid", with_gap(0), beta, label_smoothing) == pytest.approx(math.log(2))

    def test_label_smoothing_by_hand(self) -> None:
        """−log σ(−m) = m − log σ(m), so with ε = 0.1 it is 0.9 · 0.2014 + 0.1 · (1.5 + 0.2014) = 0.2014 + 0.15."""
        assert value("sigmoid", make_pairs(), label_smoothing=0.1) == pytest.approx(SOFTPLUS + 0.15)

    def test_label_smoothing_has_its_minimum_at_the_log_odds(self) -> None:
        """d/dm = 0 where σ(m) = 1 − ε: for ε = 0.1 at m = ln 9. A larger margin costs again."""
        at, below, above = (value("sigmoid", with_gap(math.log(9) + d), 1.0, 0.1) for d in (0, -0.01, 0.01))
        assert at < min(below, above)

    def test_gradient_by_hand(self) -> None:
        """∂/∂log π(y_w) = −β σ(−m) = −0.5 / (1 + e^1.5): Rafailov et al. 2023, the weight below eq. 7."""
        chosen = torch.tensor([-10.0], requires_grad=True)
        rejected, reference_chosen, reference_rejected, longer, shorter = map(
            torch.tensor, ([-9.0], [-12.0], [-8.0], [4], [2])
        )
        pairs = PairLogps(chosen, rejected, reference_chosen, reference_rejected, longer, shorter)
        LOSSES.get("sigmoid")(pairs, 0.5, 0.0).sum().backward()
        assert chosen.grad is not None
        assert chosen.grad.item() == pytest.approx(-0.5 / (1 + math.exp(1.5)))


class TestHinge:
    @pytest.mark.parametrize(("beta", "expected"), [(0.1, 0.7), (1 / 3, 0.0), (0.5, 0.0)])
    def test_by_hand(self, beta: float, expected: float) -> None:
        """1 − 3β, and zero from a margin of 1 on."""
        assert value("hinge", make_pairs(), beta) == pytest.approx(expected)

    def test_is_1_where_policy_and_reference_agree(self) -> None:
        assert value("hinge", with_gap(0)) == 1


class TestIPO:
    @pytest.mark.parametrize(("beta", "expected"), [(0.5, 0.0), (0.25, 1.0), (0.1, 16.0)])
    def test_by_hand(self, beta: float, expected: float) -> None:
        """(h̄ − 1/(2β))² with h̄ = 2/4 − (−1)/2 = 1: the targets are 1, 2 and 5."""
        assert value("ipo", make_pairs(), beta) == pytest.approx(expected)

    def test_a_margin_beyond_the_target_costs_as_much_as_one_short_of_it(self) -> None:
        """With 4 chosen tokens h̄ = h/4; β = 1/2 puts the target at h̄ = 1, so at h = 4."""
        assert value("ipo", with_gap(4 + 2)) == pytest.approx(value("ipo", with_gap(4 - 2))) == pytest.approx(0.25)


class TestRobust:
    def test_by_hand(self) -> None:
        """(0.9 · 0.2014 − 0.1 · (1.5 + 0.2014)) / 0.8 = 0.2014 − 0.15 / 0.8."""
        assert value("robust", make_pairs(), label_smoothing=0.1) == pytest.approx(SOFTPLUS - 0.1875)

    @relaxed
    @given(margins)
    def test_without_noise_is_the_sigmoid_loss(self, margin: float) -> None:
        assert value("robust", with_gap(margin)) == pytest.approx(value("sigmoid", with_gap(margin)))

    @relaxed
    @given(margins, st.floats(0, 0.45))
    def test_is_unbiased_under_flipped_labels(self, margin: float, noise: float) -> None:
        """Chowdhury et al. 2024, lemma 3.1: (1−ε) · loss(m) + ε · loss(−m) is the clean loss, whatever ε < 1/2."""
        kept, flipped = (value("robust", with_gap(sign * margin), label_smoothing=noise) for sign in (1, -1))
        clean = value("sigmoid", with_gap(margin))
        assert (1 - noise) * kept + noise * flipped == pytest.approx(clean, abs=1e-9)


class TestDistill:
    def test_by_hand(self) -> None:
        """The margin is 3/2 and the scores differ by 2: (3/2 − 2)² = 1/4."""
        assert value("distill", make_pairs()) == pytest.approx(0.25)

    def test_a_margin_beyond_the_gap_of_the_scores_costs_as_much_as_one_short_of_it(self) -> None:
        """β = 1/2: the gap of 2 is met at h = 4."""
        assert value("distill", with_gap(4)) == 0
        assert value("distill", with_gap(4 + 1)) == pytest.approx(value("distill", with_gap(4 - 1))) == 0.25

    @pytest.mark.parametrize("beta", [0.1, 0.7])
    @pytest.mark.parametrize("others", [0.0, 0.3])
    def test_its_minimum_over_all_policies_is_the_optimum_of_the_regularised_reward(
        self, beta: float, others: float
    ) -> None:
        """Four texts, every pair of them, and descent on free logits: π_ref exp(r/β)/Z (Rafailov et al. 2023, eq. 4).

        It is so however often each pair is drawn, as all of them can be met at once.
        """
        reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
        rewards = torch.tensor([0.3, 0.0, 1.0, 0.6], dtype=torch.float64)
        better, worse = torch.tensor([(a, b) for a, b in permutations(range(4), 2) if rewards[a] > rewards[b]]).T
        logits = reference.clone().requires_grad_()
        weights = 1 + others * torch.arange(len(better))
        descent = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14)

        def step() -> torch.Tensor:
            descent.zero_grad()
            policy, ones = logits.log_softmax(0), torch.ones(len(better))
            found = PairLogps(
                *(policy[better], policy[worse], reference[better], reference[worse], ones, ones),
                gap=rewards[better] - rewards[worse],
            )
            loss: torch.Tensor = (weights * LOSSES.get("distill")(found, beta, 0.0)).mean()
            loss.backward()
            return loss

        descent.step(step)
        optimum = (reference + rewards / beta).softmax(0)
        torch.testing.assert_close(logits.detach().softmax(0), optimum, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_says_whether_it_reads_the_scores(name: str) -> None:
    depends = value(name, replace(make_pairs(), gap=torch.tensor([5.0]))) != value(name, make_pairs())
    assert needs_scores(LOSSES.get(name)) == depends == (name == "distill")


@pytest.mark.parametrize("name", LOSSES.names())
def test_a_loss_says_whether_label_smoothing_has_an_effect(name: str) -> None:
    has_effect = value(name, make_pairs(), 0.1, 0.3) != value(name, make_pairs(), 0.1)
    assert has_smoothing(LOSSES.get(name)) == has_effect == (name in {"sigmoid", "robust"})


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_are_those_of_finite_differences(name: str, label_smoothing: float) -> None:
    """Two pairs in float64, β = 0.1: neither is at the hinge's corner."""
    chosen, rejected = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([-10.0, -7], [-9.0, -3]))
    reference = torch.tensor([-12.0, -6], dtype=torch.float64), torch.tensor([-8.0, -4], dtype=torch.float64)

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        tokens, gap = (torch.tensor([4, 5]), torch.tensor([2, 3])), torch.tensor([2.0, 0.5], dtype=torch.float64)
        pairs = PairLogps(chosen, rejected, *reference, *tokens, gap=gap)
        found: torch.Tensor = LOSSES.get(name)(pairs, 0.1, label_smoothing)
        return found

    assert torch.autograd.gradcheck(loss, (chosen, rejected))


@pytest.mark.parametrize("name", LOSSES.names())
def test_huge_margins_stay_finite(name: str) -> None:
    assert all(math.isfinite(value(name, with_gap(h), 10, 0.1)) for h in (-1e4, 1e4))


def test_chosen_nll_is_a_mean_over_the_tokens_of_each_text() -> None:
    """Sums of −10 over 4 tokens and −2 over 2: 2.5 and 1 nats per token, whatever the other text's length."""
    zeros = torch.zeros(2)
    pairs = PairLogps(torch.tensor([-10.0, -2]), zeros, zeros, zeros, torch.tensor([4, 2]), torch.tensor([9, 9]))
    assert chosen_nll(pairs).tolist() == [2.5, 1]
