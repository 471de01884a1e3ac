"""What people read of an evaluation: the first sample of both models, and texts that do not say who wrote them."""

import json
import math

import pyarrow as pa

from alignment.judging.evaluated import Evaluated, gather
from alignment.judging.review import LETTERS, PREVIEW, comparisons, preview


def samples(side: str, prompts: int, reward: float = 1.0) -> pa.Table:
    """Two samples of each prompt; the aligned model's log-prob is 1 nat above the base's on its own text."""
    rows = [
        {
            "prompt_id": f"p{prompt}",
            "prompt": f"film {prompt}",
            "index": index,
            "ids": [1] * (3 + index),
            "completion": f" by {side} {index}",
            "finished": True,
            "reward": reward + prompt,
            "logprob": -2.0 if side == "aligned" else -4.0,
            "base_logprob": -3.0 if side == "aligned" else -4.0,
            "judged.grammatical": 0.5,
        }
        for prompt in range(prompts)
        for index in range(2)
    ]
    return pa.Table.from_pylist(rows)


def evaluated(prompts: int = 3, **options: int) -> Evaluated:
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How was it?"}])
    before, after = samples("base", prompts, 0.0), samples("aligned", prompts, 2.5)
    return gather(before, after, {"p1": chat}, reward="", base="", **options)


def test_the_first_sample_of_each_model_is_compared() -> None:
    found = comparisons(evaluated(), 2)
    assert [row.prompt_id for row in found] == ["p0", "p1"]
    first = found[0]
    assert (first.base, first.aligned) == (" by base 0", " by aligned 0")
    assert first.figures == {
        "reward_base": 0.0,
        "reward_aligned": 2.5,
        "reward_gain": 2.5,
        "grammatical_base": 0.5,
        "grammatical_aligned": 0.5,
        "grammatical_gain": 0.0,
        "tokens_base": 3.0,
        "tokens_aligned": 3.0,
        "log_ratio": 1.0,
    }
    assert (first.shown_prompt, found[1].shown_prompt) == ("film 0", "How was it?")


def test_prompts_without_a_recorded_text_are_left_out() -> None:
    assert len(comparisons(evaluated(max_characters=200), 3)) < 3


def test_a_score_that_is_missing_or_not_finite_is_no_figure() -> None:
    before, after = samples("base", 1), samples("aligned", 1)
    after = after.set_column(
        after.column_names.index("judged.grammatical"), "judged.grammatical", pa.array([math.inf, 0.0])
    )
    before = before.set_column(before.column_names.index("reward"), "reward", pa.array([None, 0.0], pa.float64()))
    (found,) = comparisons(gather(before, after, {}, reward="", base=""), 5)
    assert {"reward_base", "reward_gain", "grammatical_aligned", "grammatical_gain"}.isdisjoint(found.figures)
    assert found.figures["reward_aligned"] == 1.0


def test_who_wrote_which_text_is_drawn_for_each_prompt_and_stays() -> None:
    """Of 64 prompts neither letter has fewer than 16 (below 1 in 10,000 by chance, and the draw is fixed)."""
    rows = comparisons(evaluated(64), 64)
    letters = [row.letter_of_aligned("run") for row in rows]
    assert min(letters.count(letter) for letter in LETTERS) >= 16
    assert letters == [row.letter_of_aligned("run") for row in rows]
    assert letters != [row.letter_of_aligned("another run") for row in rows]
    for row, letter in zip(rows, letters, strict=True):
        assert list(row.texts("run")) == list(LETTERS)
        assert row.texts("run")[letter] == row.aligned


def test_a_preview_fits_and_shows_both_texts() -> None:
    assert preview({"A": " short ", "B": "texts"}) == "**A**\n\nshort\n\n**B**\n\ntexts"
    long = preview({"A": "a" * 5_000, "B": "b" * 5_000})
    assert len(long) <= PREVIEW
    assert min(long.count("a"), long.count("b")) > 480
    assert long.endswith("b…")
