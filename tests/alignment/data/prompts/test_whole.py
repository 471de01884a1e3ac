"""Whole texts as prompts: begun as the model begins a text, and what becomes of long ones."""

from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.data.prompts.source import Prompts, Rows
from alignment.data.prompts.whole import column, longest_prompt

TEXTS = [f"prompt {number}" for number in range(12)]


def config(**changes: Any) -> AlignConfig:
    prompts = {"source": "column", "eval_count": 2, "min_eval": 2, "max_tokens": 0} | changes.pop("prompts", {})
    return build_config({"prompts": prompts, "sampling": {"total_tokens": 60} | changes})


@pytest.fixture(scope="module")
def made(tiny_gpt2: Any) -> Any:
    """`made(texts, **prompts)` by a tokenizer of one token a byte that begins every text with BOS."""
    from tokenizers.processors import TemplateProcessing

    from alignment.models import Loaded
    from tests.alignment import chats

    names = chats.tokenizer("mistral")
    bos = names.bos_token_id
    names.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    base = Loaded(chats.model("mistral"), names)

    def made(texts: list[str], **prompts: Any) -> Prompts:
        rows = Rows(lambda: [{"text": text, "label": -1, "columns": '{"answer": 1}'} for text in texts])
        return column(rows, base, config(prompts=prompts), set())

    made.base = base  # type: ignore[attr-defined]
    return made


def test_a_prompt_is_its_whole_text_behind_bos(made: Any) -> None:
    found = made(TEXTS)
    texts = {made.base.tokenizer.decode(cut.ids) for cut in (*found.train, *found.held_out)}
    assert texts <= {f"<s>{text}" for text in TEXTS}
    assert len(texts) == len(found.train) + len(found.held_out)
    assert {cut.columns for cut in found.train} == {'{"answer": 1}'}


@pytest.mark.parametrize(
    ("too_long", "kept"), [("drop", None), ("keep_end", "<s>" + "b" * 9), ("keep_start", "<s>" + "a" * 9)]
)
def test_a_long_one_is_dropped_or_cut_behind_its_bos(made: Any, too_long: str, kept: str | None) -> None:
    found = made([*TEXTS, "a" * 30 + "b" * 30], max_tokens=10, too_long=too_long, count=20, eval_count=20)
    cuts = [made.base.tokenizer.decode(cut.ids) for cut in (*found.train, *found.held_out)]
    long = [text for text in cuts if "aaa" in text or "bbb" in text]
    assert long == ([kept] if kept else [])
    assert found.counts.get("too_long", 0) == (kept is None)


@pytest.mark.parametrize(
    ("prompts", "sampling", "longest"),
    [
        ({"max_tokens": 17}, {}, 17),
        ({}, {"total_tokens": 60}, 30),
        ({}, {"total_tokens": 60, "new_tokens_min": 20, "new_tokens_max": 20}, 40),
        ({"source": "first_tokens", "tokens_max": 9}, {}, 9),
        ({"source": "empty"}, {}, 1),
    ],
)
def test_the_longest_prompt_leaves_room_for_a_completion(
    prompts: dict[str, Any], sampling: dict[str, Any], longest: int
) -> None:
    assert longest_prompt(config(prompts=prompts, **sampling)) == longest
