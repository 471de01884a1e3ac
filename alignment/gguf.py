"""Imports a GGUF file, the format of llama.cpp and Ollama, as a folder in the `save_pretrained` layout.

Quantised weights are given back as fp32 numbers, so the folder is a model like every other. What the file itself says
of its texts is kept: the tokens that end a turn, whether a text begins with BOS, and the chat template.
"""

import importlib.util
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.conventions import affixes, end_ids
from alignment.device import on_cpu
from alignment.errors import ConfigError, InputError, ModelError
from alignment.models import load_base, save

logger = logging.getLogger(__name__)

MAGIC = b"GGUF"
SPLIT_COUNT = "split.count"
ENDS_OF_TURN = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
INSTALL = "uv pip install -e '.[gguf]'"
CONTENT = "plumbline"
"""What an assistant says where a chat template is asked how a turn ends."""


@dataclass(frozen=True)
class Imported:
    """What was written: parameters, bytes, the context in tokens, the tokens that end a text, and the chat template."""

    folder: Path
    architecture: str
    parameters: int
    size: int
    context: int | None
    ends: tuple[str, ...]
    chat: bool


def import_gguf(file: Path, folder: Path) -> Imported:
    """Write the model and the tokenizer of a GGUF file to `folder`, which must not exist, or be empty.

    It is written under another name beside it, loaded once as a base, and renamed then. Raises ConfigError where the
    package `gguf` is missing, and ModelError where the file or the folder cannot be used.
    """
    _require_file(file)
    _require_free(folder)
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"{file}: GGUF files are read with the package gguf, which is missing; {INSTALL} installs it")
    metadata = _metadata(file)
    with _writing(folder) as draft:
        _convert(file, draft, metadata)
        with on_cpu():
            loaded = load_base(draft, name=str(file))
        found = loaded.conventions
        written = Imported(
            folder=folder,
            architecture=str(metadata["general.architecture"]),
            parameters=int(loaded.model.num_parameters()),
            size=sum(path.stat().st_size for path in draft.iterdir()),
            context=found.longest,
            ends=tuple(loaded.tokenizer.convert_ids_to_tokens(list(found.ends))),
            chat=bool(loaded.tokenizer.chat_template),
        )
    return written


def turn_end(tokenizer: Any) -> int | None:
    """The special token with which the chat template ends what the assistant says, or None."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": CONTENT}, {"role": "assistant", "content": CONTENT}]
    try:
        _, _, after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(CONTENT)
    except Exception:  # noqa: BLE001 - a template is a program, and raises anything
        return None
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return int(ids[0]) if ids and ids[0] in special else None


def _require_file(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}; give a GGUF file") from error
    if start != MAGIC:
        raise ModelError(f"{file}: is not a GGUF file, which would begin with {MAGIC.decode()}; give one")


def _require_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name a folder that does not exist yet, or delete it first")


def _metadata(file: Path) -> dict[str, Any]:
    """What the file says of itself, but for its vocabulary. Raises ModelError where it cannot be read, or is a part."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(str(file)).fields
        found = {name: field.contents() for name, field in fields.items() if len(field.data) == 1}
    except Exception as error:  # a broken file makes its reader raise anything
        raise ModelError(f"{file}: cannot be read as GGUF ({_line(error)}); download it again") from error
    if int(found.get(SPLIT_COUNT, 1)) > 1:
        raise ModelError(
            f"{file}: is one of {found[SPLIT_COUNT]} parts; join them with llama.cpp's `llama-gguf-split --merge`"
        )
    if "general.architecture" not in found:
        raise ModelError(f"{file}: names no general.architecture; give the file of a language model")
    return found


def _convert(file: Path, folder: Path, metadata: dict[str, Any]) -> None:
    """Read with transformers, copy the weights into a model that was never quantised, and save both parts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignment.models import Loaded

    with tempfile.TemporaryDirectory() as alone:  # beside the file may lie a config of another model
        (Path(alone) / file.name).symlink_to(file.resolve())
        source: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **source)
            read, loading = AutoModelForCausalLM.from_pretrained(
                alone, dtype=torch.float32, output_loading_info=True, **source
            )
        except Exception as error:  # an architecture or a tokenizer that transformers does not read raises anything
            raise ModelError(
                f"{file}: its architecture {metadata['general.architecture']} cannot be imported ({_line(error)}); "
                "give the file of a decoder-only model that transformers reads from GGUF"
            ) from error
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"{file}: its weights lack {missing[0]}, which would be random; give a file that is whole")
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    _settle_beginning(tokenizer, metadata)
    _settle_ends(model, tokenizer, metadata)
    save(Loaded(model, tokenizer, str(file)), folder)


def _settle_beginning(tokenizer: Any, metadata: dict[str, Any]) -> None:
    """Begin texts with BOS, or with nothing, where the file says so and the tokenizer does otherwise."""
    from tokenizers.processors import TemplateProcessing

    wanted = metadata.get("tokenizer.ggml.add_bos_token")
    bos = tokenizer.bos_token_id
    if wanted is None or (wanted and bos is None) or bool(affixes(tokenizer)[0]) == bool(wanted):
        return
    special = [(tokenizer.bos_token, bos)] if wanted else []
    template = [token for token, _ in special] + ["$A"]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)


def _settle_ends(model: Any, tokenizer: Any, metadata: dict[str, Any]) -> None:
    """Name every token that ends a text or the assistant's turn in the generation config, and one to pad with."""
    from transformers import GenerationConfig

    named = [turn_end(tokenizer), *(metadata.get(name) for name in ENDS_OF_TURN), *end_ids(model, tokenizer)]
    ends = list(dict.fromkeys(int(token) for token in named if token is not None))
    if not ends:
        return  # loading it as a base says what is missing
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ends[0])
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A fresh folder beside `folder`, renamed to it once it is whole, or taken away."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:240] or type(error).__name__
