"""A model as its config describes it, without its weights: enough to ask how its texts begin and end."""

from pathlib import Path
from typing import Any


def without_weights(folder: Path) -> tuple[Any, Any]:
    """The model of a `save_pretrained` folder on torch's device without memory, and its tokenizer.

    Raises what transformers raises of a file that is broken.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder), **local))
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    return model, tokenizer
