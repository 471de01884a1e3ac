"""f-divergences: each f is the divergence that it is named after, and what is trained with is its derivative.

The f of each, in u = π/π_ref, are those of Wang et al. 2023, table 1; autograd differentiates them.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from torch import Tensor

from alignment.config import DPOConfig
from alignment.errors import ConfigError
from alignment.kinds import DIVERGENCES, LOSSES
from alignment.training import dpo
from alignment.training.divergences import TANGENT_FROM, divergence
from alignment.training.losses import PairLogps, has_any_divergence

ALPHA = 0.3
NAMES = ("reverse_kl", "forward_kl", "jensen_shannon", "alpha")
POLICY, REFERENCE = [0.5, 0.2, 0.2, 0.05, 0.05], [0.1, 0.3, 0.25, 0.15, 0.2]

F: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda u: u * u.log(),
    "forward_kl": lambda u: -u.log(),
    "jensen_shannon": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "alpha": lambda u: (u ** (1 - ALPHA) - (1 - ALPHA) * u - ALPHA) / (ALPHA * (ALPHA - 1)),
}

each = pytest.mark.parametrize("name", NAMES)


def double(values: list[float] | np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def derivative(name: str, log_u: Tensor, alpha: float = ALPHA) -> Tensor:
    found: Tensor = DIVERGENCES.get(name)(log_u, alpha)
    return found


def slope(name: str, u: Tensor) -> Tensor:
    """f'(u) by autograd."""
    u = u.clone().requires_grad_()
    (found,) = torch.autograd.grad(F[name](u).sum(), u)
    return found


def pairs_with(chosen: list[float], rejected: list[float], dtype: torch.dtype = torch.float32) -> PairLogps:
    """Pairs whose log-ratios are these."""
    of_chosen, of_rejected = (torch.tensor(values, dtype=dtype, requires_grad=True) for values in (chosen, rejected))
    zeros, ones = torch.zeros(len(chosen), dtype=dtype), torch.ones(len(chosen), dtype=dtype)
    return PairLogps(of_chosen, of_rejected, zeros, zeros, ones, ones, gap=ones)


def test_every_divergence_that_can_be_chosen_is_registered() -> None:
    assert DIVERGENCES.names() == tuple(DIVERGENCES.all()) == NAMES


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ConfigError, match="two divergences are called 'alpha'"):
        divergence("alpha")(lambda log_u, alpha: log_u)


class TestWhatTheyAre:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("reverse_kl", rel_entr(POLICY, REFERENCE).sum()),
            ("forward_kl", rel_entr(REFERENCE, POLICY).sum()),
            ("jensen_shannon", 2 * jensenshannon(POLICY, REFERENCE) ** 2),
            ("alpha", (1 - np.sum(np.power(POLICY, 1 - ALPHA) * np.power(REFERENCE, ALPHA))) / (ALPHA * (1 - ALPHA))),
        ],
    )
    def test_f_is_the_divergence_of_that_name(self, name: str, expected: float) -> None:
        """E over the reference of f(u), by SciPy's; the last is Cressie and Read's power divergence by hand."""
        policy, reference = double(POLICY), double(REFERENCE)
        assert (reference * F[name](policy / reference)).sum().item() == pytest.approx(expected)

    @each
    def test_what_is_trained_with_is_its_derivative(self, name: str) -> None:
        """From u = e^−8 to e^8, up to the constant f'(1)."""
        log_u = torch.linspace(-8, 8, 33, dtype=torch.float64)
        expected = slope(name, log_u.exp()) - slope(name, double([1.0]))
        torch.testing.assert_close(derivative(name, log_u), expected, rtol=1e-9, atol=1e-11)

    @each
    def test_a_policy_that_is_its_reference_implies_no_reward(self, name: str) -> None:
        assert derivative(name, torch.zeros(1)).item() == pytest.approx(0, abs=1e-7)

    def test_alpha_lies_between_the_two_kls(self) -> None:
        log_u = torch.linspace(-3, 3, 13, dtype=torch.float64)
        for alpha, name in ((1e-7, "reverse_kl"), (1 - 1e-7, "forward_kl")):
            torch.testing.assert_close(derivative("alpha", log_u, alpha), derivative(name, log_u), rtol=1e-5, atol=1e-6)

    def test_by_hand(self) -> None:
        """At u = 2: log 2, 1 − 1/2, log 4/3 and, with α = 1/2, 2 (1 − 1/√2)."""
        found = [derivative(name, double([math.log(2)]), 0.5).item() for name in NAMES]
        assert found == pytest.approx([math.log(2), 0.5, math.log(4 / 3), 2 - math.sqrt(2)])

    @each
    def test_the_best_policy_implies_its_reward_up_to_a_constant(self, name: str) -> None:
        """Wang et al. 2023, theorem 1, on a bandit of five arms: where E[r] − β D_f is highest, β f'(u) − r is flat."""
        reward, reference, beta = double([1.0, -0.5, 0.3, 0.0, 2.0]), double(REFERENCE), 0.7
        logits = reference.log().clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [logits], lr=0.5, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            policy = logits.softmax(0)
            value = (policy * reward).sum() - beta * (reference * F[name](policy / reference)).sum()
            (-value).backward()
            return -value

        optimizer.step(loss)
        log_u = (logits.log_softmax(0) - reference.log()).detach()
        left = beta * derivative(name, log_u) - reward
        assert (left - left.mean()).abs().max().item() < 1e-4
        assert log_u.abs().max() > 0.5


