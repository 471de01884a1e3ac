"""A GGUF file of a small random Llama, for tests that import one."""

import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HEADS, KEYS, WIDTH, CONTEXT = 4, 2, 32, 48
USER, END, STOP = "<|user|>", "<|end|>", "<|stop|>"
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>\n{% endfor %}"
NORMAL, CONTROL = 1, 3


@dataclass
class File:
    """A GGUF file of a small random Llama, as llama.cpp's converter writes one."""

    path: Path
    model: Any
    tokenizer: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    template: str = TEMPLATE
    architecture: str = "llama"
    lacks: str = "nothing"
    quantised: bool = False

    def write(self) -> Path:
        config = self.model.config
        writer = gguf.GGUFWriter(self.path, self.architecture)
        writer.add_name("small")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEYS)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_vocab_size(config.vocab_size)
        self._write_tokenizer(writer)
        for name, value in self.metadata.items():
            {bool: writer.add_bool, int: writer.add_uint32}[type(value)](name, value)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
        for name, tensor in self.model.state_dict().items():
            stem, _, suffix = name.rpartition(".")
            if name == "lm_head.weight" or stem.endswith(self.lacks):
                continue
            values = tensor.numpy()
            if stem.endswith(("q_proj", "k_proj")):
                values = self._interleaved(values, HEADS if stem.endswith("q_proj") else KEYS)
            if self.quantised and values.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return self.path

    @staticmethod
    def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
        """The two halves of each head's rotation, one beside the other, as llama.cpp rotates them."""
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))

    def _write_tokenizer(self, writer: Any) -> None:
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        special = {token["content"] for token in state["added_tokens"]}
        tokens = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([token for token, _ in tokens])
        writer.add_token_types([CONTROL if token in special else NORMAL for token, _ in tokens])
        writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(self.tokenizer.convert_tokens_to_ids(STOP))
        if self.template:
            writer.add_chat_template(self.template)


def small_file(path: Path, tokenizer: Any) -> File:
    """A file to be written to `path`, with a chat template; `tokenizer` lends its vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [USER, END, STOP]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=HEADS,
                num_key_value_heads=KEYS,
                max_position_embeddings=CONTEXT,
                initializer_range=0.2,
                tie_word_embeddings=True,
            )
        )
    return File(path, model.eval(), tokenizer)
