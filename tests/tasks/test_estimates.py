"""How long a stage will take: by the most alike of earlier runs, scaled by what is asked, and unknown without any."""

from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.stages.store import StageRef
from tasks import estimates
from tasks.estimates import Earlier, earlier_runs, items, seconds
from tasks.following import expected_progress
from tasks.home import store
from tasks.pipeline import PIPELINE

BASE = {"layers": 2, "width": 128, "steps": 450, "seed": 0}


def training(**dpo: Any) -> dict[str, Any]:
    return {"dpo": {"trainer": "dpo", "loss": "hinge", "beta": 0.5, "steps": 100, "batch_size": 8} | dpo, "seed": 0}


def test_nothing_is_known_without_an_earlier_run() -> None:
    assert seconds(training(), []) is None


def test_twice_the_steps_of_half_the_pairs_take_as_long() -> None:
    earlier = [Earlier(10.0, training())]
    assert seconds(training(), earlier) == 10.0
    assert seconds(training(steps=200), earlier) == 20.0
    assert seconds(training(steps=200, batch_size=4), earlier) == 10.0


def test_what_a_run_reads_of_the_amounts_is_what_its_time_goes_by() -> None:
    """With the fields that the stages do read: a step of twice the pairs, and twice the prompts on both sides."""

    def scaled(stage: str, before: dict[str, Any], after: dict[str, Any]) -> float | None:
        read = PIPELINE[stage].reads
        return seconds(
            read(AlignConfig.model_validate(after)), [Earlier(10.0, read(AlignConfig.model_validate(before)))]
        )

    batches = ({"dpo": {"global_batch": 8, "steps": 100}}, {"dpo": {"global_batch": 16, "steps": 300}})
    assert scaled("policy", *batches) == 60.0
    prompts = ({"prompts": {"count": 512, "eval_count": 128}}, {"prompts": {"count": 1024, "eval_count": 256}})
    assert scaled("prompts", *prompts) == 20.0


def test_a_reference_that_scores_takes_as_long_as_there_are_pairs() -> None:
    config = AlignConfig.model_validate({"prompts": {"count": 2048}})
    asked = items(config, "reference")
    assert asked == 2048  # the best against the worst sample of each prompt
    assert seconds({}, [Earlier(10.0, {}, {"scored": 512, "from_sampling": 0})], count="scored", asked=asked) == 40.0
    assert seconds({}, [Earlier(0.1, {}, {"scored": 0, "from_sampling": 512})], count="scored", asked=asked) == 0.1


def test_the_most_alike_is_taken_and_of_those_the_newest() -> None:
    newest, older, alike = Earlier(7.0, training(beta=0.1)), Earlier(8.0, training(beta=0.1)), Earlier(9.0, training())
    assert seconds(training(), [newest, alike, older]) == 9.0
    assert seconds(training(beta=0.2), [newest, older]) == 7.0


def test_another_precision_or_trainer_tells_nothing() -> None:
    earlier = [Earlier(10.0, training(precision="fp32"))]
    assert seconds(training(precision="bf16"), earlier) is None
    assert seconds(training(trainer="mine", precision="fp32"), earlier) is None


@pytest.mark.parametrize(
    ("base", "known"),
    [
        (BASE, True),
        (BASE | {"steps": 9, "seed": 7}, True),
        (BASE | {"layers": 3}, False),
        ({"hub": "some/model", "revision": "main"}, False),
    ],
)
def test_only_a_base_model_of_the_same_architecture_tells_something(base: dict[str, Any], known: bool) -> None:
    assert (seconds({}, [Earlier(3.0, {}, base=BASE)], base=base) is not None) is known


def test_a_base_whose_manifest_is_gone_tells_nothing() -> None:
    assert seconds({}, [Earlier(3.0, {})], base=BASE) is None


def test_samples_take_as_long_as_there_are_many() -> None:
    config = AlignConfig.model_validate({"prompts": {"count": 256, "eval_count": 64}})
    assert items(config, "samples") == 256 * 4
    assert items(config, "after") == 64 * 2
    assert items(config, "policy") == 0
    earlier = [Earlier(10.0, {}, {"samples": 2048})]
    assert seconds({}, earlier, count="samples", asked=items(config, "samples")) == 5.0


def test_a_manifest_says_what_was_read_made_and_written_with() -> None:
    manifest = {
        "seconds": 2.5,
        "counts": {"samples": 3},
        "inputs": {"config": {"a": 1}, "parents": {"base": "d"}},
    }
    bases = [{"digest": "d", "inputs": {"config": BASE}}]
    assert earlier_runs([manifest, {"seconds": None}, {}], bases) == [Earlier(2.5, {"a": 1}, {"samples": 3}, BASE)]


@pytest.mark.parametrize("missing", [None, [], "text", 3])
def test_a_manifest_that_lacks_a_part_tells_less_and_is_no_error(missing: Any) -> None:
    whole = {"seconds": 2.5, "counts": {"samples": 3}, "inputs": {"config": {"a": 1}, "parents": {"base": "d"}}}
    no_parents = {"config": {"a": 1}, "parents": missing}
    manifests = [whole | {"inputs": missing}, whole | {"inputs": no_parents}, whole | {"counts": missing}]
    bases = [{"digest": missing, "inputs": missing}, {"digest": "d", "inputs": {"config": BASE}}]
    assert earlier_runs(manifests, bases) == [Earlier(2.5, {"a": 1}, {"samples": 3}), Earlier(2.5, {"a": 1}, {}, BASE)]


def test_what_cannot_be_estimated_is_unknown_and_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OverflowError("integer division result too large for a float")

    monkeypatch.setattr(estimates, "seconds", fails)
    assert {stage.expected for stage in expected_progress(AlignConfig()).stages.values()} == {None}


def test_every_counted_stage_is_one_of_the_pipeline() -> None:
    assert estimates.COUNTED.keys() <= PIPELINE.keys()


def test_a_run_expects_what_its_stages_took_in_this_home() -> None:
    config = AlignConfig()

    def written(name: str, took: float, refs: dict[str, StageRef]) -> None:
        read = {"config": PIPELINE[name].reads(config), "parents": {n: r.digest for n, r in refs.items()}}
        store().write(name, "k", lambda _: {"samples": 512}, inputs=read, spent=took)

    written("base", 20.0, {})
    base = store().find("base", "k")
    assert base is not None
    written("before", 2.0, {"base": base})
    found = expected_progress(config).stages
    assert found["base"].expected == pytest.approx(20, abs=1)
    assert found["before"].expected == pytest.approx(2, abs=1)
    assert found["policy"].expected is None
