"""Memory that is too small for a stage is told in one line, with what the stage needs and what helps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import capacity
from alignment.capacity import Device
from alignment.config import AlignConfig, build_config
from alignment.errors import ModelError, OutOfMemoryError
from alignment.models import using
from alignment.stages.job import Counts, Job
from alignment.stages.parts import fill
from alignment.stages.stage import stage


def on_a_card() -> None:
    with using("base.model mine", "training"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def on_a_card_outside_of_the_model() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def on_a_cpu() -> None:
    torch.empty(2**60)


def of_python() -> None:
    raise MemoryError


def stage_that(raises: Callable[[], None], slots: int) -> Any:
    @stage(title="", needs=(), reads=lambda _: {}, makes=lambda _: "", slots=slots)
    def policy(_: Job) -> Counts:
        raises()
        return {}

    return policy


def fill_it(raises: Callable[[], None], config: AlignConfig, folder: Path, slots: int = 1) -> None:
    fill(stage_that(raises, slots), Job(config, {}, folder, folder, folder))


@pytest.mark.parametrize("raises", [on_a_card, on_a_card_outside_of_the_model, on_a_cpu, of_python])
def test_wherever_it_is_raised(raises: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "device", lambda: Device("cuda", "Card A", 10**9))
    with pytest.raises(OutOfMemoryError) as raised:
        fill_it(raises, build_config({}), tmp_path)
    told = str(raised.value)
    assert told.startswith("policy: the memory of Card A with 1.0 GB is too small; it needs about 33 MB (weights 2 MB")
    assert told.endswith(
        ": set dpo.batch_size to 4 and dpo.accumulation to 2, then dpo.gradient_checkpointing to true, then "
        "dpo.adapter to lora (about 12 MB with all of them)"
    )
    assert "\n" not in told


def test_of_a_stage_that_uses_no_gpu_it_is_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "device", lambda: Device("cuda", "Card A", 10**9))
    monkeypatch.setattr(capacity, "machine_memory", lambda: 2 * 10**9)
    with pytest.raises(OutOfMemoryError, match=r"^policy: the memory of this machine with 2\.0 GB is too small; it"):
        fill_it(on_a_cpu, build_config({}), tmp_path, slots=0)


def test_without_an_estimate_the_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"is too small; set dpo\.batch_size"):
        fill_it(on_a_card, build_config({"base": {"model": "some/model"}}), tmp_path)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def broken() -> None:
        raise ModelError("no weights")

    with pytest.raises(ModelError, match="no weights"):
        fill_it(broken, build_config({}), tmp_path)
