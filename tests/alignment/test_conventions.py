"""How a text begins, ends, is padded and how long it may be: what tokenizer, config and weights say together."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignment import models
from alignment.conventions import affixes, context_length, end_ids
from alignment.errors import ModelError
from alignment.models import Loaded
from tests.alignment.architectures import BOS, EOS, PAD, TURN, VOCABULARY, Spelling, build, tokenizer


def loaded(kind: str = "llama", spelling: Spelling = Spelling(), **changes: Any) -> Loaded:  # noqa: B008 - frozen
    return Loaded(build(kind, **changes), tokenizer(spelling), "base.model x")


# The beginning


@pytest.mark.parametrize(
    ("spelling", "before", "after"),
    [
        (Spelling(), (), ()),
        (Spelling(begins=True), (BOS,), ()),
        (Spelling(ends=True), (), (EOS,)),
        (Spelling(begins=True, ends=True), (BOS,), (EOS,)),
    ],
)
def test_the_post_processor_says_what_stands_around_a_text(spelling, before, after):
    assert affixes(tokenizer(spelling)) == (before, after)


def test_what_stands_around_no_text_decides_where_no_text_can_be_spelt(monkeypatch):
    monkeypatch.setattr("alignment.conventions._probes", lambda _: iter(()))
    assert affixes(tokenizer(Spelling(begins=True, ends=True))) == ((BOS,), (EOS,))


def test_a_text_is_begun_as_the_tokenizer_begins_it_and_not_ended():
    both = loaded(spelling=Spelling(begins=True, ends=True))
    assert both.encode(["AB", ""]) == [[BOS, 4, 5], [BOS]]
    assert loaded(spelling=Spelling(ends=True)).encode(["AB", ""]) == [[4, 5], []]


@pytest.mark.parametrize(
    ("spelling", "opening"),
    [(Spelling(begins=True), (BOS,)), (Spelling(), (BOS,)), (Spelling(bos=False), (EOS,))],
    ids=["as every text begins", "BOS that no text begins with", "EOS where there is no BOS, as for GPT-2"],
)
def test_the_empty_prompt_is_what_stands_before_a_text(spelling, opening):
    assert loaded(spelling=spelling).conventions.opening == opening


@pytest.mark.parametrize(("letters", "unknown"), [("BCD", False), ("ACGTN", False), ("ABC", True)])
def test_a_vocabulary_that_lacks_the_letter_a_begins_its_texts_as_well(letters, unknown):
    """Proteins, DNA, other scripts: WordLevel without an unknown token raises where it cannot spell a text."""
    from tokenizers import Tokenizer, processors
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    made = Tokenizer(WordLevel(vocabulary, unk_token=letters[0]) if unknown else WordLevel(vocabulary))
    made.pre_tokenizer = Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    given = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    assert affixes(given) == ((1,), (2,))


# The end


def test_any_of_the_end_tokens_ends_a_text():
    model = build("llama", eos_token_id=[TURN, 7])
    model.generation_config.eos_token_id = [EOS, 9]
    assert end_ids(model, tokenizer(Spelling())) == (EOS, TURN, 7, 9)


def test_an_end_token_that_the_model_cannot_write_is_none():
    """GPT-2's own 50256 stays in the config of many a small model."""
    model = build("gpt2", eos_token_id=50_256)
    model.generation_config.eos_token_id = [-1, EOS]
    assert end_ids(model, tokenizer(Spelling())) == (EOS,)


# The padding


@pytest.mark.parametrize(
    ("config", "named", "expected"),
    [(9, True, 9), (None, True, PAD), (-1, True, PAD), (VOCABULARY, True, PAD), (None, False, EOS)],
    ids=["the config's", "else the tokenizer's", "-1 is none", "nor is one beyond the embeddings", "else EOS"],
)
def test_padding_is_the_configs_where_the_model_knows_it(config, named, expected):
    model = build("llama")
    model.config.pad_token_id = config
    assert Loaded(model, tokenizer(Spelling(pad=named))).pad_id == expected


def test_a_padding_token_without_embedding_is_replaced_in_the_tokenizer_too(tmp_path):
    """It is saved with the aligned model, whose users pad with it."""
    given = tokenizer(Spelling())
    given.add_special_tokens({"pad_token": "[PAD]"})
    assert given.pad_token_id == VOCABULARY
    models.save(Loaded(build("llama", pad_token_id=None), given), tmp_path)
    found = models.load_base(tmp_path)
    assert (found.pad_id, found.tokenizer.pad_token_id) == (EOS, EOS)


# The length


