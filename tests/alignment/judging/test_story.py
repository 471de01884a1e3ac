"""What became of a prompt: found by any of its ids, with its samples, pairs and what validation said of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alignment.errors import InputError
from alignment.judging.evaluated import gather
from alignment.judging.story import Folders, examples, find_prompt, quarantined, recorded, tell
from alignment.rows import ACCEPTED, EVALUATED, PAIRS, PROMPTS, QUARANTINED, REFERENCED, SCORES

ONE, TWO, HELD = "aa11bb22cc33dd44", "aa11ff00ff00ff00", "0123456789abcdef"


def sample(prompt_id: str, index: int, reward: float | None, **more: Any) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "prompt": "the film",
        "prompt_ids": [1, 2],
        "index": index,
        "ids": [5, 6, 7],
        "text": f"the film {index}",
        "completion": f" {index}",
        "finished": True,
        "logprob": -4.0 - index,
        "exact_logprob": True,
        "reward": reward,
    } | more


def a_pair(prompt_id: str, better: int, worse: int, gap: float, **more: Any) -> dict[str, Any]:
    return {
        "pair_id": f"{prompt_id}-{better}-{worse}",
        "prompt_id": prompt_id,
        "prompt": "the film",
        "prompt_ids": [1, 2],
        "chosen": f"the film {better}",
        "rejected": f"the film {worse}",
        "chosen_ids": [5],
        "rejected_ids": [6],
        "chosen_score": gap,
        "rejected_score": 0.0,
        "gap": gap,
        "chosen_tokens": 3,
        "rejected_tokens": 3,
        "strategy": "best_worst",
        "chosen_logprob": -4.0,
        "rejected_logprob": -5.0,
        "exact_logprob": True,
        "fault": "",
    } | more


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """One prompt whose pair was accepted, one whose pair was set apart, and one that is held out."""
    found = {
        name: tmp_path / name for name in ("prompts", "scores", "pairs", "validation", "reference", "before", "after")
    }
    for folder in found.values():
        folder.mkdir()
    sides = ((ONE, "train"), (TWO, "train"), (HELD, "eval"))
    row = {"prompt": "the film", "prompt_ids": [1, 2], "messages": "", "columns": ""}
    PROMPTS.write(found["prompts"], [row | {"prompt_id": prompt_id, "split": split} for prompt_id, split in sides])
    SCORES.write(
        found["scores"], [sample(ONE, 0, 2.0), sample(ONE, 1, -1.0), sample(ONE, 2, 0.5), sample(TWO, 0, None)]
    )
    good, bad = a_pair(ONE, 0, 1, 3.0), a_pair(TWO, 0, 1, 0.1)
    PAIRS.write(found["pairs"], [good, bad])
    ACCEPTED.write(found["validation"], [good])
    QUARANTINED.write(found["validation"], [bad | {"broken": ["score_gap", "not_blank"]}])
    REFERENCED.write(
        found["reference"], [good | {"reference_chosen": -4.5, "reference_rejected": -5.5, "reference": "base"}]
    )
    EVALUATED.write(found["before"], [sample(HELD, 0, -1.0, base_logprob=-4.0)])
    EVALUATED.write(found["after"], [sample(HELD, 0, 1.5, base_logprob=-6.0)])
    return found


@pytest.mark.parametrize("wanted", [ONE, "aa11b", f"{ONE}-0", f"{ONE}-0-1", f" {ONE} "])
def test_a_prompt_is_found_by_its_own_id_a_sample_s_or_a_pair_s(folders: Folders, wanted: str) -> None:
    assert find_prompt(folders, wanted) == ONE


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("aa11", "2 prompts have an id that begins so"), ("aa1", "no prompt"), ("nothing", "no prompt")],
)
def test_what_means_none_or_several_is_refused(folders: Folders, wanted: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find_prompt(folders, wanted)


def test_samples_have_their_scores_and_what_they_became(folders: Folders) -> None:
    found = tell(folders, ONE)
    assert (found.prompt, found.split) == ("the film", "train")
    assert [(each.id, each.reward, each.role) for each in found.samples] == [
        (f"{ONE}-0", 2.0, "chosen"),
        (f"{ONE}-1", -1.0, "rejected"),
        (f"{ONE}-2", 0.5, ""),
    ]
    assert [each.logprob for each in found.samples] == [-4.0, -5.0, -6.0]


def test_an_accepted_pair_has_the_reference_s_log_probs(folders: Folders) -> None:
    (found,) = tell(folders, ONE).pairs
    assert (found.outcome, found.gap, found.broken) == ("accepted", 3.0, ())
    assert (found.reference_chosen, found.reference_rejected) == (-4.5, -5.5)


def test_a_pair_that_was_set_apart_says_why(folders: Folders) -> None:
    (found,) = tell(folders, TWO).pairs
    assert (found.outcome, found.broken) == ("quarantined", ("score_gap", "not_blank"))
    assert found.reference_chosen is None
    assert [pair.id for pair in quarantined(folders, 5)] == [f"{TWO}-0-1"]


def test_a_held_out_prompt_has_what_both_models_wrote(folders: Folders) -> None:
    found = tell(folders, HELD)
    assert [(each.writer, each.reward) for each in found.samples] == [("base", -1.0), ("aligned", 1.5)]
    assert (found.split, found.pairs) == ("eval", ())


def test_of_folders_that_are_gone_nothing_is_told(folders: Folders) -> None:
    left = {name: folder for name, folder in folders.items() if name in {"pairs", "prompts"}}
    found = tell(left, ONE)
    assert found.samples == ()
    assert [pair.outcome for pair in found.pairs] == [""]
    assert quarantined(left, 5) == []
    assert examples(left) == []


def test_examples_are_ids_that_are_found(folders: Folders) -> None:
    found = examples(folders)
    assert [each.what for each in found] == [
        "a large gap, 3.00",
        "set apart: score gap, not blank",
        "held out, gain +2.50",
    ]
    assert [find_prompt(folders, each.id) for each in found] == [ONE, TWO, HELD]


def test_given_pairs_without_scores_are_found_by_their_row(folders: Folders) -> None:
    given = a_pair(ONE, 0, 1, 0.0) | {"pair_id": "row-7", "gap": None, "chosen_score": None, "rejected_score": None}
    PAIRS.write(folders["pairs"], [given])
    ACCEPTED.write(folders["validation"], [given])
    only = {name: folders[name] for name in ("prompts", "pairs", "validation")}
    assert [(each.what, each.id) for each in examples(only)][:1] == [("accepted, without scores", "row-7")]
    assert find_prompt(only, "row-7") == ONE
    assert tell(only, ONE).pairs[0].gap is None


def test_without_the_store_the_record_has_the_held_out_prompts() -> None:
    table = pa.Table.from_pylist([sample(HELD, 0, 1.0, base_logprob=-6.0)])
    kept = gather(table, table, {}, reward="r", base="b")
    found = recorded(kept, f"{HELD[:8]}-0")
    assert [(each.writer, each.text, each.tokens) for each in found.samples] == [
        ("base", " 0", 3),
        ("aligned", " 0", 3),
    ]
    for record in (kept, None):
        with pytest.raises(InputError, match="on the machine that made the run"):
            recorded(record, ONE)
