"""Several processes train as one does, with equal losses and weights, and what one of them is asked or meets ends all.

They are started once, with all of the trainings. Their sums are taken in another order, so equal is to 1e-5 (of what
is larger than 1): metrics, and what the trained model predicts. Its weights are not compared, since AdamW makes a whole
step of the rounding of a gradient that is 0, such as that of a key's bias.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.environment import PROCESSES
from alignment.training.protocol import TrainingOutcome
from tests.alignment.training.small import checkpoints, gaps, make_config, make_pairs, stop, train

EXACT = 1e-5

CASES: dict[str, dict[str, Any]] = {
    "whole": {},  # ten pairs in steps of four: the last step of an epoch has two, one for each process
    "odd": {"config": {"global_batch": 3, "batch_size": 1}},  # the last has one: the other process has none
    "stopped": {"stopped": 1, "step": 5},
    "early": {"config": {"learning_rate": 0.1, "stop_chosen_drop": 1.0, "steps": 40}},
    "broken": {"is_broken": True},
    "begun_by_one": {},
    "sharded": {"config": {"processes": 2, "sharding": "fsdp"}},
    "sharded_and_stopped": {"config": {"processes": 2, "sharding": "fsdp"}, "stopped": 0, "step": 5},
    "sharded_and_rounded": {"config": {"processes": 2, "sharding": "fsdp", "precision": "bf16"}},
    "begun_by_one_and_sharded": {
        "config": {"processes": 2, "sharding": "fsdp", "global_batch": 4, "batch_size": 1},
    },
}
BEGUN = ("begun_by_one", "begun_by_one_and_sharded")


def run_group(folder: Path, processes: int = 2) -> "subprocess.CompletedProcess[str]":
    """Run the cases of a folder in a group of processes."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *("-m", "tests.alignment.training.ranks", str(folder)),
        ],
        env=os.environ | {PROCESSES: str(processes), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )


@dataclass(frozen=True)
class Trained:
    """A folder of trainings, and one process's own way to do them."""

    folder: Path
    build: Callable[..., Any]
    pairs: list[dict[str, Any]]

    def alone(self, case: str, work: Path) -> tuple[TrainingOutcome, torch.Tensor]:
        """The same training by this process."""
        model = self.build(0, width=16)
        changes = {"processes": 1, "sharding": "none"}
        outcome = train(model, self.pairs, make_config(**CASES[case].get("config", {}) | changes), work)
        return outcome, gaps(model, self.pairs)

    def by_group(self, case: str) -> dict[str, Any]:
        """How the group's ended."""
        found: dict[str, Any] = json.loads((self.folder / f"{case}.json").read_text())
        return found

    def require_same(self, case: str, outcome: TrainingOutcome, predicted: torch.Tensor) -> None:
        """Hold the group's training against one process's."""
        found = self.by_group(case)
        assert (found["steps"], found["stopped_early"]) == (outcome.steps, outcome.stopped_early)
        for row, expected in zip(found["history"], outcome.history, strict=True):
            assert row == pytest.approx(expected, rel=EXACT, abs=EXACT)
        model = self.build(0, width=16)
        model.load_state_dict(load_file(self.folder / f"{case}.safetensors"))
        require_close(gaps(model, self.pairs), predicted)


def require_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


@pytest.fixture(scope="module")
def trained(tiny_gpt2: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What a group has trained; what was begun by one process had been left at step 6 by this one."""
    folder = tmp_path_factory.mktemp("group")
    model = tiny_gpt2(0, width=16)
    pairs = make_pairs(model, 10)
    model.save_pretrained(folder / "model")
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "cases.json").write_text(json.dumps(CASES))
    for name in BEGUN:
        stop(tiny_gpt2(0, width=16), pairs, make_config(), folder / name, 5)
    ran = run_group(folder)
    assert ran.returncode == 0, ran.stderr[-3_000:]
    return Trained(folder, tiny_gpt2, pairs)


@pytest.mark.parametrize("case", ["whole", "odd", "early", "sharded", *BEGUN])
def test_a_group_trains_as_one_process_does(case: str, trained: Trained, tmp_path: Path) -> None:
    trained.require_same(case, *trained.alone(case, tmp_path))


@pytest.mark.parametrize("case", ["whole", "sharded", "sharded_and_rounded"])
def test_what_is_to_be_sharded_is(case: str, trained: Trained) -> None:
    assert trained.by_group(case)["sharded"] == case.startswith("sharded")


def test_a_sharded_model_rounds_what_autocast_rounds(trained: Trained, tmp_path: Path) -> None:
    """At the first step, before anything is learnt: as one process does to a tenth of what it is off by in bf16."""
    rounded, _ = trained.alone("sharded_and_rounded", tmp_path / "rounded")
    exact, _ = trained.alone("sharded", tmp_path / "exact")
    found, expected, fp32 = (
        history[0]["logps/chosen"]
        for history in (trained.by_group("sharded_and_rounded")["history"], rounded.history, exact.history)
    )
    assert abs(found - expected) < 0.1 * abs(expected - fp32)


@pytest.mark.parametrize("case", ["stopped", "sharded_and_stopped"])
def test_one_process_goes_on_from_where_a_group_stopped(case: str, trained: Trained, tmp_path: Path) -> None:
    """One of them was asked at step 5, and both stopped at 6, which is logged, with a checkpoint."""
    assert trained.by_group(case)["error"] == "Interrupted"
    assert [path.name for path in checkpoints(trained.folder / case)] == ["checkpoint-6"]
    undisturbed, predicted = trained.alone("whole", tmp_path)
    outcome, resumed = trained.alone("whole", trained.folder / case)
    require_close(resumed, predicted)
    for row, expected in zip(outcome.history, undisturbed.history, strict=True):
        assert row == pytest.approx(expected, rel=EXACT, abs=EXACT)


def test_a_loss_that_is_not_a_number_ends_all(trained: Trained) -> None:
    assert trained.by_group("broken")["error"] == "TrainingError"
    assert checkpoints(trained.folder / "broken") == []


@pytest.mark.full
def test_a_process_that_is_killed_ends_the_others_and_the_next_run_goes_on(
    tiny_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    """What was kept at step 4 is whole; nothing later is there."""
    model = tiny_gpt2(0, width=16)
    pairs = make_pairs(model, 10)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    (tmp_path / "cases.json").write_text(json.dumps({"killed": {"killed": 1, "step": 6}}))
    assert run_group(tmp_path).returncode != 0
    assert [path.name for path in checkpoints(tmp_path / "killed")] == ["checkpoint-4"]
    found = Trained(tmp_path, tiny_gpt2, pairs)
    _, predicted = found.alone("whole", tmp_path / "undisturbed")
    _, resumed = found.alone("whole", tmp_path / "killed")
    require_close(resumed, predicted)
