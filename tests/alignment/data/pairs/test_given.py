"""Given pairs in token ids: those of TRL's DPOTrainer for the same rows, in each of its formats."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config import build_config
from alignment.data.pairs.given import Tokenised
from alignment.data.preferences import FaultyRowError, preference
from alignment.errors import ModelError
from tests.alignment.preference_rows import CHATML, FORMATS, content, row_of, with_chatml

STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
ROWS = 1_000


@pytest.fixture(scope="module")
def base(tiny_gpt2: Any, tiny_tokenizer: Any) -> Any:
    """A random GPT-2 that sees 256 tokens, whose tokenizer knows ChatML and ends texts by another token than chats."""
    from alignment.models import Loaded

    tokenizer = with_chatml(tiny_tokenizer)
    return Loaded(tiny_gpt2(vocab_size=len(tokenizer), width=8, context=256), tokenizer)


def tokenised(base: Any, **prompts: Any) -> Tokenised:
    fields = {"source": "pairs", "max_tokens": 128, **prompts}
    config = build_config(
        {
            "data": {"path": "pairs.jsonl"},
            "base": {"model": "any"},
            "prompts": fields,
            "pairs": {"source": "given"},
            "sampling": {"total_tokens": 256},
            "reward": {"model": "any"},
        }
    )
    return Tokenised(base, config)


def of_trl(rows: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, list[int]]]:
    from datasets import Dataset
    from trl import DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    made = DPOTrainer._prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, args, "train")
    found: list[dict[str, list[int]]] = made.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]).to_list()
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_a_thousand_rows_of_each_format_have_the_token_ids_of_trl(base: Any, format: str) -> None:
    rows = [row_of(number, format) for number in range(ROWS)]
    made = tokenised(base)
    found = [made.ids(preference(row)) for row in rows]
    expected = of_trl(rows, base.tokenizer)
    assert [
        {"prompt_ids": ids.prompt, "chosen_ids": ids.chosen, "rejected_ids": ids.rejected} for ids in found
    ] == expected


@pytest.mark.parametrize("kind", ["standard", "conversational"])
def test_the_formats_of_one_kind_give_the_same_pairs(base: Any, kind: str) -> None:
    made = tokenised(base)
    explicit, implicit = (
        [made.pair(json.dumps(row_of(number, f"{kind} {format}")), number) for number in range(ROWS)]
        for format in ("explicit", "implicit")
    )
    assert explicit == implicit
    assert len({pair["prompt_id"] for pair in explicit}) == ROWS
    for number, pair in enumerate(explicit):
        prompt, chosen, rejected = content(number)
        assert pair["chosen"].endswith(f"{prompt}{chosen}" if kind == "standard" else chosen)
        assert pair["rejected"] == f"{pair['prompt']}{rejected}"
        assert (pair["gap"], pair["fault"], pair["chosen_tokens"]) == (None, "", len(pair["chosen_ids"]))


def test_a_text_ends_with_the_end_token_once_and_a_chat_as_its_template_ends_it(base: Any) -> None:
    made = tokenised(base)
    end = base.tokenizer.eos_token_id
    plain = made.ids(preference({"prompt": "fine?", "chosen": " yes", "rejected": f" no{base.tokenizer.eos_token}"}))
    assert (plain.chosen.count(end), plain.chosen[-1]) == (1, end)
    assert (plain.rejected.count(end), plain.rejected[-1]) == (1, end)
    chat = made.ids(preference(row_of(0, "conversational explicit")))
    assert base.tokenizer.decode(chat.chosen).endswith("fine<|im_end|>\n")
    assert end not in chat.chosen


def test_a_token_may_span_prompt_and_completion(base: Any) -> None:
    """ " film" is one token: the prompt "a fil" ends before it, as in TRL."""
    row = {"prompt": "a fi", "chosen": "lm", "rejected": "ne"}
    (expected,) = of_trl([row], base.tokenizer)
    found = tokenised(base).ids(preference(row))
    assert {"prompt_ids": found.prompt, "chosen_ids": found.chosen, "rejected_ids": found.rejected} == expected
    assert len(found.prompt) < len(base.encode(["a fi"])[0])


def test_the_system_prompt_of_the_configuration_stands_before_chats_that_bring_none(base: Any) -> None:
    row = row_of(3, "conversational explicit")
    found = tokenised(base, system="Be kind.").ids(preference(row))
    told = {**row, "prompt": [{"role": "system", "content": "Be kind."}, *row["prompt"]]}
    (expected,) = of_trl([told], base.tokenizer)
    assert found.prompt == expected["prompt_ids"]


def test_the_id_of_a_pairs_prompt_is_that_of_the_prompt_that_is_sampled_to(base: Any) -> None:
    """Also where a long prompt is cut for sampling: the pair is trained on whole."""
    row = row_of(2, "standard explicit")
    made = tokenised(base, max_tokens=4, too_long="keep_end")
    pair = made.pair(json.dumps(row), 0)
    candidate = made.prompts.of_row(json.dumps(row))
    assert not isinstance(candidate, str)
    assert len(candidate.ids) == 4 < len(pair["prompt_ids"])
    from alignment.data.prompts.ids import hash_ids

    assert pair["prompt_id"] == hash_ids(candidate.ids)


LONG = {"prompt": "fine?", "chosen": " very" * 300, "rejected": " no"}


@pytest.mark.parametrize(
    ("row", "fault", "told"),
    [
        (LONG, "too_long", "tokens, and the model sees 256"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "no_prompt_token", "has no token of its own"),
        (
            {
                "prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
                "chosen": [{"role": "assistant", "content": "a"}],
                "rejected": [{"role": "assistant", "content": "b"}],
            },
            "template_failed",
            "no system role",
        ),
    ],
)
def test_what_the_model_cannot_take_is_a_fault_of_the_row(
    base: Any, row: Any, fault: str, told: str, tmp_path: Any
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(STRICT)
    made = tokenised(base, chat_template=str(template))
    with pytest.raises(FaultyRowError, match=told) as raised:
        made.ids(preference(row))
    assert raised.value.name == fault
    pair = made.pair(json.dumps(row), 7)
    assert (pair["pair_id"], pair["fault"], pair["prompt_ids"], pair["gap"]) == ("row-7", fault, [], None)


def test_chats_need_a_template(tiny_gpt2: Any, tiny_tokenizer: Any) -> None:
    from alignment.models import Loaded

    plain = Loaded(tiny_gpt2(vocab_size=len(tiny_tokenizer), width=8, context=256), tiny_tokenizer, "base.model tiny")
    with pytest.raises(ModelError, match=r"base\.model tiny: its tokenizer has no chat template"):
        tokenised(plain).ids(preference(row_of(0, "conversational explicit")))
    assert tokenised(plain).ids(preference(row_of(0, "standard explicit"))).prompt
