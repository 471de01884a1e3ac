"""The benchmark of memory does what its rows are named after, at a size where that takes a moment."""

from pathlib import Path

import pytest

from benchmarks import memory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    memory.write_model(folder, tiny_of=64)
    return folder


@pytest.mark.parametrize("name", memory.ON_A_CPU)
def test_each_setting_runs_and_only_training_has_steps(name: str, tiny: Path) -> None:
    found = memory.prepare(name, str(tiny), str(tiny), pairs=1, tokens=16)()
    assert len(found["steps"]) == (memory.STEPS - 1 if "training" in name else 0)


@pytest.mark.parametrize("name", memory.ON_A_GPU)
def test_the_settings_of_a_gpu_are_ones_that_a_run_may_have(name: str) -> None:
    assert memory.config_of(name, 2, 16).dpo.steps == memory.STEPS


def test_the_plan_takes_texts_to_be_as_long_as_they_are_there() -> None:
    """Four texts a pair, in sampling and in scoring."""
    config = memory.config_of("scoring", 2, 16)
    assert (config.sampling.total_tokens, config.sampling.batch_tokens, config.dpo.batch_size) == (16, 128, 2)
