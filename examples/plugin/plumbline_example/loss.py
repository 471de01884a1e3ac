"""The loss `exponential`: exp(−βh), as in boosting."""

from torch import Tensor

from alignment.training.losses import PairLogps, loss


@loss("exponential", smoothing=False)
def exponential(pairs: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """exp(−βh) of each pair, shape [B]: Tang et al. 2024 (generalized preference optimization), table 1."""
    del label_smoothing  # it has no model of label noise
    return (-beta * pairs.logratio_gap).exp()
