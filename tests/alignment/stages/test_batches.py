"""Stages that work in batches: row groups of five rows give what one gives, though they cut prompts in two."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment import parquet
from alignment.config import AlignConfig, PromptsConfig
from alignment.data.pairs.whole import whole_prompts
from alignment.data.prompts.select import Candidate, select
from alignment.data.prompts.source import Rows
from alignment.kinds import PAIRS as SOURCES
from alignment.kinds import REWARDS
from alignment.parquet import GROUP_ROWS
from alignment.rewards.protocol import Scores, Scoring
from alignment.rows import ACCEPTED, PAIRS, PROMPTS, REFERENCED, SAMPLES, SCORES, TEXTS
from alignment.stages.prompts import Texts
from alignment.stages.sides import Sides, count_held_out, held_out
from alignment.stages.store import digest_folder
from tests.alignment.chain import PROMPTS as COUNT
from tests.alignment.chain import Chain
from tests.alignment.conftest import read_rows


@pytest.fixture
def small(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The chain with its tables in row groups of five."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 5)
    found = chain.other(tmp_path)
    for name, table in (("prompts", PROMPTS), ("samples", SAMPLES), ("scores", SCORES), ("validation", ACCEPTED)):
        found.folders[name] = tmp_path / f"given-{name}"
        found.folders[name].mkdir()
        table.write(found.folders[name], table.read(chain.folders[name]))
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the row groups that are decoded from here on."""

    class Watched(pq.ParquetFile):
        def read_row_group(self, number: int, *args: Any, **options: Any) -> Any:
            found.append(number)
            return super().read_row_group(number, *args, **options)

    found: list[int] = []
    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return found


def test_a_shard_reads_the_row_groups_of_its_own_prompts(small: Chain, chain: Chain, decoded: list[int]) -> None:
    small.sample("shard", 5, 10)
    assert decoded == [1, 0, 1], "one of the prompts, and then its own ten samples, to hash them"
    assert read_rows(small.root / "shard" / SAMPLES.file) == read_rows(chain.root / "samples 5" / SAMPLES.file)


def test_parts_keep_order_counts_and_content_however_many_there_were(small: Chain, chain: Chain) -> None:
    shards = [small.sample(f"{first}", first, min(first + 4, COUNT)) for first in range(0, COUNT, 4)]
    listed = small.run("samples", parts=tuple(shards))
    again = small.run("samples", "again", parts=tuple(chain.root / f"samples {first}" for first in (0, 5, 10)))
    assert [row["ids"] for row in read_rows(listed / SAMPLES.file)] == [
        row["ids"] for row in read_rows(again / SAMPLES.file)
    ]
    assert digest_folder(again) == digest_folder(chain.folders["samples"])
    assert small.counts["samples"] == small.counts["again"] == chain.counts["samples"]


@pytest.mark.parametrize("stage", ["scores", "pairs", "reference"])
def test_a_stage_in_batches_gives_what_it_gives_at_once(small: Chain, chain: Chain, stage: str) -> None:
    small.folders[stage] = small.run(stage)
    file = {"scores": SCORES.file, "pairs": PAIRS.file, "reference": REFERENCED.file}[stage]
    found_rows, expected_rows = (read_rows(each.folders[stage] / file) for each in (small, chain))
    for found, expected in zip(found_rows, expected_rows, strict=True):
        scores = found.pop("reward", 0.0), expected.pop("reward", 0.0)
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)  # a classifier's batches are others
        assert found == expected
    assert small.counts[stage] == chain.counts[stage]
    assert small.told[stage] == (2 * COUNT, 2 * COUNT)


