"""How a kept model writes for whoever loads it: as it wrote in training, and never beyond its window."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.conventions import Conventions, affixes, conventions
from alignment.errors import ModelError
from alignment.models import check_folder

if TYPE_CHECKING:
    from transformers import GenerationConfig


def load(folder: Path, config: AlignConfig) -> tuple[Any, Any]:
    """The model and the tokenizer of a `save_pretrained` folder, set to write as in training wherever they are loaded.

    Raises ModelError where the folder lacks a part.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_folder(folder, "base")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder.absolute()), **local)
        model = AutoModelForCausalLM.from_pretrained(str(folder.absolute()), use_safetensors=True, **local)
    except Exception as error:  # a broken file makes its reader raise anything
        raise ModelError(f"model folder {folder}: cannot be loaded ({' '.join(str(error).split())[:240]})") from error
    found = conventions(model, tokenizer, f"model folder {folder}")
    _fit_tokenizer(tokenizer, found)
    model.generation_config = generation(config, found, tokenizer.pad_token_id)
    return model, tokenizer


def generation(config: AlignConfig, found: Conventions, pad_id: int) -> "GenerationConfig":
    """The sampling of the training, the tokens that begin, end and pad a text, and where it stops that does not end.

    A length in all is the one bound that holds for prompts of every length: a prompt that fills the window is then an
    error that names both figures. Without a window there is nothing to overrun, and new tokens are counted instead.
    """
    from transformers import GenerationConfig

    sampling = config.sampling
    return GenerationConfig(
        do_sample=True,
        use_cache=sampling.cache,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        max_length=found.longest,
        max_new_tokens=None if found.longest else new_tokens(config),
        bos_token_id=found.opening[0],
        eos_token_id=list(found.ends),
        pad_token_id=pad_id,
    )


def new_tokens(config: AlignConfig) -> int:
    """The most tokens that followed the longest prompt in training."""
    longest = 1 if config.prompts.mode == "empty" else config.prompts.tokens_max
    return config.sampling.new_tokens_max or config.sampling.total_tokens - longest


def _fit_tokenizer(tokenizer: Any, found: Conventions) -> None:
    """Have it leave a prompt open at its right end, pad with a token that the model knows, and name the window."""
    from tokenizers.processors import TemplateProcessing

    if getattr(tokenizer, "add_eos_token", False):
        tokenizer.add_eos_token = False
    if tokenizer.is_fast and affixes(tokenizer)[1]:
        begins = list(zip(tokenizer.convert_ids_to_tokens(list(found.begins)), found.begins, strict=True))
        template = [*(token for token, _ in begins), "$A"]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=begins)
    tokenizer.padding_side = "left"
    pad_id = tokenizer.pad_token_id
    if pad_id is None or (found.embeddings is not None and pad_id >= found.embeddings):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(found.ends[0])
    if found.longest:
        tokenizer.model_max_length = found.longest
