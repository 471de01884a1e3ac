"""Adapters such as LoRA as folders beside a model: what base they name, how they are kept, and merged into its weights.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, as peft writes them.
"""

import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment import adapter_bases, models
from alignment.conventions import text_config
from alignment.errors import ModelError, SelfCheckError
from alignment.tensor_files import header_of

logger = logging.getLogger(__name__)

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

NOT_MERGED = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE", "CPT"),
    *("ADAPTION_PROMPT", "XLORA"),
)
"""Types of adapters that work beside the weights of a model."""

PROBE = 16  # tokens of the text on which a merged model is compared with its adapter
ALLOWED = 0.01  # nats, between their log-probs of any token: many times rounding


@dataclass(frozen=True)
class BaseOfAdapter:
    """The model that an adapter was trained on: its folder, or its name and revision on the hub."""

    folder: Path | None
    name: str
    revision: str


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, which needs a base."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> BaseOfAdapter:
    """The base that an adapter's folder names; a relative path is looked for from that folder, then from here.

    Raises ModelError where the folder is not a whole adapter with safetensors, or its base is not there.
    """
    where = f"{models.FIELDS['base']} {folder}"
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{where}: {PICKLE} is a pickle, which can run code when it is loaded; convert it once where you trust it, "
            "with peft's `save_pretrained`, which writes safetensors"
            if (folder / PICKLE).is_file()
            else f"{where}: no weights; expected {WEIGHTS} beside {CONFIG}"
        )
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{where}: {CONFIG} is not JSON ({error}); give a folder that peft wrote") from error
    name = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{where}: {CONFIG} names no base; set `base_model_name_or_path` in it to the base's hub name or folder"
        )
    found = next((path for path in (folder / name, Path(name)) if path.is_dir()), None)
    if found is None and (Path(name).is_absolute() or name.startswith((".", "~"))):
        raise ModelError(
            f"{where}: its base {name} is no folder; set `base_model_name_or_path` in {CONFIG} to the base's hub name "
            "or folder"
        )
    if found is not None and is_adapter(found):
        raise ModelError(
            f"{where}: its base {name} is an adapter itself; merge that one first, with peft's `merge_and_unload`, and "
            "name the folder that `save_pretrained` wrote then"
        )
    kind, task = settings.get("peft_type"), settings.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(f"{where}: is an adapter for the task {task}; give one of a causal language model")
    if kind in NOT_MERGED:
        raise ModelError(f"{where}: an adapter of the type {kind} cannot be merged into a model; give a LoRA, say")
    adapter_bases.compare_names(where, folder, name)
    return BaseOfAdapter(found, name, str(settings.get("revision") or "main"))


def require_whole(folder: Path) -> None:
    """Raise ModelError where the file of an adapter's weights is cut off."""
    header_of(folder / WEIGHTS, f"{models.FIELDS['base']} {folder / WEIGHTS}")


def load_merged(folder: Path) -> models.Loaded:
    """The base that an adapter's folder names, in fp32, with the adapter merged into it; as peft loads the two.

    The tokenizer is the adapter's own where the folder has one. Raises ModelError where adapter or base is missing,
    unsafe or broken, or they do not fit each other, and SelfCheckError as `merge` does.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    base, name = base_of(folder), f"{models.FIELDS['base']} {folder}"
    require_whole(folder)
    try:
        loaded = models.load_base(base.folder or base.name, revision=base.revision, name=name)
    except ModelError as error:
        reason = str(error).removeprefix(f"{models.FIELDS['base']} ")
        raise ModelError(f"{name}: its base cannot be used: {reason}") from error
    tokenizer = loaded.tokenizer
    with models.using(name, "loading its adapter"), _told() as told:
        adapter_bases.require_recorded(name, folder / WEIGHTS, base.name, loaded.model)
        if any((folder / file).is_file() for file in models.TOKENIZER_FILES):
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        _resize(loaded.model, folder)
        place = str(loaded.model.device)  # else peft reads it to a GPU, which may be another process's
        try:
            model = PeftModel.from_pretrained(loaded.model, str(folder), torch_device=place).eval()
        except (RuntimeError, ValueError) as error:
            adapter_bases.require_fit(name, base.name, error)
            raise
        keys = model.load_adapter(str(folder), "default", torch_device=place).unexpected_keys
    if missing := [line for line in told if "missing adapter keys" in line]:
        raise ModelError(f"{name}: {WEIGHTS} lacks a part of the adapter ({missing[0][:240]}); give a whole one")
    unexpected = [key for key in keys if "modules_to_save" not in key and "original_module" not in key]  # kept twice
    if unexpected:
        raise adapter_bases.missing(name, base.name, unexpected[0])
    whole = models.ready(model, tokenizer, "base", name)
    models.warn_of_ends(whole)
    return merge(whole)


def merge(loaded: models.Loaded) -> models.Loaded:
    """The model without its adapter, whose work its own weights do from now on.

    Weights that were tied to others, as the output head is to the embedding, stay tied where the adapter changed
    neither or both alike; else they part, and the config says so. Raises ModelError for an adapter that cannot be
    merged, and SelfCheckError where the merged model predicts anything else than the model with its adapter did.
    """
    import torch

    before = _predictions(loaded)
    tied = _part_shared_weights(loaded)
    with models.using(loaded.name, "merging its adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights
        model = loaded.model.merge_and_unload(safe_merge=True).eval()
    _settle_ties(model, tied, loaded.name)
    merged = replace(loaded, model=model)
    after = _predictions(merged)
    off = (after - before)[after != before].abs().nan_to_num(torch.inf)
    if (off > ALLOWED).any():
        raise SelfCheckError(
            f"{loaded.name}: merged into the weights, its adapter gives log-probs that are off by "
            f"{float(off.max()):.2g} nats; take other target modules, or no adapter"
        )
    return merged


def standing(base: Path, folder: Path) -> Any:
    """The model of a folder, as its weights are, with the adapter of another one.

    Saved, it has no card of peft's: that is an empty form which names the base by its path on this machine.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), use_safetensors=True, local_files_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights
        attached = PeftModel.from_pretrained(model, str(folder), torch_device=str(model.device)).eval()
    attached.create_or_update_model_card = lambda *_: None
    return attached


