"""Prepares a model to be served: its generation config and tokenizer, so that it samples as in training anywhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.conventions import Conventions, affixes, conventions
from alignment.data.prompts.whole import longest_prompt
from alignment.errors import ModelError
from alignment.models import check_folder

if TYPE_CHECKING:
    from transformers import GenerationConfig


def load(folder: Path, config: AlignConfig) -> tuple[Any, Any]:
    """The model and the tokenizer of a `save_pretrained` folder, set to sample as in training wherever they are loaded.

    Raises ModelError if the folder lacks a part.
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
    """Training's sampling parameters, the tokens that begin, end and pad a text, and the longest length of a text.

    The bound is on the total length, which holds for prompts of any length: a prompt that fills the context window is
    then an error that names both figures. A model without a window has a bound on new tokens instead.
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
    return config.sampling.new_tokens_max or config.sampling.total_tokens - longest_prompt(config)


def _fit_tokenizer(tokenizer: Any, found: Conventions) -> None:
    """Have the tokenizer add nothing after a prompt, pad with a token that the model knows, and state the window."""
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
