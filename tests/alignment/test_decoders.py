"""A base is a decoder-only language model: whatever else it is ends when it is loaded, with the name of its type."""

from typing import Any

import pytest
import transformers

from alignment.errors import InputError
from alignment.models import Loaded, load_base, save
from tests.alignment.architectures import Spelling, build, tokenizer


def refusal(folder):
    with pytest.raises(InputError) as raised:
        load_base(folder)
    assert raised.value.exit_code == 2
    message = str(raised.value).removeprefix(f"base.model {folder}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["distilbert", "albert", "deberta-v2", "vit", "clip", "wav2vec2", "esm"])
def test_a_type_without_a_causal_language_model_is_refused_before_its_weights_are_looked_for(kind, tmp_path):
    transformers.AutoConfig.for_model(kind).save_pretrained(tmp_path)
    assert refusal(tmp_path) == (
        f"is a model of the type {kind}, of which transformers has no causal language model; "
        "give a decoder-only language model"
    )


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("t5", "is a model of the type t5, of which transformers has no causal language model"),
        ("bart", "is an encoder-decoder (bart), and its encoder would be left out"),
        ("marian", "is an encoder-decoder (marian), and its encoder would be left out"),
        ("whisper", "is an encoder-decoder (whisper), and its encoder would be left out"),
    ],
)
def test_an_encoder_decoder_is_refused(kind, fault, tmp_path):
    transformers.AutoConfig.for_model(kind).save_pretrained(tmp_path)
    assert refusal(tmp_path) == f"{fault}; give a decoder-only language model"


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "xlnet", "xlm"])
def test_an_encoder_is_refused_as_it_looks_ahead(kind, tmp_path):
    changes: dict[str, Any] = {} if kind in {"xlnet", "xlm"} else {"is_decoder": False}
    save(Loaded(build(kind, eos_token_id=2, **changes), tokenizer(Spelling(begins=True))), tmp_path)
    found = refusal(tmp_path)
    assert found.startswith("looks ahead: what it predicts changes by ")
    cause = "; its config sets is_decoder to false" if changes else ""
    assert found.endswith(f"as an encoder's does ({kind}{cause}); give a decoder-only language model")


@pytest.mark.parametrize("kind", ["bert", "gpt_neox", "bart", "mixtral", "mamba2", "rwkv", "jamba", "recurrent_gemma"])
def test_a_decoder_is_loaded_whatever_it_is_made_of(kind, tmp_path):
    """The decoder of an encoder-decoder, saved by itself, is one."""
    save(Loaded(build(kind, eos_token_id=2), tokenizer(Spelling(begins=True))), tmp_path)
    assert load_base(tmp_path).model.config.model_type == kind