def is_attached(model: Any) -> bool:
    """Whether a model stands with an adapter."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def save(model: Any, folder: Path, base: str = "", revision: str = "main", *, fingerprint: str = "") -> None:
    """Write the adapter of a model alone, as peft does; `base` is what `base_model_name_or_path` says there.

    With the `fingerprint` of its base the adapter is refused over any other one.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"} | ({adapter_bases.FINGERPRINT: fingerprint} if fingerprint else {}),
    )
    named = {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    settings = model.active_peft_config.to_dict() | named
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for file in (folder / WEIGHTS, folder / CONFIG):
        file.chmod(0o644)


def name_base(folder: Path, base: str) -> None:
    """Have an adapter's folder name another base."""
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    text = json.dumps(settings | {"base_model_name_or_path": base}, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def restore(model: Any, folder: Path) -> None:
    """Give a model's adapter the weights that `save` wrote."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / WEIGHTS))


def transfer(source: Any, target: Any) -> None:
    """Give a model with an adapter the weights of another's, whose adapter has the same settings."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    set_peft_model_state_dict(target, get_peft_model_state_dict(source, save_embedding_layers=False))


@contextmanager
def _told() -> Iterator[list[str]]:
    """Have what a library warns of logged, each on one line, and listed."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FutureWarning)  # to the authors of libraries
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")  # `merge` sees to them
        yield found
    for warning in caught:
        found.append(" ".join(str(warning.message).split()))
        logger.warning("%s", found[-1])


def _resize(model: Any, folder: Path) -> None:
    """Give a base the number of embeddings that its adapter has, where it was trained with tokens of its own."""
    from safetensors import safe_open

    table = next((name for name, module in model.named_modules() if module is model.get_input_embeddings()), "")
    with safe_open(folder / WEIGHTS, "pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - it is no mapping
            if name.endswith((f"{table}.weight", f"{table}.base_layer.weight")):
                rows = weights.get_slice(name).get_shape()[0]
                if rows != model.get_input_embeddings().weight.shape[0]:
                    model.resize_token_embeddings(rows, mean_resizing=False)


def _predictions(loaded: models.Loaded) -> Any:
    """Log-probs [tokens, vocabulary] of a text that is the same for every call."""
    import torch

    known = loaded.conventions.embeddings or 2
    length = min(PROBE, loaded.conventions.longest or PROBE)
    ids = torch.randint(known, (1, length), generator=torch.Generator().manual_seed(0))
    with models.using(loaded.name, "merging its adapter"), torch.inference_mode():
        logits = loaded.model(input_ids=ids.to(loaded.model.device), use_cache=False).logits[0]
        return logits.float().log_softmax(-1).cpu()


def shared_weights(model: Any) -> set[int]:
    """The ids of parameters that more than one module holds."""
    holders: dict[int, int] = defaultdict(int)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] += 1
    return {found for found, count in holders.items() if count > 1}


def _part_shared_weights(loaded: models.Loaded) -> bool:
    """Give each layer with an adapter weights of its own; returns whether output head and embedding were tied."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    model, shared = loaded.model, shared_weights(loaded.model)
    ends = {id(weight) for weight in map(_weight, (model.get_input_embeddings(), model.get_output_embeddings()))}
    for layer in [module for module in model.modules() if isinstance(module, BaseTunerLayer)]:
        base = layer.get_base_layer()
        weight = getattr(base, "weight", None)
        if weight is None or id(weight) not in shared:
            continue
        if id(weight) not in ends:
            raise ModelError(
                f"{loaded.name}: an adapter stands on weights that several layers share, so it cannot be merged; "
                "take other target modules"
            )
        base.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    return len(ends) == 1


def _settle_ties(model: Any, tied: bool, name: str) -> None:
    """Tie the output head to the embedding again where they are alike, or have the config say that they are not."""
    import torch

    if not tied:
        return
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    alike = torch.equal(embedding.weight, head.weight)
    if alike:
        head.weight = embedding.weight
    else:
        logger.warning("%s: its adapter changes embedding and output head apart, so they are no longer tied", name)
    for config in (model.config, text_config(model.config)):
        config.tie_word_embeddings = alike


def _weight(module: Any) -> Any:
    """The weights of an embedding or an output head, under whatever an adapter put around it."""
    while hasattr(module, "base_layer") or hasattr(module, "original_module"):
        module = module.base_layer if hasattr(module, "base_layer") else module.original_module
    return getattr(module, "weight", None)
