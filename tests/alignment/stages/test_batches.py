"""Stages that work in batches: row groups of five rows give what one gives, and prompts of many are read once."""

from pathlib import Path

import pytest

from alignment import rows
from alignment.rows import ACCEPTED, PROMPTS, SAMPLES
from alignment.stages.store import digest_folder
from tests.alignment.chain import PROMPTS as COUNT
from tests.alignment.chain import Chain
from tests.alignment.conftest import read_rows


@pytest.fixture
def small(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The chain with its tables in row groups of five."""
    monkeypatch.setattr(rows, "GROUP_ROWS", 5)
    found = chain.other(tmp_path)
    for name, table in (("prompts", PROMPTS), ("samples", SAMPLES), ("validation", ACCEPTED)):
        found.folders[name] = tmp_path / f"given-{name}"
        found.folders[name].mkdir()
        table.write(found.folders[name], table.read(chain.folders[name]))
    return found


def test_a_shard_reads_the_row_groups_of_its_own_prompts(small: Chain, chain: Chain, monkeypatch) -> None:
    class Watched(rows.pq.ParquetFile):
        def read_row_group(self, number, *args, **options):
            decoded.append(number)
            return super().read_row_group(number, *args, **options)

    decoded: list[int] = []
    monkeypatch.setattr(rows.pq, "ParquetFile", Watched)
    small.sample("shard", 5, 10)
    assert decoded == [1]
    assert read_rows(tmp := small.root / "shard" / SAMPLES.file) == read_rows(chain.root / "shard 5" / SAMPLES.file), (
        tmp
    )


def test_a_merge_keeps_order_and_counts_however_many_parts_there_were(small: Chain, chain: Chain) -> None:
    shards = [small.sample(f"{first}", first, min(first + 4, COUNT)) for first in range(0, COUNT, 4)]
    merged = small.run("samples", parts=tuple(shards))
    again = small.run("samples", "again", parts=tuple(chain.root / f"shard {first}" for first in (0, 5, 10)))
    assert [row["ids"] for row in read_rows(merged / SAMPLES.file)] == [
        row["ids"] for row in read_rows(again / SAMPLES.file)
    ]
    assert digest_folder(again) == digest_folder(small.folders["samples"])
    assert small.counts["samples"] == small.counts["again"] == chain.counts["samples"]


@pytest.mark.parametrize("stage", ["reference"])
def test_a_stage_in_batches_gives_what_it_gives_at_once(small: Chain, chain: Chain, stage: str) -> None:
    small.folders[stage] = small.run(stage)
    [file] = small.folders[stage].iterdir()
    assert read_rows(file) == read_rows(chain.folders[stage] / file.name)
    assert small.counts[stage] == chain.counts[stage]
