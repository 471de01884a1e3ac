"""The byte-level BPE tokenizer of the models that are trained here."""

from collections.abc import Sequence
from typing import Any

END_OF_TEXT = "<|endoftext|>"
ENOUGH_TEXTS = 4_000  # merges of a small vocabulary settle long before


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_length: int) -> Any:
    """A `PreTrainedTokenizerFast` with one special token, id 0: GPT-2's `<|endoftext|>` begins, ends and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:ENOUGH_TEXTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
