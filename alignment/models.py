"""Loading and saving models in the ordinary `save_pretrained` layout: safetensors only, and never remote code."""

import errno
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from alignment import bits, hub
from alignment.batching import is_out_of_memory
from alignment.conventions import REPLACEMENT, Conventions, conventions
from alignment.device import compute_in, device, place
from alignment.errors import ModelError, PlumblineError

logger = logging.getLogger(__name__)

Kind = Literal["base", "reward", "anchor", "model", "start"]
FIELDS: dict[Kind, str] = {
    "base": "base.model",
    "reward": "reward.model",
    "anchor": "evaluation.anchor",
    "model": "model",
    "start": "reward.start",
}
"""Where a configuration names the model of each kind; the anchor is a base model."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt", "model.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model", "vocab.txt")


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, and its tokenizer; `name` is how errors name it."""

    model: Any
    tokenizer: Any
    name: str = "the model"

    @cached_property
    def conventions(self) -> Conventions:
        """How this model's texts begin, end, are padded, and how long they may be."""
        return conventions(self.model, self.tokenizer, self.name)

    @property
    def pad_id(self) -> int:
        """A token for padding, which is masked everywhere."""
        return self.conventions.pad_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of whole texts, begun as the tokenizer begins them, and not ended.

        Raises ModelError where one holds a token that the model has no embedding for.
        """
        with using(self.name, "tokenization"):
            bare: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        self.conventions.require_known(bare, self.name, self.tokenizer)
        return [[*self.conventions.begins, *ids] for ids in bare]

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, special tokens left out."""
        with using(self.name, "decoding"):
            found: list[str] = self.tokenizer.batch_decode(
                [list(ids) for ids in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return found

    def decode(self, rows: Sequence[Sequence[int]], finished: Sequence[bool]) -> list[str]:
        """The texts of token ids, special tokens left out, and the token that ends a finished one, special or not.

        Where a text is not finished, a part of a character at its end was cut by the length, and is left out as well.
        """
        ends = self.conventions.ends
        texts_only = [
            list(ids[:-1] if done and ids and ids[-1] in ends else ids)
            for ids, done in zip(rows, finished, strict=True)
        ]
        texts = self.texts(texts_only)
        return [text if done else text.rstrip(REPLACEMENT) for text, done in zip(texts, finished, strict=True)]


@contextmanager
def using(name: str, stage: str) -> Iterator[None]:
    """Turn what a model's or a tokenizer's code raises when it is used into one ModelError that names it and the stage.

    A file that cannot be read or written is not the model's fault, and stays what it is.
    """
    try:
        yield
    except (PlumblineError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{name}: not enough memory on the device for {stage}; give it shorter texts, fewer at once, or take a "
                "smaller model"
            ) from error
        raise ModelError(
            f"{name}: cannot be used for {stage} ({type(error).__name__}: {' '.join(str(error).split())[:240]}); check "
            "that weights, config and tokenizer belong together, or take another model"
        ) from error


def load_base(
    source: str | Path,
    *,
    revision: str = "main",
    precision: str = "fp32",
    field: str = "precision",
    kind: Kind = "base",
    name: str = "",
) -> Loaded:
    """A causal language model and its tokenizer; `name` is how errors name it, by default field and source.

    `precision` is fp32, tf32, bf16, or 4bit: the weights of linear layers in 4 bits, on a GPU; `field` is where the
    configuration asks for it. Raises ModelError where either is missing or unsafe, the two do not fit each other, or it
    is no decoder.
    """
    from transformers import AutoModelForCausalLM

    from alignment import decoders

    decoders.require_language_model(source, revision, f"{FIELDS[kind]} {source}")
    loaded = _load(source, AutoModelForCausalLM, kind, revision, (precision, field), name)
    with using(loaded.name, "a first prediction"):
        decoders.require_causal(loaded.model, loaded.conventions, loaded.name)
    return loaded


def load_reward(source: str | Path, *, revision: str = "main", precision: str = "fp32", name: str = "") -> Loaded:
    """A sequence classifier and its tokenizer, as `load_base` has a language model, and with its errors."""
    from transformers import AutoModelForSequenceClassification

    return _load(source, AutoModelForSequenceClassification, "reward", revision, (precision, "reward.precision"), name)


def load_start(source: str | Path, classes: Sequence[str]) -> Loaded:
    """A pretrained model with a new head of random weights for these classes, one being a scalar; and its tokenizer.

    The head is drawn from torch's generator. Raises as `load_base` does.
    """
    from transformers import AutoModelForSequenceClassification

    names = dict(enumerate(classes))
    head = {"num_labels": len(names), "id2label": names, "label2id": {name: index for index, name in names.items()}}
    return _load(source, AutoModelForSequenceClassification, "start", "main", ("fp32", ""), "", **head)


def save(loaded: Loaded, folder: Path) -> None:
    """Write the ordinary layout, readable by whoever may read the folder."""
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy(source: str, folder: Path, kind: Kind, revision: str) -> None:
    """Copy a model from the hub or a local folder to `folder`, having loaded it once to know that it is whole.

    Its weights stay in the precision that they came in.
    """
    if kind == "reward":
        loaded = load_reward(source, revision=revision)
    else:
        loaded = load_base(source, revision=revision, kind=kind)
        warn_of_ends(loaded)
    save(replace(loaded, model=shortened(loaded.model)), folder)


def shortened(model: Any) -> Any:
    """An fp32 model in the shorter floats that it came in, where each of its weights is one: so nothing is lost."""
    import torch

    for kind in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(kind).float(), weight) for weight in model.parameters()):
            return model.to(kind)
    return model


