"""Loading and saving models in the ordinary `save_pretrained` layout: safetensors only, and never remote code."""

import ctypes
import json
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from alignment.errors import ModelError

Kind = Literal["base", "reward", "anchor"]
FIELDS: dict[Kind, str] = {"base": "base.model", "reward": "reward.model", "anchor": "evaluation.anchor"}
"""Where a configuration names the model of each kind; the anchor is a base model."""

PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt", "model.ckpt")
SMALL_MODEL = 1_000_000  # parameters
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model", "vocab.txt")


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device, and its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def bos_id(self) -> int:
        """The token that begins a text: BOS, or EOS where the tokenizer has none, as for GPT-2."""
        return int(self.eos_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id)

    @property
    def pad_id(self) -> int:
        """A token for padding; it is masked everywhere, so EOS serves where the tokenizer has none."""
        return int(self.eos_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id)


def device() -> Any:
    """The accelerator where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees for the next one, which takes the same again.

    It returns blocks of this size to the system otherwise: a tenth of the time of a small model's training.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the largest that it takes
        mallopt(M_TRIM_THRESHOLD, -1)


def place(model: Any) -> Any:
    """The model on its device, and as many CPU threads as its size is worth."""
    import torch

    # 60 training steps of 0.5M parameters: 12.8 s and 12.6 CPU seconds on one thread; 9.1 s and 14.2 on two that have
    # their cores to themselves, but 87 CPU seconds on two that share them: they spin between operations this short.
    threads = _threads_at_start()
    keep_freed_memory()
    torch.set_num_threads(1 if sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL else threads)
    return model.to(device())


@cache
def _threads_at_start() -> int:
    import torch

    return torch.get_num_threads()


def load_base(source: str | Path, *, revision: str = "main", precision: str = "fp32", kind: Kind = "base") -> Loaded:
    """A causal language model and its tokenizer. Raises ModelError where either is missing or unsafe."""
    from transformers import AutoModelForCausalLM

    return _load(source, AutoModelForCausalLM, kind, revision, precision)


def load_reward(source: str | Path, *, revision: str = "main") -> Loaded:
    """A sequence classifier and its tokenizer. Raises ModelError where either is missing or unsafe."""
    from transformers import AutoModelForSequenceClassification

    return _load(source, AutoModelForSequenceClassification, "reward", revision, "fp32")


def save(loaded: Loaded, folder: Path) -> None:
    """Write the ordinary layout, readable by whoever may read the folder."""
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def copy(source: str, folder: Path, kind: Kind, revision: str) -> None:
    """Bring a model from the hub or a local folder into `folder`, having loaded it once to know that it is whole."""
    if kind == "reward":
        save(load_reward(source, revision=revision), folder)
    else:
        save(load_base(source, revision=revision, kind=kind), folder)


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
    limit = context_length(loaded.model.config)
    if limit is not None and tokens > limit:
        raise ModelError(
            f"{field} = {tokens} exceeds the base model's context of {limit} tokens; ask for at most {limit}, "
            "or take a model with a longer context"
        )


def local_folder(source: str | Path, kind: Kind) -> Path | None:
    """The folder that `source` names, or None for a model on the hub.

    Raises ModelError where it can only be a folder, and there is none.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or str(source).startswith((".", "~")):
        raise ModelError(f"{FIELDS[kind]} {source}: no such folder; give a folder that `save_pretrained` wrote")
    return None


def context_length(config: Any) -> int | None:
    """The longest sequence in tokens that a model's config allows, or None where it names no limit."""
    for name in ("max_position_embeddings", "n_positions"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            return limit
    return None


def positive_class(config: Any, wanted: str) -> int:
    """The index of the logit that is the reward: a name, an index, or `auto`; a single output is a scalar head.

    Raises ModelError where the class is unknown, or `auto` cannot tell which one is positive.
    """
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if wanted == "auto":
        if len(names) == 1:
            return 0
        wanted = next((name for name in names.values() if name.upper() in {"POSITIVE", "POS"}), "")
        if not wanted and len(names) == 2 and set(names.values()) == {"LABEL_0", "LABEL_1"}:
            return 1
    found = [index for index, name in names.items() if wanted in {name, str(index)}]
    if not found:
        raise ModelError(
            f"reward.positive_class: the reward model's classes are {', '.join(names.values())}; "
            "set reward.positive_class to the one to reward"
        )
    return found[0]


def _load(source: str | Path, factory: Any, kind: Kind, revision: str, precision: str) -> Loaded:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    folder = local_folder(source, kind)
    if folder:
        check_folder(folder, kind)
    safe = {"trust_remote_code": False} | ({} if folder else {"revision": revision})
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "true"  # else a repository of pickles is sent to a converter outside
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), **safe)
        model, loading = factory.from_pretrained(
            str(source),
            use_safetensors=True,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            output_loading_info=True,
            **safe,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        way_out = "give a hub name with safetensors weights, or a folder that `save_pretrained` wrote"
        if not folder and "does not appear to have a file named model" in reason:
            way_out = (
                "convert it once where you trust it, with `save_pretrained`, or name a revision that has safetensors"
            )
        raise ModelError(f"{FIELDS[kind]} {source}: cannot be loaded ({reason[:240]}); {way_out}") from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{FIELDS[kind]} {source}: its weights lack {missing[0]}, which would be random; give a "
            f"{'sequence classifier' if kind == 'reward' else 'causal language model'} that was saved whole"
        )
    if kind != "reward" and tokenizer.eos_token_id is None:
        raise ModelError(
            f"{FIELDS[kind]} {source}: its tokenizer names no end-of-text token; set `eos_token` and save it again"
        )
    tokenizer.padding_side = "right"
    loaded = Loaded(place(model).eval(), tokenizer)
    if kind == "reward" and model.config.pad_token_id is None:
        model.config.pad_token_id = loaded.pad_id  # a classifier on a causal model looks for the last token before it
    return loaded


def check_folder(folder: Path, kind: Kind) -> None:
    """Raise ModelError naming the first part that a model folder lacks, before anything of it is loaded."""
    files = {file.name for file in folder.iterdir()}
    weights = sorted(name for name in files if name.endswith(".safetensors"))
    pickles = sorted(files.intersection(PICKLES))
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
