"""What engines in other processes share: a completion from what came back, seeds, and who they are."""

from collections.abc import Callable
from typing import Any

import pytest

from alignment.errors import EndpointError
from alignment.models import Loaded
from alignment.sampling import outside
from alignment.sampling.engine import Completion, Request
from alignment.sampling.outside import Remembered, completion, seed
from alignment.sampling.stops import Stops

A, B, STOP, END = 1, 2, 3, 0


@pytest.fixture(scope="module")
def loaded(tiny_gpt2: Callable[..., Any]) -> Loaded:
    """A tokenizer of whole words that drops the space before the first one, as SentencePiece's do."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"</s>": END, "▁a": A, "▁b": B, "▁User:": STOP}
    tokenizer = Tokenizer(WordLevel(words, unk_token="</s>"))
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    return Loaded(tiny_gpt2(vocab_size=4), fast)


def made(loaded: Loaded, ids: list[int], stop: str = "", room: int = 6, reason: str = "") -> Completion:
    stops = Stops([stop], loaded.texts) if stop else None
    asked = Request([A, B], [0.5] * room)
    return completion(asked, ids, [-1.0] * len(ids), loaded=loaded, stops=stops, name="it", reason=reason)


@pytest.mark.parametrize(
    ("ids", "stop", "expected"),
    [
        ([A, B, A, B, A, B], "", Completion([A, B, A, B, A, B], False, -6.0, False)),
        ([A, END], "", Completion([A, END], True, -2.0, False)),
        ([A, END, B, B], "", Completion([A, END], True, -2.0, False)),  # what follows the end does not count
        ([A, STOP], "User:", Completion([A], True, -1.0, False)),
        ([STOP, A, END], "User:", Completion([], True, 0.0, False)),  # the stop text comes first
        ([A, B, END], "User:", Completion([A, B, END], True, -3.0, False)),
    ],
)
def test_a_completion_goes_to_its_end_token_or_before_its_stop_text(
    loaded: Loaded, ids: list[int], stop: str, expected: Completion
) -> None:
    assert made(loaded, ids, stop) == expected


def test_a_stop_text_that_is_one_behind_the_prompt_alone_is_found_there(loaded: Loaded) -> None:
    """The tokenizer drops the space before the first word, and the server goes on from the prompt."""
    assert loaded.texts([[STOP]]) == ["User:"]
    assert made(loaded, [STOP], " User:") == Completion([], True, 0.0, False)
    assert made(loaded, [A, STOP], " User:") == Completion([A], True, -1.0, False)


def test_one_that_ended_in_no_way_that_is_known_is_not_taken(loaded: Loaded) -> None:
    with pytest.raises(
        EndpointError, match=r"it: ended a text after 2 of 6 tokens \(stop\), without an end token or a "
    ):
        made(loaded, [A, B], "User:", reason="stop")
    with pytest.raises(EndpointError, match=r"\(it does not say why\)"):
        made(loaded, [A, B])


def test_a_seed_depends_on_the_random_numbers_alone() -> None:
    seeds = [seed(Request([A], numbers)) for numbers in ([0.1, 0.2], [0.1, 0.3], [0.1])]
    assert len(set(seeds)) == 3
    assert all(0 <= each < 2**31 for each in seeds)
    assert seed(Request([B], [0.1])) == seeds[2]


def test_what_was_found_is_not_looked_for_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    known = Remembered[str, str](lambda name: looked.append(name) or f"{name}!")  # type: ignore[func-returns-value]
    assert [known("a"), known("a"), known("b")] == ["a!", "a!", "b!"]
    assert looked == ["a", "b"]
    monkeypatch.setattr(outside, "KNOWN_FOR", 0.0)
    assert known("a") == "a!"
    assert looked == ["a", "b", "a"]