def require_same_vocabulary(anchor: Path, base: Path) -> None:
    """Raise ModelError where one model's token ids mean nothing to the other."""
    from transformers import AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    ours, theirs = (AutoTokenizer.from_pretrained(str(folder), **local).get_vocab() for folder in (anchor, base))
    if ours != theirs:
        raise ModelError(
            f"evaluation.anchor: its vocabulary of {len(ours)} tokens is not the base model's of {len(theirs)}, so its "
            "log-probs of the same token ids mean nothing; give the model that the base came from"
        )


def require_context(loaded: Loaded, tokens: int, field: str) -> None:
    """Raise ModelError where the model cannot see `tokens` tokens at once."""
    limit = loaded.conventions.longest
    if limit is not None and tokens > limit:
        raise ModelError(
            f"{field} = {tokens} exceeds the context of {limit} tokens that {loaded.name} has; ask for at most "
            f"{limit}, or take a model with a longer context"
        )


def require_room(prompt: int, total: int, loaded: Loaded) -> None:
    """Raise ModelError where a prompt of `prompt` tokens, BOS included, leaves no room in `sampling.total_tokens`."""
    if prompt >= total:
        raise ModelError(
            f"sampling.total_tokens = {total} leaves no room after prompts of {prompt} tokens, with those that "
            f"{loaded.name} begins every text with: raise it, or lower prompts.tokens_max"
        )


