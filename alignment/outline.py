"""What can be known of a model without its weights: its tokenizer, and how its texts begin, end and are bounded."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from alignment import adapters, hub
from alignment.errors import ModelError
from alignment.models import FIELDS, Loaded, check_folder, local_folder, ready


def outline(source: str, revision: str = "main", *, name: str = "") -> Loaded:
    """A base model without weights, from a folder or the hub; of an adapter's folder, its base.

    It tokenises, decodes and has the conventions of the model, and computes nothing; `name` is how errors of its use
    name it, by default field and source. Raises ModelError where config or tokenizer are missing or unsafe.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where = f"{FIELDS['base']} {source}"
    folder = local_folder(source, "base")
    texts: str | Path = source
    if folder is not None and adapters.is_adapter(folder):
        found = adapters.base_of(folder)
        texts = folder if (folder / "tokenizer.json").exists() else found.folder or found.name
        folder, source, revision = found.folder, str(found.folder or found.name), found.revision
    if folder is not None:
        check_folder(folder, "base")
    safe: dict[str, Any] = {"trust_remote_code": False} | ({} if folder else {"revision": revision})
    try:
        with hub.cache_without_network(source):
            tokenizer = AutoTokenizer.from_pretrained(str(texts), **safe)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, **safe))
    except Exception as error:  # a broken file makes its reader raise anything
        if not folder:
            hub.require_reached(error, FIELDS["base"], source)
        raise ModelError(
            f"{where}: cannot be read ({' '.join(str(error).split())[:240]}); give a hub name, or a folder that "
            "`save_pretrained` wrote"
        ) from error
    with hub.cache_without_network(source), suppress(OSError):  # it is optional, and may name further end tokens
        model.generation_config = GenerationConfig.from_pretrained(source, **safe)
    return ready(model, tokenizer, "base", where, name)