class TestFarFromTheReference:
    @each
    def test_in_fp32_it_is_the_closed_form_as_far_as_that_can_be_trained_with(self, name: str) -> None:
        log_u = np.linspace(-TANGENT_FROM, 100, 261)
        expected = {
            "reverse_kl": log_u,
            "forward_kl": 1 - np.exp(-log_u),
            "jensen_shannon": np.log(2) - np.logaddexp(0, -log_u),
            "alpha": (1 - np.exp(-ALPHA * log_u)) / ALPHA,
        }[name]
        found = derivative(name, torch.tensor(log_u, dtype=torch.float32)).double().numpy()
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)

    @each
    @settings(deadline=None)
    @given(one=st.floats(-100, 100, width=32), other=st.floats(-100, 100, width=32))
    def test_it_rises(self, name: str, one: float, other: float) -> None:
        """So the ranking of a pair is that of its log-ratios; where f' is bounded, far texts come out equal in fp32."""
        low, high = derivative(name, torch.tensor(sorted((one, other))), 0.99).tolist()
        assert low <= high

    def test_beyond_it_goes_on_as_a_straight_line(self) -> None:
        """Of slope e^30: each nat below −30 takes as much as the one before."""
        log_u = double([-30.0, -31, -32, -100]).requires_grad_()
        found = derivative("forward_kl", log_u)
        assert (-found.diff()).tolist() == pytest.approx([math.exp(30), math.exp(30), 68 * math.exp(30)])
        found.sum().backward()
        assert log_u.grad is not None
        assert log_u.grad.tolist() == pytest.approx([math.exp(30)] * 4)

    @each
    @pytest.mark.parametrize("loss", ["sigmoid", "hinge", "robust"])
    def test_loss_and_gradient_stay_finite_and_point_the_right_way(self, name: str, loss: str) -> None:
        """Log-ratios of ±100 nats in fp32: the pair that is ranked wrong is pushed apart, and hard."""
        config = DPOConfig(loss=loss, divergence=name, divergence_alpha=0.99, beta=1.0)
        pairs = pairs_with([100, -100, 100, -100], [100, -100, -100, 100])
        losses = dpo.objective(pairs, config)
        losses.sum().backward()
        assert pairs.chosen.grad is not None
        assert pairs.rejected.grad is not None
        assert torch.isfinite(torch.stack([losses, pairs.chosen.grad, pairs.rejected.grad])).all()
        assert losses[2] < 0.7 < losses[3]
        assert pairs.chosen.grad[3] < -0.9
        assert (pairs.chosen.grad <= 0).all()
        assert (pairs.rejected.grad >= 0).all()


class TestWithALoss:
    def test_under_the_reverse_kl_a_margin_is_dpo_s_to_the_bit(self) -> None:
        """β (a − b), not β a − β b, which rounds otherwise and would train another model."""
        chosen, rejected = 9 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
        pairs = pairs_with(chosen.tolist(), rejected.tolist())
        assert torch.equal(pairs.margin(0.3), 0.3 * pairs.logratio_gap)

    def test_forward_kl_by_hand(self) -> None:
        """u_w = 2 and u_l = 1/2: 1 − 1/2 against 1 − 2 is a gap of 3/2, so with β = 1/3 the margin is 1/2."""
        pairs = pairs_with([math.log(2)], [-math.log(2)], torch.float64)
        under = pairs.under(DIVERGENCES.get("forward_kl"), 0.5)
        implied = (under.chosen_reward(1 / 3), under.rejected_reward(1 / 3), under.margin(1 / 3))
        assert [value.item() for value in implied] == pytest.approx([1 / 6, -1 / 3, 1 / 2])
        found = [
            dpo.objective(pairs, DPOConfig(loss=loss, divergence="forward_kl", beta=1 / 3)).item()
            for loss in ("hinge", "sigmoid")
        ]
        assert found == pytest.approx([0.5, math.log1p(math.exp(-0.5))])

    def test_what_is_logged_is_what_is_trained(self) -> None:
        """Rewards and margin are the divergence's; log-probs, their drop and the accuracy do not depend on it."""
        pairs = pairs_with([math.log(2)], [-math.log(2)])
        found = {
            name: dict(
                zip(dpo.MEANS, dpo.means(pairs, DPOConfig(divergence=name, beta=1.0))[:, 0].tolist(), strict=True)
            )
            for name in ("reverse_kl", "forward_kl")
        }
        assert found["forward_kl"]["rewards/chosen"] == pytest.approx(0.5)
        assert found["forward_kl"]["rewards/rejected"] == pytest.approx(-1)
        assert found["forward_kl"]["rewards/margin"] == pytest.approx(1.5)
        assert found["reverse_kl"]["rewards/margin"] == pytest.approx(2 * math.log(2))
        for name in ("rewards/accuracy", "logps/chosen", "logps/rejected", "chosen_drop"):
            assert found["forward_kl"][name] == found["reverse_kl"][name]

    def test_the_accuracy_tells_texts_apart_whose_rewards_round_to_one(self) -> None:
        """1 − e^−40 and 1 − e^−50 are both 1 in fp32."""
        pairs = pairs_with([50.0], [40.0])
        means = dict(zip(dpo.MEANS, dpo.means(pairs, DPOConfig(divergence="forward_kl")), strict=True))
        assert means["rewards/margin"].item() == 0
        assert means["rewards/accuracy"].item() == 1

    @each
    @pytest.mark.parametrize("loss", LOSSES.names())
    def test_a_loss_says_whether_it_goes_with_any_divergence(self, name: str, loss: str) -> None:
        pairs = pairs_with([0.5], [-1.5], torch.float64)
        values = {
            other: LOSSES.get(loss)(pairs.under(DIVERGENCES.get(other), ALPHA), 0.1, 0.0).item()
            for other in ("reverse_kl", name)
        }
        depends = values[name] != values["reverse_kl"]
        assert depends == (name != "reverse_kl" and has_any_divergence(LOSSES.get(loss)))