def local_folder(source: str | Path, kind: Kind) -> Path | None:
    """The folder that `source` names, or None for a model on the hub, whose name has one slash at most.

    Raises ModelError where it can only be a folder, and there is none.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") > 1:
        raise ModelError(f"{FIELDS[kind]} {source}: no such folder; give a folder that `save_pretrained` wrote")
    return None


def _load(
    source: str | Path, factory: Any, kind: Kind, revision: str, wanted: tuple[str, str], name: str, **head: Any
) -> Loaded:
    """`wanted` is the precision, and the field that asks for it."""
    import torch
    from transformers import AutoTokenizer

    folder, (precision, field) = local_folder(source, kind), wanted
    if folder:
        check_folder(folder, kind)
    safe = {"trust_remote_code": False} | ({} if folder else {"revision": revision})
    is_quantized = precision == "4bit"
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"  # else a repository of pickles is sent to a converter outside
    try:
        with hub.cache_without_network(source):
            tokenizer = AutoTokenizer.from_pretrained(str(source), **safe)
            model, loading = factory.from_pretrained(
                str(source),
                use_safetensors=True,
                dtype=torch.bfloat16 if precision in ("bf16", "4bit") else torch.float32,
                output_loading_info=True,
                **safe,
                **({"quantization_config": bits.four_bits(), "device_map": {"": device()}} if is_quantized else {}),
                **({"ignore_mismatched_sizes": True} | head if head else {}),
            )
    except Exception as error:  # a broken file makes its reader raise anything
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        if not folder:
            hub.require_reached(error, FIELDS[kind], str(source))
        reason = " ".join(str(error).split())
        way_out = "give a hub name with safetensors weights, or a folder that `save_pretrained` wrote"
        if not folder and "does not appear to have a file named model" in reason:
            way_out = (
                "convert it once where you trust it, with `save_pretrained`, or name a revision that has safetensors"
            )
        if not folder and "config.json" in reason:
            way_out += "; of a LoRA adapter, download the files and give base.model their folder"
        raise ModelError(f"{FIELDS[kind]} {source}: cannot be loaded ({reason[:240]}); {way_out}") from error
    missing = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    if head:  # it is drawn here
        missing = [key for key in missing if key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key]
    if missing:
        raise ModelError(
            f"{FIELDS[kind]} {source}: its weights lack {missing[0]}, which would be random; give a "
            f"{'sequence classifier' if kind == 'reward' else 'causal language model'} that was saved whole"
        )
    model = compute_in(place(model).eval(), precision, field)
    return ready(model, tokenizer, kind, f"{FIELDS[kind]} {source}", name)


def ready(model: Any, tokenizer: Any, kind: Kind, where: str, name: str = "") -> Loaded:
    """A model and its tokenizer as they are used here: padded on the right, with a token that the model knows.

    Raises ModelError, which begins with `where`, if a language model's texts cannot end.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    loaded = Loaded(model, tokenizer, name or where)
    if kind not in ("reward", "start") and not loaded.conventions.ends:
        raise ModelError(
            f"{where}: neither its tokenizer nor its config names an end-of-text token that it knows; "
            "set `eos_token` and save it again"
        )
    _settle_padding(loaded)
    return loaded


def warn_of_ends(loaded: Loaded) -> None:
    """A config that was left at its architecture's defaults may name an ordinary word as the end of a text."""
    for token in loaded.conventions.ends:
        text = loaded.tokenizer.decode([token], skip_special_tokens=True)
        if text.strip():
            logger.warning(
                "%s: ends a text at the token id %d, %r, which its tokenizer takes for text; if that is wrong, mend "
                "`eos_token_id` in its config.json and generation_config.json",
                loaded.name,
                token,
                text,
            )


def _settle_padding(loaded: Loaded) -> None:
    """Have the tokenizer pad with a token that the model knows, where it names another: it is saved with the model."""
    found, tokenizer = loaded.conventions, loaded.tokenizer
    if found.embeddings is not None and (tokenizer.pad_token_id or 0) >= found.embeddings:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(found.pad_id)


def check_folder(folder: Path, kind: Kind) -> None:
    """Raise ModelError naming the first part that a model folder lacks, before anything of it is loaded."""
    files = {file.name for file in folder.iterdir()}
    weights = sorted(name for name in files if name.endswith(".safetensors"))
    pickles = sorted(files.intersection(PICKLES))
    if "adapter_config.json" in files:
        raise ModelError(
            f"{FIELDS[kind]} {folder}: is an adapter (LoRA or the like), which base.model alone takes; merge it into "
            "its base once, with peft's `merge_and_unload`, and give the folder that `save_pretrained` wrote then"
        )
    if "MLmodel" in files:
        raise ModelError(
            f"{FIELDS[kind]} {folder}: is a model as MLflow keeps it; give its address, models:/name@alias, instead"
        )
    if "config.json" not in files:
        raise ModelError(f"{FIELDS[kind]} {folder}: no config.json; give a folder that `save_pretrained` wrote")
    if not weights and pickles:
        raise ModelError(
            f"{FIELDS[kind]} {folder}: {pickles[0]} is a pickle, which can run code when it is loaded; "
            "convert it once where you trust it, with `save_pretrained`, which writes safetensors"
        )
    if not weights:
        raise ModelError(f"{FIELDS[kind]} {folder}: no weights; expected model.safetensors beside config.json")
    if not files.intersection(TOKENIZER_FILES):
        raise ModelError(f"{FIELDS[kind]} {folder}: no tokenizer; save it there with `tokenizer.save_pretrained`")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{FIELDS[kind]} {folder}: config.json is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ModelError(f"{FIELDS[kind]} {folder}: config.json holds a {type(config).__name__}, expected an object")
