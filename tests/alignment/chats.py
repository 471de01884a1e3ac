"""Four styles of chat template on a byte-level tokenizer that has their special tokens, and ten conversations."""

from typing import Any

SPECIAL = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin|>", "<|header|>", "<|/header|>", "<|turn_end|>", "<|end|>"),
    "gemma": ("<bos>", "<eos>", "<turn>", "</turn>"),
    "mistral": ("<s>", "</s>", "[INST]", "[/INST]"),
}
BEGINS = {"llama3": "<|begin|>", "gemma": "<bos>", "mistral": "<s>"}
ENDS = {"chatml": "<|im_end|>", "llama3": "<|turn_end|>", "gemma": "</turn>", "mistral": "</s>"}

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "<|begin|>{% for message in messages %}<|header|>{{ message.role }}<|/header|>\n\n"
        "{{ message.content | trim }}<|turn_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
    ),
    "gemma": (
        "<bos>{% for message in messages %}"
        "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "<turn>{{ 'model' if message.role == 'assistant' else message.role }}\n{{ message.content | trim }}</turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
    ),
    "mistral": (
        "<s>{% set ns = namespace(system='') %}{% for message in messages %}"
        "{% if message.role == 'system' %}{% set ns.system = message.content ~ '\n\n' %}"
        "{% elif message.role == 'user' %}[INST] {{ ns.system }}{{ message.content }}[/INST]{% set ns.system = '' %}"
        "{% else %} {{ message.content }}</s>{% endif %}{% endfor %}"
    ),
}
"""As the families write their turns, in the fewest words."""


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


CONVERSATIONS: list[list[dict[str, str]]] = [
    [user("Hi")],
    [user("What is a leap year?")],
    [user("Schreib ein Wort mit ß.")],
    [user("日本語で答えて")],
    [user("A list:\n- one\n- two")],
    [user("1 + 1?"), assistant("2"), user("And 2 + 2?")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("Say nothing 🙂")],
    [user("  blanks  around  ")],
    [user('tab\tand "quotes" {{ braces }}'), assistant("fine."), user("more")],
]


def tokenizer(style: str) -> Any:
    """A tokenizer of one token a byte and the special tokens of a style, with its chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL[style]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", *special, *alphabet]
    inner = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token=ENDS[style],
        bos_token=BEGINS.get(style),
        additional_special_tokens=[name for name in special if name not in (ENDS[style], BEGINS.get(style))],
    )
    found.chat_template = TEMPLATES[style]
    return found


def model(style: str, context: int = 512) -> Any:
    """A random Llama of a few thousand weights that ends its turns as the style does."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    names = tokenizer(style)
    config = LlamaConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=names.bos_token_id,
        eos_token_id=names.eos_token_id,
        pad_token_id=names.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()