def test_the_sds_of_a_sum_are_those_of_all_samples(
    small: Chain, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part goes through all batches, so the scores are those of one batch to the last bit."""
    monkeypatch.chdir(tmp_path)
    Path("rules.py").write_text(
        "def length(completions, **_):\n    return [float(len(c)) for c in completions]\n"
        "def unsure(completions, **_):\n"
        "    return [None if len(c) % 5 == 0 else float(c.count('a')) for c in completions]\n"
    )
    parts = [
        {"name": name, "kind": "function", "function": f"rules.py:{name}", "weight": 0.3, "normalise": True}
        for name in ("length", "unsure")
    ]
    found = {}
    for name, earlier in {"small": small, "whole": chain}.items():
        (tmp_path / name).mkdir()
        found[name] = earlier.other(tmp_path / name, reward={"kind": "sum", "parts": parts})
        found[name].folders["reward"] = found[name].run("reward")
        found[name].folders["scores"] = found[name].run("scores")
    files = [found[name].folders["scores"] for name in found]
    assert found["small"].counts == found["whole"].counts
    assert found["small"].counts["scores"]["unscored"] > 0
    assert read_rows(files[0] / "scores.parquet") == read_rows(files[1] / "scores.parquet")
    assert (files[0] / "scales.json").read_text() == (files[1] / "scales.json").read_text()


def test_a_reward_of_another_package_gets_batches_and_its_rows_are_named_among_all(
    small: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its protocol is `score` alone; one object scores them all, and counts add up."""

    class Reward:
        def __init__(self, config: AlignConfig) -> None:
            made.append(self)
            self.sizes: list[int] = []

        def score(self, samples: Sequence[Any], work: Scoring) -> Scores:
            self.sizes.append(len(samples))
            return Scores([float(len(sample["text"])) for sample in samples], truncated=1, counts={"calls": 2})

    made: list[Reward] = []
    monkeypatch.setattr(REWARDS, "get", lambda name: Reward)
    small.run("scores")
    assert [each.sizes for each in made] == [[5, 5, 5, 5, 4]]
    assert small.counts["scores"] == {"scored": 24, "unscored": 0, "truncated": 5, "calls": 10}


def test_as_many_pairs_as_are_wanted_are_drawn_from_all(small: Chain, tmp_path: Path) -> None:
    """`random.sample` on all pairs decides which, and they stand in their order."""
    found: dict[int, list[str]] = {}
    for most in (0, 5, 100):
        (tmp_path / f"{most}").mkdir()
        other = small.other(tmp_path / f"{most}", pairs={"max_pairs": most})
        found[most] = [row["pair_id"] for row in read_rows(other.run("pairs") / "pairs.parquet")]
        counts = other.counts["pairs"]
        assert (counts["built"], counts["not_needed"]) == (len(found[most]), len(found[0]) - len(found[most]))
    wanted = random.Random(small.config.seed).sample(found[0], 5)
    assert found[5] == [pair for pair in found[0] if pair in wanted]
    assert found[100] == found[0]


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_a_source_of_another_package_may_give_any_sequence(
    small: Chain, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Any], Sequence[Any]]
) -> None:
    some: list[Any] = read_rows(small.run("pairs", "first") / "pairs.parquet")[:3]
    bare = [{name: value for name, value in row.items() if name != "fault"} for row in some]
    monkeypatch.setattr(SOURCES, "get", lambda name: lambda job: (kind(bare), {"seen": 3}))
    assert read_rows(small.run("pairs") / "pairs.parquet") == some
    assert small.counts["pairs"] == {"seen": 3, "built": 3, "not_needed": 0}


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=9), size=st.integers(1, 8))
def test_no_prompt_is_broken_by_a_batch(lengths: list[int], size: int) -> None:
    ids = [f"p{number}" for number, length in enumerate(lengths) for _ in range(length)]
    table = pa.table({"prompt_id": ids, "row": range(len(ids))})
    found = list(whole_prompts(table.slice(at, size) for at in range(0, len(ids), size)))
    assert [row for piece, _ in found for row in piece["row"].to_pylist()] == list(range(len(ids)))
    assert [len(prompt) for _, prompts in found for prompt in prompts] == lengths


def test_the_side_of_a_prompt_is_found_in_any_row_group(small: Chain) -> None:
    sides = Sides(small.folders["prompts"])
    prompts = PROMPTS.read(small.folders["prompts"])
    assert [sides.of(row["prompt_id"]) for row in prompts] == [row["split"] for row in prompts]
    assert [sides.of(name) for name in ("", "0", "zz", prompts[0]["prompt_id"] + "0")] == [""] * 4
    assert held_out(small.folders["prompts"]) == prompts[COUNT:]
    assert count_held_out(small.folders["prompts"]) == len(prompts) - COUNT


def test_texts_that_prompts_are_made_of_are_read_where_they_are_looked_at(small: Chain, tmp_path: Path) -> None:
    some: list[Any] = [{"text": f"text {number}", "label": -1, "columns": ""} for number in range(12)]
    TEXTS.write(tmp_path, some)
    found = Texts(tmp_path)
    assert (len(found), list(found), found[-1]) == (12, some, some[-1])
    assert [found[3:9], found[10:99], found[20:], found[8:2:-3]] == [some[3:9], some[10:99], [], some[8:2:-3]]
    with pytest.raises(IndexError):
        found[12]


def test_texts_decode_a_row_group_once_however_they_are_gone_through(tmp_path: Path, decoded: list[int]) -> None:
    """One by one, in slices that cut groups in two, and by an iterator; and none for prompts that are not needed."""
    some: list[Any] = [{"text": f"text {number}", "label": -1, "columns": ""} for number in range(2 * GROUP_ROWS + 5)]
    TEXTS.write(tmp_path, some)
    found = Texts(tmp_path)
    assert [found[number] for number in range(len(found))] == some
    assert decoded == [0, 1, 2]
    assert found[-GROUP_ROWS:] + list(found) == some[-GROUP_ROWS:] + some
    assert decoded == [0, 1, 2, 1, 2, 0, 1, 2]
    made = select(
        Rows(lambda: Texts(tmp_path)),
        lambda batch: [Candidate((number,)) for number, _ in enumerate(batch)],
        PromptsConfig(count=3, eval_count=2, min_eval=2),
        set(),
    )
    assert (len(made.train), sum(made.counts.values())) == (3, len(some))
    assert decoded[8:] == [0]
