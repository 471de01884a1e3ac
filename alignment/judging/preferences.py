"""How a model ranks pairs by its implicit reward, as DPO defines it: Rafailov et al. 2023, equation 5."""

import numpy as np
import numpy.typing as npt

from alignment.config import EvaluationConfig
from alignment.judging.report import Preferences
from alignment.judging.statistics import paired_bootstrap, wins

Array = npt.NDArray[np.float64]


def preferences(
    policy: tuple[Array, Array],
    base: tuple[Array, Array],
    *,
    beta: float,
    left_out: int,
    config: EvaluationConfig,
    seed: int,
) -> Preferences:
    """Accuracy and mean margin over pairs; the log-probs of chosen and rejected are sums in nats, (pairs,) each.

    Raises ValueError below two pairs.
    """
    chosen, rejected = (beta * (ours - theirs) for ours, theirs in zip(policy, base, strict=True))
    ranked, margins = wins(rejected, chosen), chosen - rejected
    return Preferences(
        pairs=len(margins),
        left_out=left_out,
        accuracy=float(ranked.mean()),
        accuracy_ci=paired_bootstrap(ranked, config.bootstrap, config.confidence, seed),
        margin=float(margins.mean()),
        margin_ci=paired_bootstrap(margins, config.bootstrap, config.confidence, seed),
    )
