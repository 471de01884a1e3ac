"""The figures of a set, against values worked out by hand, and of its parts together, however it is cut."""

import math
from collections.abc import Collection
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from expectations import figures as module
from expectations.figures import figures, repeated
from expectations.tally import Counts, SavedTally, Tally, together
from tests.expectations import oracles


def tally(pairs: pd.DataFrame, quarantined: int = 0, held_out: Collection[str] = ()) -> Tally:
    found = Tally(held_out)
    found.take(pairs)
    found.accept(pairs)
    found.counts.quarantined = quarantined
    return found


def figure(name, pairs):
    return figures([tally(pairs)])[name]


def test_a_pair_that_repeats_an_earlier_one_is_a_duplicate(frame):
    same = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    assert figure("duplicate_fraction", frame(4, {0: same, 1: same, 3: same})) == 0.5
    assert figure("duplicate_fraction", frame(4, {0: same, 1: same | {"rejected_ids": [4]}})) == 0.0


def test_ties_of_length_count_half(frame):
    pairs = frame(4, {0: {"chosen_tokens": 9}, 1: {"chosen_tokens": 9}, 2: {"rejected_tokens": 9}})
    assert figure("chosen_longer_fraction", pairs) == (1 + 1 + 0 + 0.5) / 4


def test_correlation_is_over_distinct_texts(frame):
    """Texts a, b, c of (score, tokens) (3, 4), (1, 2), (2, 6): deviations (1, 0), (-1, -2), (0, 2), so
    r = (0 + 2 + 0) / sqrt(2 * 8) = 0.5, though text a comes in both pairs.
    """
    first = {"chosen": "a", "chosen_score": 3.0, "chosen_tokens": 4}
    pairs = frame(
        2,
        {
            0: first | {"rejected": "b", "rejected_score": 1.0, "rejected_tokens": 2},
            1: first | {"rejected": "c", "rejected_score": 2.0, "rejected_tokens": 6},
        },
    )
    assert figure("length_correlation", pairs) == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_undefined_figures_are_zero(frame, rows):
    """All lengths are equal here, so the correlation is undefined; with no rows, so is every fraction."""
    found = figures([tally(frame(3).head(rows))])
    assert found["length_correlation"] == 0.0
    assert all(math.isfinite(figure) for figure in found.values())


def test_prompts_are_told_apart_by_token_ids_and_shared_ones_counted_once(frame):
    pairs = frame(4, {1: {"prompt_ids": [1, 2, 0], "prompt_id": "prompt-0"}})
    found = figures([tally(pairs, 1, ["prompt-0", "prompt-3", "prompt-9"])])
    assert found["distinct_prompts"] == 3
    assert found["shared_prompts"] == 2
    assert found["quarantined_fraction"] == 1 / 5


# Parts

# which of few texts, scores, lengths and prompts each pair has, so that much of it comes again
ROWS = st.lists(
    st.tuples(
        *(st.sampled_from("abc"), st.sampled_from("def")),
        *(st.sampled_from([None, 0.1, 0.7, 1 / 3, -2.5]) for _ in range(2)),
        *(st.integers(1, 3) for _ in range(3)),
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, cuts=st.sets(st.integers(0, 30)), block=st.integers(1, 40), quarantined=st.integers(0, 3))
def test_parts_add_up_to_the_whole_to_the_last_bit(frame, monkeypatch, rows, cuts, block, quarantined):
    monkeypatch.setattr(module, "BLOCK", block)
    held_out = ["prompt-0", "prompt-2"]
    names = ("chosen", "rejected", "chosen_score", "rejected_score", "chosen_tokens", "rejected_tokens")
    pairs = frame(
        len(rows),
        {
            number: dict(zip(names, row, strict=False))
            | {"prompt_id": f"prompt-{row[6]}", "prompt_ids": [row[6]], "chosen_ids": [1], "rejected_ids": [row[5]]}
            for number, row in enumerate(rows)
        },
    )
    pairs = pairs.astype({"chosen_score": float, "rejected_score": float})
    ends = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [tally(pairs[first:last], held_out=held_out) for first, last in pairwise(ends)]
    parts.append(tally(pairs.head(0), quarantined))
    whole = figures([tally(pairs, quarantined, held_out)])
    assert figures(parts) == whole
    assert whole == pytest.approx(oracles.figures(pairs, quarantined, held_out))


def test_a_hash_that_comes_again_is_found_in_whatever_part(frame):
    pairs = frame(6, {5: {"pair_id": "pair-1"}})
    parts = [tally(pairs[:2]), tally(pairs[2:4]), tally(pairs[4:])]
    assert repeated(parts, "pair").tolist() == [parts[0].column("pair")[1]]
    assert repeated(parts[:2], "pair").tolist() == []


def test_counts_add_up_and_keep_the_order_in_which_reasons_came():
    first, second = Counts(accepted=3, quarantined=1), Counts(accepted=2, quarantined=2)
    first.reasons.update({"z": 1, "a": 1})
    second.reasons.update({"b": 2, "a": 1})
    second.has.add("gap")
    total = Counts()
    for each in (first, second):
        total.add(Counts.of(each.told()))
    assert (total.accepted, total.quarantined, total.pairs, total.has) == (5, 3, 8, {"gap"})
    assert list(total.reasons.items()) == [("z", 1), ("a", 2), ("b", 2)]


def test_what_a_part_has_left_in_its_folder_is_what_it_had(frame, tmp_path):
    kept = tally(frame(4, {2: {"chosen_score": None, "rejected_score": None}}), 2, ["prompt-3"])
    kept.counts.reasons.update(["score_gap", "not_blank", "score_gap"])
    kept.save(tmp_path)
    read = SavedTally(tmp_path)
    assert together([read]) == kept.counts
    assert len(read.column("chosen_score")) == 3
    assert figures([read]) == figures([kept])


def test_hashes_are_the_same_in_every_process(frame):
    """Fixed, since parts that other processes have left are compared; Python's own differ from process to process."""
    assert tally(frame(1)).column("pair").tolist() == [8977517659776618491]
