"""Models of random weights in the shapes of known ones, always the same, and the prompts, texts and pairs for them."""

import random
from typing import Any

import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PROMPT_TOKENS, NEW_TOKENS = 8, 56
SHORTEST = 16  # tokens of a completion

Ids = list[int]


def small() -> Any:
    """4 layers of 256, and a vocabulary of 8,000: 5M parameters."""
    return gpt2(4, 256, 4, 8_000)


def gpt2_small() -> Any:
    """GPT-2 small's shape: 124M parameters."""
    return gpt2(12, 768, 12, 50_257)


def smollm2_135m() -> Any:
    """SmolLM2-135M's shape: 30 layers of 576, nine heads of which three are keys and values."""
    return llama(30, 576, 1_536, 9, 3, 49_152)


def one_billion() -> Any:
    """TinyLlama's shape: 22 layers of 2,048, 1.1B parameters."""
    return llama(22, 2_048, 5_632, 32, 4, 32_000, tied=False)


def gpt2(layers: int, width: int, heads: int, vocabulary: int, positions: int = 128) -> Any:
    """A GPT-2 without dropout, whose last token id is padding; nothing ends a text."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=vocabulary - 1,
        eos_token_id=None,
        pad_token_id=vocabulary - 1,
    )
    return GPT2LMHeadModel(config).eval()


def llama(layers: int, width: int, inner: int, heads: int, groups: int, vocabulary: int, *, tied: bool = True) -> Any:
    """A Llama with grouped-query attention, whose last token id is padding; nothing ends a text."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=2_048,
        tie_word_embeddings=tied,
        bos_token_id=vocabulary - 1,
        eos_token_id=None,
        pad_token_id=vocabulary - 1,
    )
    return LlamaForCausalLM(config).eval()


def distilbert(layers: int, width: int, heads: int, vocabulary: int, positions: int = 512) -> Any:
    """A DistilBERT classifier of two classes; token 0 is padding."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        dim=width,
        hidden_dim=4 * width,
        n_layers=layers,
        n_heads=heads,
        num_labels=2,
        pad_token_id=0,
    )
    return DistilBertForSequenceClassification(config).eval()


def tokenizer(vocabulary: int, longest: int = 512, *, begins: bool = False) -> Any:
    """One token for each of the words w0, w1, ...; the last id is padding and EOS.

    Where it `begins` texts, as BERT's does, the first three ids are padding, and what begins and ends a text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[CLS]", "[SEP]"] if begins else []
    names = [*special, *(f"w{number}" for number in range(vocabulary - len(special) - (not begins)))]
    names += [] if begins else ["<eos>"]
    found = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="w0"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins:
        pairs = [(name, names.index(name)) for name in ("[CLS]", "[SEP]")]
        found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pairs)
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        model_max_length=longest,
        unk_token="w0",
        pad_token="[PAD]" if begins else "<eos>",
        eos_token=None if begins else "<eos>",
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right" if begins else "left",
        clean_up_tokenization_spaces=False,
    )


def texts(vocabulary: int, count: int, shortest: int, longest: int) -> list[str]:
    """Texts of `shortest` to `longest` tokens with what begins and ends them, evenly spread."""
    draws = random.Random(0)
    return [
        " ".join(f"w{draws.randrange(vocabulary - 3)}" for _ in range(draws.randint(shortest, longest) - 2))
        for _ in range(count)
    ]


def prompts(vocabulary: int, count: int) -> list[Ids]:
    """Prompts of random token ids."""
    draws = random.Random(0)
    return [ids(draws, vocabulary, PROMPT_TOKENS) for _ in range(count)]


def pairs(vocabulary: int, count: int, *, vary: bool, longest: int = NEW_TOKENS) -> list[dict[str, Any]]:
    """Pairs of random token ids, of SHORTEST to `longest` tokens or all of `longest`."""
    draws = random.Random(0)

    def completion() -> Ids:
        return ids(draws, vocabulary, draws.randint(SHORTEST, longest) if vary else longest)

    return [
        {
            "prompt_ids": ids(draws, vocabulary, PROMPT_TOKENS),
            "chosen_ids": completion(),
            "rejected_ids": completion(),
        }
        for _ in range(count)
    ]


def ids(draws: random.Random, vocabulary: int, count: int) -> Ids:
    """Token ids, none of them padding."""
    return [draws.randrange(1, vocabulary - 1) for _ in range(count)]
