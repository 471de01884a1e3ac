"""Stop texts: the completion ends before the first token in which one begins, and nothing after it counts."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.sampling.engine import request
from alignment.sampling.local import generate
from alignment.sampling.stops import Stops

WORDS = ["a", "b", ".", "\n", "\n\n", ".\n", "User", ":", "é", ""]  # the last: a special token


def decode(rows: Sequence[Sequence[int]]) -> list[str]:
    return ["".join(WORDS[token] for token in ids) for ids in rows]


def ids_of(*words: str) -> list[int]:
    return [WORDS.index(word) for word in words]


@pytest.mark.parametrize(
    ("words", "stops", "kept"),
    [
        (("a", "b", "."), ["User"], None),
        (("a", "\n", "User", ":"), ["User:"], 2),
        (("a", "\n", "\n"), ["\n\n"], 1),
        (("a", "\n\n"), ["\n"], 1),
        (("a", ".\n", "\n"), ["\n\n"], 1),  # it begins inside `.\n`, which goes whole
        (("User", ":"), ["User:"], 0),
        (("é", "", "b"), ["b"], 2),
        (("a", "b", "\n"), ["\n", "ab"], 0),  # the earliest of those that are there
    ],
)
def test_whole_tokens_before_the_stop_are_kept(words: tuple[str, ...], stops: list[str], kept: int | None) -> None:
    assert Stops(stops, decode).kept([ids_of(*words)]) == [kept]


def test_a_stop_that_spans_many_tokens_is_found_behind_a_long_text() -> None:
    words = ["a"] * 200 + ["User", ":", "b"]
    stops = Stops(["User:b"], decode)
    assert stops.kept([ids_of(*words[:-1]), ids_of(*words)]) == [None, 200]


@pytest.mark.parametrize("grown", [2, 5, 9])
def test_looked_at_seldom_it_is_what_asking_after_every_token_gives(grown: int) -> None:
    """Where a second stop begins earlier and is complete later, the first that was complete counts."""
    stops = Stops(["b.", "ab.\n"], decode)
    words = ["User", "a", "b", ".", "\n", "a", "b", ".", "é"]
    for length in range(1, len(words) + 1):
        asked = [stops.kept([ids_of(*words[:count])])[0] for count in range(1, length + 1)]
        first = next((kept for kept in asked[-grown:] if kept is not None), None)
        assert stops.kept([ids_of(*words[:length])], grown) == [first]


def test_a_sample_is_that_without_stops_up_to_its_stop(tiny_gpt2: Callable[..., Any]) -> None:
    """Its log-prob is that of the kept tokens alone, by a plain forward pass."""
    model = tiny_gpt2(0, context=24)
    config = SamplingConfig(total_tokens=24, batch_tokens=384)
    asked = [
        request([1 + place % 5, 7, 3][: 1 + place % 3], config, seed=0, purpose="train", prompt_id=str(place), index=0)
        for place in range(12)
    ]
    ends = Conventions(ends=(0,), pad_id=0)

    def letters(rows: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(chr(97 + token % 8) for token in ids) for ids in rows]

    free = generate(model, asked, config, ends)
    stopped = generate(model, asked, config, ends, stops=Stops(["b", "dc"], letters))
    trimmed = 0
    for wanted, before, after in zip(asked, free, stopped, strict=True):
        (text,) = letters([before.ids])
        places = [place for stop in ("b", "dc") if (place := text.find(stop)) >= 0]
        if not places:
            assert (after.ids, after.finished) == (before.ids, before.finished)
            continue
        trimmed += 1
        assert after.ids == before.ids[: min(places)]
        assert after.finished
        with torch.no_grad():
            logits = model(torch.tensor([[*wanted.prompt, *after.ids]])).logits[0].log_softmax(-1)
        start = len(wanted.prompt) - 1
        expected = sum(logits[start + place, token].item() for place, token in enumerate(after.ids))
        assert after.logprob == pytest.approx(expected, abs=1e-4)
    assert trimmed > 3