@pytest.mark.parametrize(
    ("kind", "task", "changes", "expected"),
    [
        ("gpt2", "CausalLM", {}, 64),
        ("llama", "CausalLM", {}, 64),
        ("mpt", "CausalLM", {}, 64),
        ("opt", "CausalLM", {}, 64),
        ("bloom", "CausalLM", {}, None),
        ("mamba", "CausalLM", {}, None),
        ("roberta", "SequenceClassification", {"pad_token_id": 1}, 62),
        ("roberta", "SequenceClassification", {"pad_token_id": 0}, 63),
        ("mpnet", "SequenceClassification", {}, 62),
        ("bert", "SequenceClassification", {}, 64),
        ("distilbert", "SequenceClassification", {}, 64),
    ],
)
def test_the_longest_text_is_the_configs_or_what_the_position_table_has_room_for(kind, task, changes, expected):
    found = Loaded(build(kind, task=task, **changes), tokenizer(Spelling()))
    assert found.conventions.longest == expected
    if expected is not None and found.conventions.first_position:
        with torch.inference_mode():
            found.model(input_ids=torch.full((1, expected), 5))
            with pytest.raises((IndexError, RuntimeError), match="out of"):
                found.model(input_ids=torch.full((1, expected + 1), 5))


@pytest.mark.parametrize("name", ["n_positions", "max_seq_len", "n_ctx", "seq_length", "max_sequence_length"])
def test_a_context_has_many_names(name):
    assert context_length(SimpleNamespace(**{name: 16})) == 16
    assert context_length(SimpleNamespace(**{name: -1})) is None


# The ids


def test_a_token_that_was_added_without_a_resize_is_refused_where_a_text_holds_it():
    given = loaded()
    given.tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    assert given.encode(["AB"]) == [[4, 5]]
    with pytest.raises(ModelError) as raised:
        given.encode(["AB", "A<tool>"])
    assert str(raised.value) == (
        "base.model x: a text holds the token id 64 ('<tool>'), and the model has embeddings for ids below 64; call "
        "`model.resize_token_embeddings(len(tokenizer))`, train and save it again, or take that token out of the texts"
    )


def test_a_text_that_would_begin_with_an_unknown_token_is_refused_on_load():
    given = tokenizer(Spelling(bos=False))
    given.add_special_tokens({"bos_token": "<begin>"})
    with pytest.raises(ModelError, match=r"^base\.model x: a text holds the token id 64 \('<begin>'\)"):
        _ = Loaded(build("llama"), given, "base.model x").conventions


# Back to text


def test_half_a_character_at_a_texts_end_is_left_out_where_the_length_cut_it(tiny_tokenizer, base):
    whole = tiny_tokenizer("fine 猫")["input_ids"]
    given = Loaded(base.model, tiny_tokenizer)
    assert given.decode([whole, whole[:-1], whole[:-2]], [False] * 3) == ["fine 猫", "fine ", "fine "]
    assert given.decode([whole[:-1]], [True]) == ["fine \ufffd"]


def test_half_a_character_within_a_text_stays_for_the_validation_to_find(tiny_tokenizer, base):
    half = [*tiny_tokenizer("猫")["input_ids"][:-1], *tiny_tokenizer(" fine")["input_ids"]]
    assert Loaded(base.model, tiny_tokenizer).decode([half], [False]) == ["\ufffd fine"]


def test_the_token_that_ends_a_text_is_none_of_it_whether_special_or_not(tiny_tokenizer, base):
    ids = tiny_tokenizer("a fine")["input_ids"]
    ends = tiny_tokenizer("!")["input_ids"]
    model = build("gpt2", vocab_size=len(tiny_tokenizer), eos_token_id=ends)
    given = Loaded(model, tiny_tokenizer)
    assert given.decode([[*ids, *ends], [*ids, *ends], [*ids, 0]], [True, False, True]) == [
        "a fine",
        "a fine!",
        "a fine",
    ]


def test_an_ordinary_word_that_ends_texts_is_warned_of(tiny_tokenizer, tmp_path, caplog):
    """LlamaConfig's own `eos_token_id` is 2, whatever the tokenizer has there."""
    word = tiny_tokenizer("!")["input_ids"]
    models.save(Loaded(build("llama", vocab_size=len(tiny_tokenizer), eos_token_id=word), tiny_tokenizer), tmp_path)
    models.copy(str(tmp_path), tmp_path / "copy", "base", "main")
    assert [record.getMessage().partition(", which")[0] for record in caplog.records] == [
        f"base.model {tmp_path}: ends a text at the token id {word[0]}, '!'"
    ]


# Use


def test_what_a_models_code_raises_names_the_model_and_the_stage():
    with (
        pytest.raises(ModelError) as raised,
        models.using("base.model x", "sampling"),
    ):
        raise IndexError("index out of range in self")
    assert str(raised.value) == (
        "base.model x: cannot be used for sampling (IndexError: index out of range in self); check that weights, "
        "config and tokenizer belong together, or take another model"
    )


def test_a_device_without_memory_is_told_as_such():
    with (
        pytest.raises(ModelError, match="not enough memory on the device for scoring; give it shorter texts"),
        models.using("reward.model x", "scoring"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_full_disk_is_not_the_models_fault():
    with pytest.raises(OSError, match="No space"), models.using("base.model x", "training"):
        raise OSError(28, "No space left on device")
