"""What to do where the scores of chosen and rejected are too close in most pairs: told from the gaps themselves."""

from collections.abc import Sequence

import numpy as np


def explain_gaps(gaps: Sequence[float], bound: float) -> str:
    """How the gaps of all pairs lie, and both ways out; empty where at least half of them reach `bound`.

    Gaps are in units of the reward; pairs without scores have none.
    """
    found = np.asarray(gaps, float)
    if not len(found) or np.mean(found >= bound) >= 0.5:
        return ""
    low, half, high = (f"{value:.2g}" for value in np.quantile(found, [0.0, 0.5, 1.0]))
    kept = f"{_rounded_down(float(np.median(found))):g}"
    return (
        f"the gaps between the scores of chosen and rejected are {low} to {high}, half of them above {half}, and "
        f"validation.min_gap asks for {bound:g}: the reward tells these texts hardly apart. A reward model that is "
        f"trained here needs more reward.steps, or more data.rows; a reward whose scores are small by nature needs a "
        f"lower validation.min_gap, of which {kept} keeps half of the pairs"
    )


def _rounded_down(value: float) -> float:
    """A value to two digits, not above it."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.floor(value / unit + 1e-9) * unit)
