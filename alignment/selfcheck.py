"""The self-check: a few rows of a batch are computed again, one by one and without padding, and must agree.

It catches what nobody listed: a mask that is not heeded, positions that are shifted, a cache that is mixed up.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignment.errors import SelfCheckError
from alignment.models import using

ROWS = 3  # of a batch
ALLOWED = {"fp32": (2e-4, 1e-3), "bf16": (0.05, 0.5)}  # nats a token, and nats or logits on top: many times rounding


class SelfCheck:
    """Checks the first batch, and the first with padding, of one stage with one model."""

    def __init__(self, stage: str, name: str, model: Any, way_out: str = "take another model") -> None:
        """`stage` and `name` are how an error names the work and the model."""
        self.stage, self.name, self.way_out = stage, name, way_out
        exact = next(model.parameters()).dtype == torch.float32
        self.per_token, self.floor = ALLOWED["fp32" if exact else "bf16"]
        self._due = {False, True}

    def __call__(
        self,
        found: Sequence[float] | NDArray[np.float64],
        padded: bool,
        alone: Callable[[int], float | NDArray[np.float64]],
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Compare rows of a batch, a value or several each, with `alone(row)`.

        `sizes` are the tokens that each value, then a log-prob, sums over. Raises SelfCheckError where a row is further
        off than rounding goes.
        """
        due = {False, padded} & self._due
        if not due:
            return
        for row in _spread(len(found)):
            with using(self.name, self.stage):
                expected = np.atleast_1d(alone(row))
            values = np.atleast_1d(found[row])
            size = 0 if sizes is None else sizes[row]
            scale = np.maximum(1, np.abs(np.nan_to_num(expected))) if sizes is None else 1
            if sizes is not None and np.isnan(expected).any():
                raise SelfCheckError(
                    f"{self.name}: {self.stage} gives log-probs that are no numbers; check its weights, or its precision"
                )
            with np.errstate(invalid="ignore"):
                off = np.where(values == expected, 0.0, np.abs(values - expected))
            if sizes is None:  # logits that are not finite are refused by whoever reads their column
                off[np.isnan(values) & np.isnan(expected)] = 0.0
            if not (off <= self.floor * scale + self.per_token * size).all():  # as NaN is not
                worst = int(np.argmax(off))
                figure = (
                    f"{off[worst]:.2g} logits" if sizes is None else f"{off[worst] / max(1, size):.2g} nats a token"
                )
                raise SelfCheckError(
                    f"{self.name}: {self.stage} in a batch is off by {figure} from a plain forward pass of that one "
                    f"text ({values[worst]:.4f} against {expected[worst]:.4f}); {self.way_out}"
                )
        self._due -= due


@torch.inference_mode()
def plain_logprob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """log p(completion | prompt) in nats by one forward pass of one sequence, without padding and without a cache."""
    ids = torch.tensor([[*prompt, *completion]], device=next(model.parameters()).device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).double().sum())


def _spread(count: int) -> list[int]:
    """The first, the middle and the last of so many rows: the most and the least padded, and a repeated prompt."""
    return sorted({round(part * (count - 1) / (ROWS - 1)) for part in range(ROWS)})
