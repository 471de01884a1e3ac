"""Writes a model folder as a GGUF file for llama.cpp and Ollama: a few architectures, each file read back and compared.

The names of tensors and fields are those of llama.cpp's convert_hf_to_gguf.py, which knows many more architectures.
"""

import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from alignment.device import on_cpu
from alignment.errors import ConfigError, ModelError
from alignment.gguf import INSTALL, turn_end
from alignment.models import Loaded, load_base

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
"""What GGUF calls the architectures of transformers that are written here."""
WAY_OUT = "export the folder without --gguf, and run llama.cpp's convert_hf_to_gguf.py on it"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {WORDS % "{1,3}": "llama-bpe", WORDS % "": "qwen2"}
"""How llama.cpp calls the ways in which a tokenizer takes a text apart before it merges bytes."""
F16 = 1  # llama.cpp's number for a file of fp16
PROBE = 24  # tokens that the file is compared on
TOLERANCE = 1e-3  # nats: both have the weights rounded to fp16


def export_gguf(folder: Path, file: Path) -> None:
    """Write the model of a `save_pretrained` folder to `file`: weights as fp16, norms and biases as fp32.

    The file is read again with transformers, and its log-probs are compared with the model's. Raises ConfigError where
    the package `gguf` is missing, ModelError where architecture, positions or tokenizer are none of those that are
    written here, or the file gives other numbers.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"--gguf: needs the package gguf, which is missing; {INSTALL} installs it")
    kind = str(_json(folder / "config.json").get("model_type", ""))
    if kind not in ARCHITECTURES:
        raise ModelError(f"--gguf: the architecture {kind} is none of {', '.join(ARCHITECTURES)}; {WAY_OUT}")
    with on_cpu():  # where the file is read again, too
        loaded = load_base(folder, kind="model", name=f"model {folder}")
    _require_plain(loaded.model.config)
    split = split_of(_json(folder / "tokenizer.json"))
    if not split:
        raise ModelError(f"--gguf: its tokenizer is no byte-level BPE that llama.cpp knows under a name; {WAY_OUT}")
    _round(loaded.model)
    _write(loaded, kind, split, folder, file)
    _compare(loaded, file)


def split_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of how a `tokenizer.json` takes a text apart; empty where it has none that is known here."""
    model, before = tokenizer.get("model") or {}, tokenizer.get("pre_tokenizer") or {}
    parts = before.get("pretokenizers", [before])
    kinds = [part.get("type") for part in parts]
    if model.get("type") != "BPE" or kinds[-1:] != ["ByteLevel"] or parts[-1].get("add_prefix_space"):
        return ""
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        return SPLITS.get((parts[0].get("pattern") or {}).get("Regex", ""), "")
    return ""


def _require_plain(config: Any) -> None:
    """Raise ModelError where positions or attention are told in a way that is not written here."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise ModelError(f"--gguf: its positions are scaled ({rope['rope_type']}), which is not written; {WAY_OUT}")
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
        raise ModelError(f"--gguf: its attention has a window of {window} tokens, which is not written; {WAY_OUT}")


def _round(model: Any) -> None:
    """Round the matrices to fp16, as the file has them, so that the two can be compared."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                if float(weight.abs().max()) > torch.finfo(torch.float16).max:
                    raise ModelError(f"--gguf: {name} has a weight beyond fp16's largest number; {WAY_OUT}")
                weight.copy_(weight.half().float())


