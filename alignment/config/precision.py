"""How exactly a model computes, as the configuration names it."""

from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]
"""`tf32` is fp32 whose matrix products a GPU may round to 10 bits of mantissa; on a CPU it is fp32."""
