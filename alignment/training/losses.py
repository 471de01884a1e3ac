"""DPO's losses: pure functions from the log-probabilities of pairs to one value per pair.

A package adds a loss by an entry point of the group `plumbline.losses`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.kinds import LOSSES, registers
from alignment.training.divergences import Derivative, reverse_kl


@dataclass(frozen=True)
class PairLogps:
    """Completion log-probabilities of B pairs, each of shape [B]: sums over tokens, in nats, and token counts.

    What they imply, rewards and margins, depends on the divergence that pulls the policy towards the reference. `gap`
    is what the reward gives the chosen text more than the rejected one, in its own units, [B]; None where a pair of
    them has no scores.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    divergence: Derivative = reverse_kl
    alpha: float = 0.0
    gap: Tensor | None = None

    @property
    def chosen_logratio(self) -> Tensor:
        """log π(y_w|x) − log π_ref(y_w|x), shape [B]."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_logratio(self) -> Tensor:
        """log π(y_l|x) − log π_ref(y_l|x), shape [B]."""
        return self.rejected - self.reference_rejected

    @property
    def logratio_gap(self) -> Tensor:
        """The difference of the two log-ratios, shape [B]."""
        return self.chosen_logratio - self.rejected_logratio

    def under(self, divergence: Derivative, alpha: float) -> "PairLogps":
        """The same log-probabilities under another divergence."""
        return replace(self, divergence=divergence, alpha=alpha)

    def chosen_reward(self, beta: float) -> Tensor:
        """The reward β f'(u_w) that the policy implies for the chosen text, shape [B]: 0 where it is its reference."""
        return beta * self.divergence(self.chosen_logratio, self.alpha)

    def rejected_reward(self, beta: float) -> Tensor:
        """The same of the rejected text, β f'(u_l), shape [B]."""
        return beta * self.divergence(self.rejected_logratio, self.alpha)

    def margin(self, beta: float) -> Tensor:
        """m = β (f'(u_w) − f'(u_l)), shape [B]: Wang et al. 2023; under the reverse KL, β times `logratio_gap`."""
        chosen, rejected = (
            self.divergence(ratio, self.alpha) for ratio in (self.chosen_logratio, self.rejected_logratio)
        )
        return beta * (chosen - rejected)


LossFunction = Callable[[PairLogps, float, float], Tensor]
"""`(pairs, beta, label_smoothing)` to the loss of each pair, [B]; label_smoothing is the chance ε of a wrong label."""

_WITHOUT_SMOOTHING: set[LossFunction] = set()
_OF_ANY_DIVERGENCE: set[LossFunction] = set()
_OF_SCORES: set[LossFunction] = set()


def loss(
    name: str, *, smoothing: bool = True, any_divergence: bool = False, scored: bool = False
) -> Callable[[LossFunction], LossFunction]:
    """Register a loss under the name that `dpo.loss` takes; without `smoothing`, it ignores its `label_smoothing`.

    A loss of `any_divergence` reads the pairs' `margin` or rewards, not their log-ratios; a `scored` one reads their
    `gap`, so that pairs without scores are refused.
    """

    def register(function: LossFunction) -> LossFunction:
        if not smoothing:
            _WITHOUT_SMOOTHING.add(function)
        if any_divergence:
            _OF_ANY_DIVERGENCE.add(function)
        if scored:
            _OF_SCORES.add(function)
        return registers(LOSSES, name)(function)

    return register


def has_smoothing(function: LossFunction) -> bool:
    """Whether a loss has a use for `dpo.label_smoothing`, which is refused where it has none."""
    return function not in _WITHOUT_SMOOTHING


def has_any_divergence(function: LossFunction) -> bool:
    """Whether a loss goes with every `dpo.divergence`; else any but `reverse_kl` is refused."""
    return function in _OF_ANY_DIVERGENCE


def needs_scores(function: LossFunction) -> bool:
    """Whether a loss learns from the gap of the scores of each pair, and not only from which text is preferred."""
    return function in _OF_SCORES


@loss("sigmoid", any_divergence=True)
def sigmoid(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """−(1−ε) log σ(m) − ε log σ(−m): Rafailov et al. 2023, eq. 7; with ε > 0 conservative, Mitchell 2023."""
    margin = pairs.margin(beta)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


@loss("hinge", smoothing=False, any_divergence=True)
def hinge(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """max(0, 1 − m): Zhao et al. 2023 (SLiC), eq. 5, on the log-ratios as in Liu et al. 2024 (RSO), eq. 11."""
    del label_smoothing  # it has no model of wrong labels
    return torch.relu(1 - pairs.margin(beta))


@loss("ipo", smoothing=False)
def ipo(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """(h̄ − 1/(2β))², h̄ from log-ratios averaged over tokens: Azar et al. 2023, eq. 17, with β as its τ.

    The average per token, which the authors' own experiments used, keeps the target independent of the text's length.
    It needs what is additive over tokens, as log u alone is: of another f'(u), TRL 1.16 divides that of the whole text
    by its length, so that long texts could not reach the target of short ones.
    """
    del label_smoothing  # regression to a finite target is already robust to noise
    gap = pairs.chosen_logratio / pairs.chosen_tokens - pairs.rejected_logratio / pairs.rejected_tokens
    return (gap - 1 / (2 * beta)) ** 2


@loss("robust", any_divergence=True)
def robust(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """(−(1−ε) log σ(m) + ε log σ(−m)) / (1−2ε): Chowdhury et al. 2024, eq. 9, unbiased if labels flip at rate ε."""
    margin = pairs.margin(beta)
    kept = -(1 - label_smoothing) * F.logsigmoid(margin)
    flipped = -label_smoothing * F.logsigmoid(-margin)
    return (kept - flipped) / (1 - 2 * label_smoothing)


@loss("distill", smoothing=False, any_divergence=True, scored=True)
def distill(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """(m − (r_w − r_l))²: reward model distillation, Fisch et al. 2024 (arXiv 2405.19316), and Gao et al. 2024 (REBEL).

    It is 0 for every pair where the policy is π_ref exp(r/β)/Z, the optimum under the reward r that gave the scores:
    the margin has a target, and a pair whose texts are nearly as good is not pulled apart.
    """
    del label_smoothing  # a score is no label
    assert pairs.gap is not None, "the stage refuses pairs without scores"
    return (pairs.margin(beta) - pairs.gap) ** 2


def chosen_nll(pairs: PairLogps) -> Tensor:
    """−log π(y_w|x) / |y_w|, shape [B]: RPO, Pang et al. 2024, eq. 1, where a text counts once, long or short."""
    return -pairs.chosen / pairs.chosen_tokens
