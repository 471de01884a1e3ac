"""Prepares a model to be served: its generation config and tokenizer, so that it samples as in training anywhere."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig, PromptsConfig
from alignment.conventions import Conventions, affixes, conventions
from alignment.data.chat import read_template
from alignment.data.prompts.whole import longest_prompt
from alignment.described import without_weights
from alignment.errors import ModelError
from alignment.links import share
from alignment.models import check_folder

if TYPE_CHECKING:
    from transformers import GenerationConfig


def prepare(folder: Path, config: AlignConfig, out: Path) -> tuple["GenerationConfig", Any]:
    """Write a `save_pretrained` folder to `out` once more, set to sample as in training wherever it is loaded.

    No weight is loaded: their files are shared with `folder`, whose content may not change any more. Returns how the
    model writes, and its tokenizer. Raises ModelError if the folder lacks a part.
    """
    check_folder(folder, "base")
    try:
        model, tokenizer = without_weights(folder.absolute())
    except Exception as error:  # a broken file makes its reader raise anything
        raise ModelError(f"model folder {folder}: cannot be loaded ({' '.join(str(error).split())[:240]})") from error
    found = conventions(model, tokenizer, f"model folder {folder}")
    _fit_tokenizer(tokenizer, found)
    tokenizer.chat_template = chat_template(tokenizer, config.prompts)
    writing = generation(config, found, tokenizer.pad_token_id)
    out.mkdir(parents=True)
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json"), folder / "config.json"):
        share(file, out / file.name, link=True)
    writing.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return writing, tokenizer


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


def chat_template(tokenizer: Any, prompts: PromptsConfig) -> str | None:
    """The chat template with which a model was trained, its system prompt and variables written into it; None if none.

    So a request that has neither gets what the training's prompts had. A system message of its own wins, and so does a
    variable that it sets.
    """
    template = read_template(prompts.chat_template) if prompts.chat_template else tokenizer.chat_template
    if not isinstance(template, str) or not (prompts.system or prompts.chat_template_kwargs):
        return template or None
    begins = [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}"
        for name, value in prompts.chat_template_kwargs.items()
    ]
    if prompts.system:
        system = f"[{{'role': 'system', 'content': {json.dumps(prompts.system)}}}]"
        begins.append(
            "{% if not messages or messages[0]['role'] not in ['system', 'developer'] %}"
            f"{{% set messages = {system} + messages %}}{{% endif %}}"
        )
    return "".join([*begins, "{{ '' }}", template])  # a line break after a block would be taken away


def _literal(value: Any) -> str:
    """A value in Jinja, which writes what JSON writes, but for null."""
    return "none" if value is None else json.dumps(value)


def for_chats(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> Any:
    """A copy that puts nothing before a text, where its chat template begins `messages` with that already, such as BOS.

    MLflow has the template write a text, and tokenizes that as any other.
    """
    from tokenizers.processors import TemplateProcessing

    begins = affixes(tokenizer)[0]
    written = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    if not begins or not tokenizer.is_fast or tuple(written[: len(begins)]) != begins:
        return tokenizer
    bare = deepcopy(tokenizer)
    if getattr(bare, "add_bos_token", False):
        bare.add_bos_token = False
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    return bare


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