def _write(loaded: Loaded, kind: str, split: str, folder: Path, file: Path) -> None:
    import gguf

    architecture = ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(str(file), architecture)
    config = loaded.model.config
    writer.add_type("model")
    writer.add_name(file.stem)
    writer.add_file_type(F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _describe(writer, config, kind)
    layers = int(config.num_hidden_layers)
    members = {name: member for member, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(members[architecture], layers)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for name, weight in loaded.model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ModelError(f"--gguf: GGUF has no name for its tensor {name}; {WAY_OUT}")
        array = _arranged(name, weight, kind, config).float().cpu().numpy()
        writer.add_tensor(new, array.astype("float16") if array.ndim > 1 else array)
    _tokens(writer, loaded, split, folder)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _describe(writer: Any, config: Any, kind: str) -> None:
    """Sizes, positions and norms."""
    heads = int(config.num_attention_heads)
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_head_count(heads)
    writer.add_vocab_size(int(config.vocab_size))
    if kind == "gpt2":
        writer.add_feed_forward_length(int(config.n_inner or 4 * config.hidden_size))
        writer.add_layer_norm_eps(float(config.layer_norm_epsilon))
        return
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10_000.0)))
    writer.add_key_length(width)
    writer.add_value_length(width)


def _arranged(name: str, weight: Any, kind: str, config: Any) -> Any:
    """A tensor as llama.cpp lays it out: GPT-2's transposed, and the rotary halves of Llama's heads side by side."""
    if kind == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        return weight.T.contiguous()
    part = name.split(".")[-2]
    if ARCHITECTURES[kind] == "llama" and part in {"q_proj", "k_proj"}:
        heads = int(config.num_attention_heads if part == "q_proj" else config.num_key_value_heads)
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape).contiguous()
    return weight


def _tokens(writer: Any, loaded: Loaded, split: str, folder: Path) -> None:
    """The vocabulary, the merges, the tokens that begin and end texts, and the chat template."""
    import gguf

    tokenizer = loaded.tokenizer
    known = {token: text for text, token in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    texts, types = [], []
    for token in range(int(loaded.model.config.vocab_size)):
        texts.append(known.get(token, f"[PAD{token}]"))
        if token not in known:
            types.append(gguf.TokenType.UNUSED)
        elif token in added:
            types.append(gguf.TokenType.CONTROL if added[token].special else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(texts)
    writer.add_token_types(types)
    with _quiet_gguf():
        gguf.SpecialVocab(folder, load_merges=True, special_token_types=()).add_to_gguf(writer)
    ends = loaded.conventions.ends
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
    writer.add_eos_token_id(int(end))
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(int(tokenizer.bos_token_id))
    writer.add_add_bos_token(bool(loaded.conventions.begins))
    turn = turn_end(tokenizer)
    others = [token for token in (turn, *ends) if token is not None and token != end]
    if others:
        writer.add_eot_token_id(int(others[0]))
    writer.add_pad_token_id(int(loaded.pad_id))


def _compare(loaded: Loaded, file: Path) -> None:
    """Raise ModelError where the file, as transformers reads it, is not the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    longest = min(PROBE, loaded.conventions.longest or PROBE, int(loaded.model.config.vocab_size))
    ids = torch.arange(longest)[None] * 7 % int(loaded.model.config.vocab_size)
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / file.name).symlink_to(file.resolve())
        source: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(alone, **source)
            if config.model_type == "gpt2":
                config.n_positions = config.n_ctx  # which the reader leaves at its default
            with redirect_stderr(io.StringIO()):  # a bar that no setting switches off
                read = AutoModelForCausalLM.from_pretrained(alone, config=config, dtype=torch.float32, **source)
            read.eval()
        except Exception as error:  # a file that it cannot read raises anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ModelError(f"--gguf: the file cannot be read back ({reason}); {WAY_OUT}") from error
    with torch.inference_mode():
        ours, theirs = (
            model(place, attention_mask=torch.ones_like(place)).logits.float().cpu().log_softmax(-1)
            for model in (loaded.model, read)
            for place in [ids.to(next(model.parameters()).device)]
        )
    off = float((ours - theirs).abs().max())
    if not off <= TOLERANCE:
        raise ModelError(f"--gguf: read back, the file's log-probs differ by {off:.2g} nats; {WAY_OUT}")


@contextmanager
def _quiet_gguf() -> Iterator[None]:
    """Keep to itself what the package says of special tokens, which are set here."""
    logger = logging.getLogger("gguf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model {file.parent}: {file.name} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"model {file.parent}: {file.name} holds no object")
    return found
