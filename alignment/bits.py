"""What bitsandbytes does where it is asked to, on a GPU alone: a base model in 4 bits, and AdamW with 8-bit moments."""

from importlib.util import find_spec
from typing import Any

from alignment.config import AlignConfig
from alignment.errors import ConfigError

LIBRARY = "bitsandbytes"


def asked(config: AlignConfig) -> dict[str, str]:
    """The fields that ask for it, each with what to set it to instead."""
    fields = {}
    if config.base.load_in == "4bit":
        fields["base.load_in = 4bit"] = "bf16"
    if config.dpo.optimizer == "adamw_8bit":
        fields["dpo.optimizer = adamw_8bit"] = "adamw"
    return fields


def require(config: AlignConfig, *, gpu: bool) -> None:
    """Raise ConfigError where the configuration asks for it, and there is no GPU, or the library is not installed."""
    for field, instead in asked(config).items():
        if not gpu:
            raise ConfigError(f"{field}: needs a GPU, and this machine has none; set it to {instead}")
        if find_spec(LIBRARY) is None:
            raise ConfigError(
                f"{field}: needs the package {LIBRARY}: install plumbline's extra `bits` "
                f"(`pip install -e '.[bits]'` in its folder), or set it to {instead}"
            )


def four_bits() -> Any:
    """How a model is loaded in 4 bits: NF4, its scales quantised too, products in bf16 (Dettmers et al. 2023)."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
