"""DPO's losses: pure functions from the log-probabilities of pairs to one value per pair.

A package adds a loss by an entry point of the group `plumbline.losses`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.kinds import LOSSES, registers


@dataclass(frozen=True)
class PairLogps:
    """Completion log-probabilities of B pairs, each of shape [B]: sums over tokens, in nats, and token counts."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

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
        """The difference h of the two log-ratios, shape [B]; the margin is beta · h."""
        return self.chosen_logratio - self.rejected_logratio


LossFunction = Callable[[PairLogps, float, float], Tensor]
"""`(pairs, beta, label_smoothing)` to the loss of each pair, [B]; label_smoothing is the chance ε of a wrong label."""

_WITHOUT_SMOOTHING: set[LossFunction] = set()


def loss(name: str, *, smoothing: bool = True) -> Callable[[LossFunction], LossFunction]:
    """Register a loss under the name that `dpo.loss` takes; without `smoothing`, it ignores its `label_smoothing`."""

    def register(function: LossFunction) -> LossFunction:
        if not smoothing:
            _WITHOUT_SMOOTHING.add(function)
        return registers(LOSSES, name)(function)

    return register


def has_smoothing(function: LossFunction) -> bool:
    """Whether a loss has a use for `dpo.label_smoothing`, which is refused where it has none."""
    return function not in _WITHOUT_SMOOTHING


@loss("sigmoid")
def sigmoid(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """−(1−ε) log σ(βh) − ε log σ(−βh): Rafailov et al. 2023, eq. 7; with ε > 0 conservative, Mitchell 2023."""
    margin = beta * pairs.logratio_gap
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


@loss("hinge", smoothing=False)
def hinge(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """max(0, 1 − βh): Zhao et al. 2023 (SLiC), eq. 5, on the log-ratios as in Liu et al. 2024 (RSO), eq. 11."""
    del label_smoothing  # it has no model of wrong labels
    return torch.relu(1 - beta * pairs.logratio_gap)


@loss("ipo", smoothing=False)
def ipo(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """(h̄ − 1/(2β))², h̄ from log-ratios averaged over tokens: Azar et al. 2023, eq. 17, with β as its τ.

    The average per token, which the authors' own experiments used, keeps the target independent of the text's length.
    """
    del label_smoothing  # regression to a finite target is already robust to noise
    gap = pairs.chosen_logratio / pairs.chosen_tokens - pairs.rejected_logratio / pairs.rejected_tokens
    return (gap - 1 / (2 * beta)) ** 2


@loss("robust")
def robust(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """(−(1−ε) log σ(βh) + ε log σ(−βh)) / (1−2ε): Chowdhury et al. 2024, eq. 9, unbiased if labels flip at rate ε."""
    margin = beta * pairs.logratio_gap
    kept = -(1 - label_smoothing) * F.logsigmoid(margin)
    flipped = -label_smoothing * F.logsigmoid(-margin)
    return (kept - flipped) / (1 - 2 * label_smoothing)


def chosen_nll(pairs: PairLogps) -> Tensor:
    """−log π(y_w|x) / |y_w|, shape [B]: RPO, Pang et al. 2024, eq. 1, where a text counts once, long or short."""
    return -pairs.chosen / pairs.chosen_tokens
