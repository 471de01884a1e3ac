"""A version walked back to its data: each step with its digest and where it is, also where the store is gone."""

import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alignment.errors import InputError
from alignment.judging.evaluated import gather
from alignment.parquet import Table
from alignment.rows import ACCEPTED, EVALUATED, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.store import MANIFEST, StageRef
from tasks.explaining import Explained, Step, explain
from tasks.home import store
from tasks.registry import connection, recorded, records, runs
from tests.alignment.judging.test_story import HELD, ONE, TWO, a_pair, sample
from tests.registered import make_version, report

NUMBERS = count()
PROMPT: dict[str, Any] = {"prompt": "the film", "prompt_ids": [1, 2], "messages": "", "columns": ""}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of MLflow's for all tests: making it takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(autouse=True)
def _local(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That database, and a home of each test's own."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{database}/mlflow.db", database / "artifacts")


def finished(stage: str, counts: dict[str, int], *tables: tuple[Table[Any], list[dict[str, Any]]]) -> StageRef:
    """A finished stage of this home's store."""

    def fill(folder: Path) -> dict[str, int]:
        for table, rows in tables:
            table.write(folder, rows)
        return counts

    return store().write(stage, "0123456789", fill, inputs={"code": "c0de"})


@pytest.fixture
def name() -> str:
    """A version whose run made two pairs, one of which was set apart."""
    version = make_version(f"film-{next(NUMBERS)}", found=report())
    good, bad = a_pair(ONE, 0, 1, 3.0), a_pair(TWO, 0, 1, 0.1)
    sides = [(ONE, "train"), (TWO, "train"), (HELD, "eval")]
    refs = {
        "texts": finished("texts", {"kept": 9}),
        "prompts": finished(
            "prompts", {"train": 2}, (PROMPTS, [PROMPT | {"prompt_id": each, "split": side} for each, side in sides])
        ),
        "pairs": finished("pairs", {"built": 2}, (PAIRS, [good, bad])),
        "validation": finished(
            "validation",
            {"pairs": 2, "accepted": 1, "quarantined": 1},
            (ACCEPTED, [good]),
            (QUARANTINED, [bad | {"broken": ["score_gap"]}]),
        ),
        "policy": finished("policy", {"steps": 5}),
        "before": finished("before", {"samples": 1}, (EVALUATED, [sample(HELD, 0, 0.0, base_logprob=-4.0)])),
    }
    records.log_json(
        version.run_id, "lineage.json", {stage: ref.model_dump(mode="json") for stage, ref in refs.items()}
    )
    records.log_json(
        version.run_id, recorded.SHOWN, {"broken": {"score gap": 1}, "libraries": {"plumbline": "1.2", "torch": "2"}}
    )
    table = pa.Table.from_pylist([sample(HELD, 0, 1.0, base_logprob=-6.0)])
    records.log_evaluated(version.run_id, gather(table, table, {}, reward="r", base="b"))
    return version.name


def explained(name: str, *options: Any) -> Explained:
    return explain(recorded.find(name), *options)


def by_name(found: Explained) -> dict[str, Step]:
    return {step.name: step for step in found.steps}


def test_each_step_leads_back_to_the_one_before(name: str) -> None:
    found = explained(name)
    assert [step.name for step in found.steps] == [
        *("version", "run", "gates"),
        *("before", "policy", "validation", "pairs", "prompts", "texts"),
        *("settings", "code"),
    ]
    assert found.missing == ""
    assert found.run_id == recorded.find(name).run_id


def test_a_step_says_what_it_is_and_where(name: str) -> None:
    steps = by_name(explained(name))
    assert steps["validation"].lines == ("quarantined: 1 for score gap",)
    assert steps["validation"].counts == {"pairs": 2, "accepted": 1, "quarantined": 1}
    folder = Path(steps["validation"].where)
    assert (folder / QUARANTINED.file).exists()
    assert steps["validation"].digest == store().find("validation", "0123456789").digest  # type: ignore[union-attr]
    assert f"plumbline why models:/{name}/1" in steps["gates"].where
    assert steps["gates"].lines == ("6 of 6 gates passed",)
    assert steps["code"].lines == ("plumbline 1.2, torch 2", "code of the training: c0de")


def test_a_sample_is_shown_in_place_of_examples(name: str) -> None:
    found = explained(name, f"{TWO}-0-1")
    assert found.story is not None
    assert found.story.pairs[0].broken == ("score_gap",)
    assert found.examples == ()
    assert [each.id for each in explained(name).examples] == [f"{ONE}-0-1", f"{TWO}-0-1"]


def test_pairs_that_were_set_apart_are_counted_and_the_first_are_there(name: str) -> None:
    found = explained(name, "", 5)
    assert ([pair.id for pair in found.apart], found.apart_total) == ([f"{TWO}-0-1"], 1)


def test_what_is_gone_from_the_store_is_named_and_the_record_still_tells(name: str) -> None:
    shutil.rmtree(store().root / "validation")
    found = explained(name)
    step = by_name(found)["validation"]
    assert step.held is False
    assert step.where == "not in this home's store (validation/0123456789)"
    assert step.lines == ("quarantined: 1 for score gap",)
    assert "validation." in found.missing
    assert explained(name, "", 5).apart == ()
    assert explained(name, ONE).story.pairs[0].outcome == ""  # type: ignore[union-attr]


def test_another_result_under_the_same_key_is_not_taken_for_it(name: str) -> None:
    folder = store().root / "validation" / "0123456789"
    manifest = (folder / MANIFEST).read_text()
    digest = by_name(explained(name))["validation"].digest
    (folder / MANIFEST).write_text(manifest.replace(digest, "another"))
    assert by_name(explained(name))["validation"].held is False


def test_on_another_machine_the_record_has_the_held_out_prompts_alone(name: str) -> None:
    shutil.rmtree(store().root)
    assert [(each.what, each.id) for each in explained(name).examples] == [("held out, gain 0.00", HELD)]
    found = explained(name, HELD[:6]).story
    assert found is not None
    assert [(each.writer, each.reward) for each in found.samples] == [("base", 1.0), ("aligned", 1.0)]
    with pytest.raises(InputError, match="on the machine that made the run"):
        explained(name, ONE)


def test_a_run_of_an_older_release_has_no_lineage_and_says_so() -> None:
    make_version("older", found=report())
    found = explained("older")
    assert [step.name for step in found.steps] == ["version", "run", "gates", "settings", "code"]
    assert "no lineage" in found.missing
