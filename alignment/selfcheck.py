"""The self-check: a few rows of a batch are computed again, one by one and without padding, and must agree.

It catches what nobody listed: a mask that is not heeded, positions that are shifted, a cache that is mixed up.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignment.device import is_exact
from alignment.errors import SelfCheckError
from alignment.models import using

T = TypeVar("T")

ROWS = 3  # of a batch
ALLOWED = {"fp32": (2e-4, 1e-3), "bf16": (0.05, 0.5)}  # nats per token, and nats or logits on top: many times rounding


class SelfCheck:
    """Checks the first batch, and the first with padding, of one stage with one model."""

    def __init__(self, stage: str, name: str, model: Any, way_out: str = "take another model") -> None:
        """`stage` and `name` are how an error names the work and the model."""
        self.stage, self.name, self.way_out = stage, name, way_out
        self.per_token, self.floor = ALLOWED["fp32" if is_exact(model) else "bf16"]
        self.renew()

    def renew(self) -> None:
        """Have the next batches checked as the first were: of rows that were computed in another way."""
        self._due = {False, True}

    def logprobs(
        self, found: Sequence[float], lengths: Sequence[int], alone: Callable[[int], float], *, padded: bool
    ) -> None:
        """Compare a batch's log-probs, sums over `lengths` tokens in nats, with `alone(row)`.

        Raises SelfCheckError where one is further off than rounding goes, or is no number.
        """
        for row, expected in self._rows(len(found), alone, padded):
            if math.isnan(expected):
                raise SelfCheckError(
                    f"{self.name}: {self.stage} gives log-probs that are no numbers; check its weights, or precision"
                )
            off = abs(found[row] - expected)
            if found[row] != expected and not off <= self.floor + self.per_token * lengths[row]:
                raise self._error(f"{off / max(1, lengths[row]):.2g} nats per token", found[row], expected)

    def logits(self, found: NDArray[np.float64], alone: Callable[[int], NDArray[np.float64]], *, padded: bool) -> None:
        """Compare a batch's logits [B, classes] with `alone(row)` [classes].

        Raises SelfCheckError where one is further off than rounding goes; those that are no numbers in both pass.
        """
        for row, expected in self._rows(len(found), alone, padded):
            agree = np.isclose(found[row], expected, rtol=self.floor, atol=self.floor, equal_nan=True)
            if not agree.all():
                worst = int(np.argmin(agree))
                off = abs(found[row][worst] - expected[worst])
                raise self._error(f"{off:.2g} logits", found[row][worst], expected[worst])

    def _rows(self, count: int, alone: Callable[[int], T], padded: bool) -> Iterator[tuple[int, T]]:
        """The rows to compare with what each gives alone: none once this kind of batch has been checked."""
        due = {False, padded} & self._due
        for row in _spread(count) if due else []:
            with using(self.name, self.stage):
                expected = alone(row)
            yield row, expected
        self._due -= due

    def _error(self, off: str, found: float, expected: float) -> SelfCheckError:
        return SelfCheckError(
            f"{self.name}: {self.stage} in a batch is off by {off} from a plain forward pass of that one text "
            f"({found:.4f} against {expected:.4f}); {self.way_out}"
        )


@torch.inference_mode()
def plain_logprob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """log p(completion | prompt) in nats by one forward pass of one sequence, without padding and without a cache."""
    ids = torch.tensor([[*prompt, *completion]], device=next(model.parameters()).device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).double().sum())


def _spread(count: int) -> list[int]:
    """The first, the middle and the last of so many rows: the most and the least padded, and a repeated prompt."""
    return sorted({round(part * (count - 1) / (ROWS - 1)) for part in range(ROWS)})
