"""A stage in parts: read as one table, with one content wherever it is cut, and damaged where one of its rows is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import parquet
from alignment.config import build_config
from alignment.device import device
from alignment.errors import PairsError
from alignment.rows import SAMPLES, SCORES
from alignment.stages import pairs, scores
from alignment.stages.job import Counts, Job
from alignment.stages.parts import fill, index_parts, parts_of
from alignment.stages.row_hash import Hashed, hash_rows
from alignment.stages.stage import stage
from alignment.stages.store import StageRef, digest_folder
from tasks.pipeline import STAGES
from tests.alignment.chain import PROMPTS, Chain


def some(count: int, first: int = 0) -> list[dict[str, Any]]:
    blank = dict.fromkeys(SAMPLES.schema.names)
    return [blank | {"prompt_id": "p", "index": number, "ids": [number]} for number in range(first, first + count)]


def of(prompts: int) -> dict[str, StageRef]:
    """So many prompts that are trained on."""
    made = StageRef(stage="prompts", key="k", path=Path(), digest="", counts={"train": prompts}, seconds=0.0)
    return {"prompts": made}


def cut(root: Path, name: str, sizes: Sequence[int]) -> Path:
    """A stage below `root` in parts of so many rows, whose indices go on."""
    parts = []
    for number, size in enumerate(sizes):
        parts.append(root / "samples-parts" / f"{name}-{number}")
        parts[-1].mkdir(parents=True)
        SAMPLES.write(parts[-1], some(size, sum(sizes[:number])))
        hash_rows(parts[-1])
    whole = root / "samples" / name
    whole.mkdir(parents=True)
    index_parts(whole, parts)
    return whole


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=12), st.integers(0, 12))
def test_the_hash_of_a_list_is_made_of_those_of_its_pieces(values: list[int], at: int) -> None:
    table = pa.table({"value": pa.array([value % 5 for value in values], pa.int64())})
    pieces = Hashed().taking(table.slice(0, at)) + Hashed().taking(table.slice(at))
    assert pieces == Hashed().taking(table) == Hashed().taking(table.slice(0, at)).taking(table.slice(at))


def test_other_rows_another_order_or_another_column_have_another_hash() -> None:
    def hashed(name: str, *values: float | None, kind: str = "float64") -> Hashed:
        return Hashed().taking(pa.table({name: pa.array(values, pa.type_for_alias(kind))}))

    found = [
        hashed("a", 1.0, 2.0),
        hashed("a", 2.0, 1.0),
        hashed("a", 1.0, 2.0, None),
        hashed("a", 1.0, None),
        hashed("a", 1.0, 2.0 + 2**-51),
        hashed("b", 1.0, 2.0),
        hashed("a", 1.0, 2.0, kind="float32"),
    ]
    assert len(set(found)) == len(found)


def test_a_stage_is_read_through_its_parts_as_if_it_were_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 4)
    whole = cut(tmp_path, "k1", [3, 0, 6, 2])
    assert parts_of(whole) == [f"samples-parts/k1-{number}" for number in range(4)]
    assert [row["index"] for row in SAMPLES.read(whole)] == list(range(11))
    assert SAMPLES.count(whole) == 11
    assert SAMPLES.whole(whole, ["index"])["index"].to_pylist() == list(range(11))
    one = tmp_path / "one"
    one.mkdir()
    SAMPLES.write(one, some(11))
    for start, stop, size in ((0, None, 4), (0, None, 3), (2, 9, 4), (4, 5, 4), (9, 99, 2)):
        found, expected = (
            [batch["index"].to_pylist() for batch in SAMPLES.batches(folder, rows=size, start=start, stop=stop)]
            for folder in (whole, one)
        )
        assert found == expected


def test_a_range_opens_the_parts_that_it_is_in_alone(tmp_path: Path) -> None:
    whole = cut(tmp_path, "k1", [3, 6, 2])
    for number in (0, 2):
        (tmp_path / "samples-parts" / f"k1-{number}" / SAMPLES.file).unlink()
    assert [row["index"] for batch in SAMPLES.batches(whole, start=4, stop=6) for row in batch.to_pylist()] == [4, 5]


def test_the_content_of_a_stage_is_the_same_wherever_it_is_cut(tmp_path: Path) -> None:
    found = {digest_folder(cut(tmp_path, f"k{number}", sizes)) for number, sizes in enumerate([[9], [4, 5], [0, 9, 0]])}
    assert len(found) == 1
    assert digest_folder(cut(tmp_path, "other", [4, 6])) not in found


def test_a_part_says_itself_where_its_file_is_another(tmp_path: Path) -> None:
    cut(tmp_path, "k1", [3])
    folder = tmp_path / "samples-parts" / "k1-0"
    before = digest_folder(folder)
    SAMPLES.write(folder, some(3, 1))
    assert digest_folder(folder) != before


@pytest.mark.parametrize(
    ("samples", "shard", "prompts", "expected"),
    [
        (4, 128, 512, [(0, 512)]),
        (4, 128, 2500, [(0, 1024), (1024, 2048), (2048, 2500)]),
        (4, 1025, 2500, [(0, 2048), (2048, 2500)]),
        (3, 128, 5000, [(0, 4096), (4096, 5000)]),
        (1024, 5, 12, [(0, 8), (8, 12)]),
    ],
)
def test_scores_and_pairs_are_cut_where_a_row_group_ends(
    samples: int, shard: int, prompts: int, expected: list[tuple[int, int]]
) -> None:
    """Row groups of 4,096 samples, so 4 a prompt are cut at multiples of 1,024 prompts."""
    config = build_config({"sampling": {"samples_per_prompt": samples, "shard_prompts": shard}})
    assert scores.ranges(config, of(prompts)) == expected == pairs.ranges(config, of(prompts))


def test_a_reward_that_goes_through_all_batches_by_itself_is_given_all() -> None:
    config = build_config({"reward": {"kind": "judge", "judge": {"model": "a", "url": "http://127.0.0.1:1/v1"}}})
    assert scores.ranges(config, of(5000)) == [(0, 5000)]


def test_pairs_that_are_drawn_from_all_are_built_at_once() -> None:
    assert pairs.ranges(build_config({"pairs": {"max_pairs": 100}}), of(5000)) == [(0, 5000)]


def test_a_part_may_give_no_pair_and_all_of_them_together_may_not(chain: Chain, tmp_path: Path) -> None:
    """Of the first five prompts both samples score the same; there are two a prompt."""
    tied = chain.other(tmp_path)
    tied.folders["scores"] = tmp_path / "given"
    tied.folders["scores"].mkdir()
    found = enumerate(SCORES.read(chain.folders["scores"]))
    SCORES.write(tied.folders["scores"], [row | ({"reward": 0.5} if at < 10 else {}) for at, row in found])
    parts = tuple(tied.run("pairs", f"part {first}", (first, first + 3)) for first in range(0, PROMPTS, 3))
    assert tied.counts["part 0"]["built"] == 0
    assert digest_folder(tied.run("pairs", "parts", parts=parts)) == digest_folder(tied.run("pairs", "at once"))
    assert tied.counts["parts"] == tied.counts["at once"]
    assert tied.counts["parts"]["ties"] == 5
    with pytest.raises(PairsError, match=r"^pairs: all 3 candidates tied"):
        tied.run("pairs", "nothing", parts=parts[:1])


@pytest.mark.parametrize(("slots", "kind"), [(0, "cpu"), (1, "cuda")])
def test_a_stage_without_a_gpu_slot_uses_no_gpu(
    slots: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found: list[str] = []

    def body(job: Job) -> Counts:
        found.append(device().type)
        return {}

    declared = stage(title="t", needs=(), reads=lambda _: {}, makes=lambda _: "", slots=slots)(body)
    fill(declared, Job(build_config({}), {}, tmp_path, tmp_path, tmp_path))
    assert found == [kind]


@pytest.mark.parametrize(("model", "slots"), [("train", 1), ("./given", 0)])
def test_a_base_model_that_is_given_waits_for_no_gpu(model: str, slots: int) -> None:
    assert STAGES["base"].slots(build_config({"base": {"model": model}, "reward": {"model": "./given"}})) == slots
