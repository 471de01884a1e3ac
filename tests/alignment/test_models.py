"""Model folders: what is refused before anything is loaded, and what comes back as it was saved."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils.import_utils import is_env_variable_true

from alignment import models
from alignment.device import is_exact
from alignment.errors import InputError, ModelError
from alignment.models import Loaded, check_folder, require_context
from alignment.rewards.classifier import positive_class, score_texts


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.fixture
def spoilt(base_folder: Path, reward_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """`spoilt(kind, change)`: a copy of the base or the reward folder that `change` has been at."""

    def build(kind: str, change: Callable[[Path], object]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(base_folder if kind == "base" else reward_folder, folder)
        change(folder)
        return folder

    return build


def without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def holding(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


# What a folder lacks

LACKING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (without("config.json"), "no config.json; give a folder that `save_pretrained` wrote"),
    "no weights": (without("model.safetensors"), "no weights; expected model.safetensors beside config.json"),
    "pickle only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "pytorch_model.bin is a pickle, which can run code when it is loaded; "
        "convert it once where you trust it, with `save_pretrained`, which writes safetensors",
    ),
    "no tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        "no tokenizer; save it there with `tokenizer.save_pretrained`",
    ),
    "broken config": (
        holding("config.json", "{"),
        "config.json is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
    ),
    "a list for a config": (holding("config.json", "[]"), "config.json holds a list, expected an object"),
    "an adapter": (
        holding("adapter_config.json", "{}"),
        "is an adapter (LoRA or the like), which base.model alone takes; merge it into its base once, with peft's "
        "`merge_and_unload`, and give the folder that `save_pretrained` wrote then",
    ),
    "MLflow's folder": (
        holding("MLmodel", ""),
        "is a model as MLflow keeps it; give its address, models:/name@alias, instead",
    ),
    "nothing": (
        empty,
        "no config.json; give a folder that `save_pretrained` wrote",
    ),
}


@pytest.mark.parametrize("kind", ["base", "reward"])
@pytest.mark.parametrize(("change", "message"), LACKING.values(), ids=LACKING)
def test_a_folder_is_refused_for_the_first_part_it_lacks(spoilt, kind, change, message):
    folder = spoilt(kind, change)
    load = models.load_base if kind == "base" else models.load_reward
    assert refusal(lambda: check_folder(folder, kind)) == f"{kind}.model {folder}: {message}"
    assert refusal(lambda: load(folder)) == f"{kind}.model {folder}: {message}"


def test_a_whole_folder_is_not_refused(base_folder, reward_folder):
    check_folder(base_folder, "base")
    check_folder(reward_folder, "reward")


def test_a_pickle_beside_safetensors_is_left_alone(spoilt):
    folder = spoilt("base", holding("pytorch_model.bin", "never read"))
    models.load_base(folder)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500]),
        "Error while deserializing header: invalid header length",
    ),
    "empty": (holding("model.safetensors", ""), "Error while deserializing header: header too small"),
    "another shape": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"n_embd": 8', '"n_embd": 16')
        ),
        "You set `ignore_mismatched_sizes` to `False`",
    ),
    "no architecture": (holding("config.json", "{}"), "Unrecognized model in"),
    "a broken tokenizer": (holding("tokenizer.json", "{"), "Expecting property name enclosed in double quotes"),
}


@pytest.mark.parametrize(("change", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_folder_that_cannot_be_loaded_is_one_line_with_the_librarys_reason(spoilt, change, reason):
    folder = spoilt("base", change)
    message = refusal(lambda: models.load_base(folder))
    assert message.startswith(f"base.model {folder}: cannot be loaded ({reason}")
    assert message.endswith("); give a hub name with safetensors weights, or a folder that `save_pretrained` wrote")


def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path):
    for source in (tmp_path / "none", "./none", "~/none", "examples/chat/none"):
        assert refusal(partial(models.load_base, source)) == (
            f"base.model {source}: no such folder; give a folder that `save_pretrained` wrote"
        )


def test_a_hub_repository_of_pickles_is_neither_loaded_nor_sent_to_a_converter(monkeypatch):
    class Factory:
        @staticmethod
        def from_pretrained(source: str, **_: object) -> object:
            assert is_env_variable_true("DISABLE_SAFETENSORS_CONVERSION")
            raise OSError(
                f"{source} does not appear to have a file named model.safetensors or model.safetensors.index.json "
                "and thus cannot be loaded with `safetensors`. Please do not set `use_safetensors=True`."
            )

    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: None)
    message = refusal(lambda: models._load("some/pickles", Factory, "base", "main", ("fp32", ""), ""))
    assert message.startswith("base.model some/pickles: cannot be loaded (some/pickles does not appear to have a file")
    assert message.endswith(
        "; convert it once where you trust it, with `save_pretrained`, or name a revision that has safetensors"
    )


# What does not fit the request


def test_a_language_model_is_no_reward_model(base_folder):
    """The library would fill its missing head with random numbers, and every score would be noise."""
    assert refusal(lambda: models.load_reward(base_folder)) == (
        f"reward.model {base_folder}: its weights lack score.weight, which would be random; "
        "give a sequence classifier that was saved whole"
    )


def test_a_classifier_is_no_base_model(reward_folder):
    assert refusal(lambda: models.load_base(reward_folder)) == (
        f"base.model {reward_folder}: is a model of the type distilbert, of which transformers has no causal language "
        "model; give a decoder-only language model"
    )


def test_weights_of_which_a_part_is_missing_are_refused(spoilt):
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["transformer.wpe.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    folder = spoilt("base", change)
    assert refusal(lambda: models.load_base(folder)) == (
        f"base.model {folder}: its weights lack transformer.wpe.weight, which would be random; "
        "give a causal language model that was saved whole"
    )


def test_a_base_model_has_to_know_where_a_text_ends(spoilt):
    def change(folder: Path) -> None:
        for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
            values = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(values | {"eos_token": None, "eos_token_id": None}))

    folder = spoilt("base", change)
    assert refusal(lambda: models.load_base(folder)) == (
        f"base.model {folder}: neither its tokenizer nor its config names an end-of-text token that it knows; "
        "set `eos_token` and save it again"
    )


def test_a_longer_context_than_the_models_is_refused(base):
    require_context(base, 16, "sampling.total_tokens")
    assert refusal(lambda: require_context(base, 17, "sampling.total_tokens")) == (
        "sampling.total_tokens = 17 exceeds the context of 16 tokens that the model has; ask for at most 16, "
        "or take a model with a longer context"
    )


def test_every_refusal_is_the_users_to_mend():
    assert issubclass(ModelError, InputError)


# What comes back

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def test_a_base_model_comes_back_with_the_same_logits_and_tokens(base, base_folder):
    found = models.load_base(base_folder)
    with torch.inference_mode():
        assert torch.equal(found.model(IDS).logits, base.model(IDS).logits)
    assert found.tokenizer("a fine film")["input_ids"] == base.tokenizer("a fine film")["input_ids"]
    assert not found.model.training


def test_a_reward_model_comes_back_with_the_same_logits_and_classes(reward, reward_folder):
    found = models.load_reward(reward_folder)
    with torch.inference_mode():
        assert torch.equal(found.model(IDS).logits, reward.model(IDS).logits)
    assert positive_class(found.model.config, "auto") == 1


def test_half_precision_is_that_of_the_weights(base_folder):
    assert models.load_base(base_folder, precision="bf16").model.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_copy_stays_in_the_precision_that_it_came_in(base_folder, tmp_path, kind):
    """And is the same model, loaded in fp32."""
    given = models.load_base(base_folder)
    given.model.to(kind)
    models.save(given, tmp_path / "given")
    models.copy(str(tmp_path / "given"), tmp_path / "copy", "base", "main")
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {kind}
    one, two = (models.load_base(tmp_path / name).model(IDS).logits for name in ("given", "copy"))
    assert torch.equal(one, two)


def test_tf32_has_weights_of_fp32_and_on_a_cpu_is_fp32(base_folder):
    model = models.load_base(base_folder, precision="tf32").model
    assert model.dtype == torch.float32
    assert is_exact(model)


@pytest.mark.gpu
def test_tf32_rounds_on_a_gpu(base_folder):
    ids = torch.arange(8, device="cuda")[None]
    exact, rounded = (models.load_base(base_folder, precision=precision).model for precision in ("fp32", "tf32"))
    assert (is_exact(exact), is_exact(rounded)) == (True, False)
    with torch.inference_mode():
        found, expected = rounded(input_ids=ids).logits, exact(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert models.load_base(base_folder).model.dtype == torch.float32


def test_what_is_saved_is_safetensors_and_json_that_everyone_may_read(base_folder):
    files = {file.name: file.stat().st_mode & 0o777 for file in base_folder.iterdir()}
    assert {Path(name).suffix for name in files} == {".safetensors", ".json"}
    assert set(files.values()) == {0o644}


def test_a_folder_within_a_model_can_be_entered_by_everyone(base, tmp_path):
    """Tokenizers with several chat templates write one."""
    (tmp_path / "additional_chat_templates").mkdir(mode=0o700)
    (tmp_path / "additional_chat_templates" / "tools.jinja").touch(mode=0o600)
    models.save(base, tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert (modes["additional_chat_templates"], modes["tools.jinja"]) == (0o755, 0o644)


@pytest.mark.parametrize("kind", ["base", "reward"])
def test_a_local_model_is_copied_whole(kind, base_folder, reward_folder, tmp_path):
    source = base_folder if kind == "base" else reward_folder
    models.copy(str(source), tmp_path / "copy", kind, "main")
    check_folder(tmp_path / "copy", kind)
    one, two = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "copy"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_classifier_on_a_causal_model_without_a_padding_token_scores_batches(tiny_tokenizer, tmp_path):
    """Without one it refuses more than one text at a time."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    size = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "num_labels": 1}
    config = GPT2Config(vocab_size=len(tiny_tokenizer), bos_token_id=0, eos_token_id=0, **size)
    assert config.pad_token_id is None
    models.save(Loaded(GPT2ForSequenceClassification(config), tiny_tokenizer), tmp_path / "scalar")
    loaded = models.load_reward(tmp_path / "scalar")
    assert positive_class(loaded.model.config, "auto") == 0
    together = score_texts(loaded, ["a fine film", "dull"], column=0)
    alone = score_texts(loaded, ["a fine film", "dull"], column=0, batch_tokens=1)
    assert together == pytest.approx(alone, abs=1e-6)


# The tokenizer of the models that are trained here


def test_the_tokenizer_has_one_special_token_and_loses_no_byte(tiny_tokenizer):
    assert tiny_tokenizer.all_special_ids == [0]
    assert tiny_tokenizer.convert_ids_to_tokens(0) == "<|endoftext|>"
    for text in ("a fine film", "  two  spaces ", "naïve 猫 🎬\n\t", "\x00\x7f", "a . b , c 's"):
        ids = tiny_tokenizer(text)["input_ids"]
        assert tiny_tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert 0 not in ids


def test_the_tokenizer_comes_back_as_it_was_saved(tiny_tokenizer, base_folder):
    found = models.load_base(base_folder).tokenizer
    assert found.get_vocab() == tiny_tokenizer.get_vocab()
    assert (found.eos_token_id, found.bos_token_id, found.pad_token_id) == (0, 0, 0)
    assert found.model_max_length == 64
