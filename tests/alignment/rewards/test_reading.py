"""What a classifier reads: the conversation as its own template writes it, the completion, or the whole text."""

from typing import Any

import pytest
import torch

from alignment.config import build_config
from alignment.errors import ConfigError, ModelError
from alignment.kinds import REWARDS
from alignment.logits import class_logits
from alignment.models import Loaded, save
from alignment.rewards.protocol import Scoring
from alignment.rewards.reading import read_samples
from tests.alignment.architectures import BOS, CONTEXT, EOS, Spelling, build, tokenizer

TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'][0] | upper }}{{ m['content'] }}<turn>{% endfor %}"
    "{% if add_generation_prompt %}A{% endif %}"
)
"""BOS, then for each message the first letter of its role, its content and an end of turn."""

CHAT: list[dict[str, Any]] = [{"role": "system", "content": "XY"}, {"role": "user", "content": "BC"}]


def sample(completion: str, messages: list[dict[str, Any]] = CHAT) -> dict[str, Any]:
    return {"prompt": "BC", "text": f"BC{completion}", "completion": completion, "messages": messages}


@pytest.fixture
def loaded() -> Loaded:
    """A decoder with a scalar head, whose tokenizer begins every text with BOS and has a chat template."""
    spelling = tokenizer(Spelling(begins=True))
    spelling.chat_template = TURNS
    return Loaded(build("llama", task="SequenceClassification", num_labels=1), spelling, "reward.model here")


# Conversations


def test_the_ids_are_those_of_apply_chat_template_with_the_answer_as_the_assistants_message(loaded: Loaded) -> None:
    samples = [sample("DEF"), sample("", [{"role": "user", "content": "G"}])]
    read = read_samples(loaded, samples, "auto")
    for found, each in zip(read.ids, samples, strict=True):
        messages = [*each["messages"], {"role": "assistant", "content": each["completion"]}]
        assert found == loaded.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert found.count(BOS) == 1  # the template writes it, so the tokenizer does not
        assert found != loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert (read.types, read.truncated) == (None, 0)


def test_the_scores_are_the_logits_of_a_plain_forward_pass_of_those_ids(loaded: Loaded) -> None:
    samples = [sample("DEF"), sample("ABCDEFAB"), sample("")]
    read = read_samples(loaded, samples, "chat")
    with torch.inference_mode():
        alone = [float(loaded.model(torch.tensor([ids])).logits[0, 0]) for ids in read.ids]
    found = class_logits(loaded, read.ids, types=read.types)
    assert found[:, 0] == pytest.approx(alone, abs=1e-5)


def test_a_conversation_that_is_too_long_keeps_its_end(loaded: Loaded) -> None:
    whole = sample("D" * CONTEXT)
    read = read_samples(loaded, [whole, sample("D")], "auto")
    messages = [*CHAT, {"role": "assistant", "content": whole["completion"]}]
    ids = loaded.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert read.ids[0] == ids[-CONTEXT:]
    assert read.truncated == 1


# What is read


@pytest.mark.parametrize(
    ("how", "text"), [("whole", "BCDE"), ("completion", "DE")], ids=["the whole text", "the completion"]
)
def test_a_text_is_read_as_the_tokenizer_begins_it(loaded: Loaded, how: str, text: str) -> None:
    assert read_samples(loaded, [sample("DE")], how).ids == [loaded.tokenizer(text)["input_ids"]]


def test_a_text_that_is_too_long_keeps_its_start(loaded: Loaded) -> None:
    read = read_samples(loaded, [sample("D" * CONTEXT)], "whole")
    assert read.ids == [loaded.tokenizer("BC" + "D" * CONTEXT)["input_ids"][:CONTEXT]]
    assert read.truncated == 1


def test_auto_reads_each_sample_by_what_its_prompt_is(loaded: Loaded) -> None:
    plain, chat = sample("DE", []), sample("DE")
    assert read_samples(loaded, [plain, chat, plain], "auto").ids == [
        *read_samples(loaded, [plain], "whole").ids,
        *read_samples(loaded, [chat], "chat").ids,
        *read_samples(loaded, [plain], "whole").ids,
    ]


def test_auto_reads_whole_texts_where_the_reward_model_has_no_template(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = None
    assert read_samples(loaded, [sample("DE")], "auto") == read_samples(loaded, [sample("DE")], "whole")


def test_no_samples_are_read_as_none(loaded: Loaded) -> None:
    assert read_samples(loaded, [], "auto").ids == []


# What is refused


def test_a_conversation_cannot_be_read_without_a_template_or_without_chats(loaded: Loaded) -> None:
    with pytest.raises(ConfigError, match=r"^reward.reads = chat: the prompts are no chats; set it to whole, or"):
        read_samples(loaded, [sample("DE", [])], "chat")
    loaded.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"the tokenizer of reward.model here has no chat template; set it to whole"):
        read_samples(loaded, [sample("DE")], "chat")


def test_a_template_that_fails_is_named_with_the_way_out(loaded: Loaded) -> None:
    loaded.tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ModelError, match=r"its chat template fails \(TemplateError: no system role\); leave"):
        read_samples(loaded, [sample("DE")], "auto")


# As a kind of reward


def test_the_classifier_reads_as_the_configuration_says(loaded: Loaded, tmp_path: Any) -> None:
    save(loaded, tmp_path / "model")
    samples = [sample("DE"), sample("FFF")]
    expected = {
        how: [float(class_logits(loaded, [ids])[0, 0]) for ids in read_samples(loaded, samples, how).ids]
        for how in ("chat", "whole", "completion")
    }
    for how in ("auto", *expected):
        kind = REWARDS.get("classifier")(build_config({"reward": {"reads": how}}))
        found = kind.score(samples, Scoring(tmp_path, tmp_path)).values
        assert found == pytest.approx(expected["chat" if how == "auto" else how], abs=1e-5)
    assert EOS not in read_samples(loaded, samples, "chat").ids[0]
