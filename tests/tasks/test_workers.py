"""What a worker does before it computes: what it cannot see, or would compute otherwise, it refuses in one line."""

from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.errors import StackError, StoreError
from alignment.stages.plan import lineage
from alignment.stages.store import StageRef
from tasks import workers
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.workers import compute_part, look_up, named, require_same, require_visible
from tests.tasks.test_running import CONFIG, SAMPLES, rows


@pytest.fixture
def given() -> dict[str, StageRef]:
    return {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}


def test_a_stage_that_a_worker_does_not_see_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    ref = StageRef(stage="base", key="k", path=tmp_path / "elsewhere", digest="", counts={}, seconds=0.0)
    with pytest.raises(StoreError, match=r"does not see .*elsewhere, which the stage base .*PLUMBLINE_STORE name"):
        require_visible({"base": ref})
    require_visible({"base": ref.model_copy(update={"origin": "s3://bucket"})})


def test_a_worker_with_other_code_or_versions_is_refused(given: dict[str, StageRef]) -> None:
    here = lineage(SAMPLES, CONFIG, given)
    require_same("samples", here, here)
    for change, told in (
        ({"code": "other"}, r"^samples: the worker on .* has other code for this stage than the run; install"),
        ({"libraries": here["libraries"] | {"torch": "9.9.9"}}, r"other libraries .*, such as torch .* for 9\.9\.9; "),
        ({"config": here["config"] | {"seed": 7}}, r"other config .*, such as seed 0 for 7; "),
        ({"parents": here["parents"] | {"base": "other"}}, r"other parents .*, such as base \w+ for other; "),
        ({"stage": "scores"}, r"other stage for this stage than the run; "),
    ):
        with pytest.raises(StackError, match=told):
            require_same("samples", here | change, here)


def test_how_a_library_was_built_for_a_machine_is_left_to_the_machine(given: dict[str, StageRef]) -> None:
    here = lineage(SAMPLES, CONFIG, given)
    cpu, gpu = (here | {"libraries": {"torch": f"2.13.0+{build}"}} for build in ("cpu", "cu126"))
    require_same("samples", cpu, gpu)


def test_a_worker_writes_under_the_key_of_the_run_and_asks_for_no_slot(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own build of a library is in the key that it would have by itself."""
    wanted = lineage(SAMPLES, CONFIG, given)
    wanted["libraries"] = wanted["libraries"] | {"torch": wanted["libraries"]["torch"].partition("+")[0] + "+other"}
    told: dict[str, Any] = {}

    def run_stage(stage: Any, config: AlignConfig, refs: Any, **options: Any) -> StageRef:
        told.update(options, stage=stage.name)
        return given["base"]

    monkeypatch.setattr(workers, "run_stage", run_stage)
    compute_part((8, 16), "samples", CONFIG, given, wanted)
    assert told == {"stage": "samples", "part": (8, 16), "made_of": wanted, "is_placed": True}


def test_references_pass_as_json_and_are_looked_up_in_the_store_of_the_worker(given: dict[str, StageRef]) -> None:
    asked = named(given)
    assert asked["base"] == {"stage": "base", "key": "k1", "digest": given["base"].digest}
    assert look_up(asked) == {name: ref.model_copy(update={"cached": True}) for name, ref in given.items()}


@pytest.mark.parametrize(
    "change", [{"key": "k2"}, {"digest": "other"}, {"stage": "nothing"}, {"key": "../base/k1"}, {"stage": "../store"}]
)
def test_a_reference_to_what_this_store_has_not_is_refused(given: dict[str, StageRef], change: dict[str, str]) -> None:
    """Also one that would lead out of the store."""
    asked = named(given)
    asked["base"] |= change
    with pytest.raises(StoreError, match=r"^stage store: the worker on .* does not see .*; put PLUMBLINE_HOME"):
        look_up(asked)


def test_every_stage_in_parts_can_be_asked_for_by_its_name() -> None:
    assert {name for name, stage in PIPELINE.items() if stage.parts} == {"samples", "scores", "pairs", "validation"}
