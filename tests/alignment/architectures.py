"""Tiny random models of many architectures, and tokenizers that differ in how a text begins, ends and is padded."""

from dataclasses import dataclass
from typing import Any

import torch

VOCABULARY = 64
BOS, EOS, TURN, PAD = 1, 2, 3, 0
CONTEXT = 64

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "dff", "hidden_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "context_length"), CONTEXT),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
    "dim": 32,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "sliding_window": 8,
    "rotary_dim": 8,
    "state_size": 8,
    "is_decoder": True,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
"""What configs call their sizes; each takes those that it knows."""

MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 4}
MULTI_LATENT = {
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    **{"n_routed_experts": 4, "first_k_dense_replace": 1, "num_key_value_heads": 2, "head_dim": 8},
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    **dict.fromkeys(("linear_num_value_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
}
OTHERS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], **MAMBA},
    "codegen": {"n_head": 4},
    "deepseek_v2": {**MULTI_LATENT, "topk_method": "greedy"},
    "deepseek_v3": {**MULTI_LATENT, "n_group": 2, "topk_group": 1},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_n_groups": 1},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
    "jamba": {
        **{"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
        **{"expert_layer_offset": 1, "mamba_d_state": 8, "mamba_expand": 2},
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
    "nemotron_h": {
        **{"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8},
        **{"ssm_state_size": 8, "n_groups": 1, "chunk_size": 4},
    },
    "olmo_hybrid": LINEAR,
    "qwen3_next": {**LINEAR, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": LINEAR,
    "recurrent_gemma": {
        **{"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
        **{"block_types": ["recurrent", "recurrent", "attention"]},
    },
    "rwkv": {"attention_hidden_size": 32},
    "xglm": {"attention_heads": 2},
    "zamba2": {
        **{"mamba_d_state": 8, "n_mamba_heads": 2, "mamba_ngroups": 1, "chunk_size": 4, "mamba_headdim": 32},
        **{"layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "hybrid_layer_ids": [1]},
        **{"attention_head_dim": 32, "attention_hidden_size": 64},
    },
}
"""What an architecture needs beside, to be as small."""


def build(kind: str, seed: int = 0, task: str = "CausalLM", **changes: Any) -> Any:
    """A model with random weights, large enough for predictions that are far from uniform, in evaluation mode."""
    import transformers

    known = transformers.AutoConfig.for_model(kind)
    names = known.attribute_map
    values = {name: value for name, value in SIZES.items() if name in vars(known) and name not in names}
    values |= {names[name]: value for name, value in SIZES.items() if name in names}
    config = transformers.AutoConfig.for_model(kind, **(values | OTHERS.get(kind, {}) | changes))
    config.pad_token_id = changes.get("pad_token_id", PAD)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(transformers, f"AutoModelFor{task}").from_config(config).float()
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and weight.std() < 0.1 and not name.endswith("A_log"):
                weight *= 5
    return model.eval()


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer treats a text: what it puts around it, and which special tokens it names."""

    begins: bool = False
    ends: bool = False
    bos: bool = True
    pad: bool = True
    side: str = "right"


def tokenizer(spelling: Spelling) -> Any:
    """A tokenizer of single characters: 64 ids, of which 0 to 3 are padding, BOS, EOS and an end of turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("A"), ord("A") + VOCABULARY - 4)]
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<turn>", *letters])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="A"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    single = f"{'<s> ' if spelling.begins else ''}$A{' </s>' if spelling.ends else ''}"
    if single != "$A":
        made.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    named = {"bos_token": "<s>" if spelling.bos else None, "pad_token": "<pad>" if spelling.pad else None}
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="</s>",
        padding_side=spelling.side,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in named.items() if token},
    )
