"""f-divergences between policy and reference: each by the derivative of its f, as the margin of a pair needs it.

A package adds a divergence by an entry point of the group `plumbline.divergences`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.kinds import DIVERGENCES, registers

Derivative = Callable[[Tensor, float], Tensor]
"""`(log u, alpha)` to f'(u) − f'(1), elementwise; u = π(y|x)/π_ref(y|x), and alpha is `dpo.divergence_alpha`.

D_f(π‖π_ref) = E_{y∼π_ref}[f(u)]. A policy that is optimal under reward − β D_f has r(x, y) = β f'(u) up to a term of
the prompt alone: Wang et al. 2023 (arXiv 2309.16240), theorem 1, with each f as in table 1. A constant cancels in a
margin; without f'(1), a policy that is its reference implies a reward of 0.
"""

TANGENT_FROM = 30.0
"""The exponent, in nats, from which an exponential goes on as its tangent.

e^30 ≈ 1e13 leaves room in fp32 for the squares that a gradient's norm is made of; a clamp would leave no gradient, just
where the policy is farthest from the reference.
"""


def divergence(name: str, *, parameter: bool = False) -> Callable[[Derivative], Derivative]:
    """Register a derivative under the name that `dpo.divergence` takes; without a `parameter`, it ignores its alpha.

    One of a package that ignores it has to say `parameter=False`.
    """
    del parameter  # read from here by `alignment.config`, without an import
    return registers(DIVERGENCES, name)


@divergence("reverse_kl")
def reverse_kl(log_u: Tensor, alpha: float) -> Tensor:
    """f(u) = u log u, so f'(u) = log u + 1: KL(π‖π_ref), the divergence of DPO itself; mode-seeking."""
    del alpha
    return log_u


@divergence("forward_kl")
def forward_kl(log_u: Tensor, alpha: float) -> Tensor:
    """f(u) = −log u, so f'(u) = −1/u: KL(π_ref‖π), mass-covering; what a chosen text can gain is bounded by β."""
    del alpha
    return -_expm1(-log_u)


@divergence("jensen_shannon")
def jensen_shannon(log_u: Tensor, alpha: float) -> Tensor:
    """f(u) = u log u − (u + 1) log((u + 1)/2), so f'(u) = log(2u/(1 + u)): twice the Jensen-Shannon divergence."""
    del alpha
    return math.log(2) + F.logsigmoid(log_u)


@divergence("alpha", parameter=True)
def alpha_divergence(log_u: Tensor, alpha: float) -> Tensor:
    """f(u) = (u^(1−α) − (1−α) u − α)/(α (α−1)), so f'(u) = (1 − u^−α)/α: the reverse KL as α → 0, the forward as α → 1.

    α is the paper's. TRL 1.16 has f'(u) = (u^(α−1) − 1)/(α−1), where α runs the other way: its 1 − α is ours.
    """
    return -_expm1(-alpha * log_u) / alpha


def _expm1(x: Tensor) -> Tensor:
    """e^x − 1, and its tangent at `TANGENT_FROM` beyond."""
    capped = x.clamp(max=TANGENT_FROM)
    return torch.expm1(capped) + torch.exp(capped) * (x - capped)
