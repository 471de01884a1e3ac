"""A policy measured on its way: the training of the stage `policy`, its samples, and what is left by a crash."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from alignment import models
from alignment.config import AlignConfig, FrontierConfig, PointConfig, frontier_configs
from alignment.errors import Interrupted
from alignment.stages import evaluating
from alignment.stages import trajectory as module
from alignment.stages.job import Job
from alignment.stages.plan import key_of
from alignment.stages.store import StageRef, digest_folder
from tasks.pipeline import FRONTIER, PIPELINE, STAGES
from tests.alignment.chain import HELD_OUT, Chain, config
from tests.alignment.conftest import read_rows

EVALUATED = [2, 4, 5]
SAMPLES = 2 * HELD_OUT
DRAWN = 3  # the reference's samples of each prompt


def settings(**dpo: Any) -> PointConfig:
    """Five steps, measured after two and four and at the end, with a checkpoint at every step."""
    whole = config(sampling={"top_k": 0}, dpo={"steps": 5, "checkpoint_every": 1, **dpo})
    given = FrontierConfig(losses=(whole.dpo.loss,), betas=(whole.dpo.beta,), evaluate_every=2, ceiling_samples=DRAWN)
    (point,) = frontier_configs(whole, given)
    return point


def start(chain: Chain, root: Path, wanted: AlignConfig) -> Chain:
    root.mkdir(exist_ok=True)
    folders = {name: chain.folders[name] for name in ("texts", "base", "reward", "prompts", "scores", "reference")}
    return Chain(root, wanted, folders, earlier=chain.counts)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where every policy that is measured is kept by its step, beside what the stage does with it."""
    folder, measure = tmp_path_factory.mktemp("kept"), module._measure

    def keeping(job: Job, step: int, total: int) -> None:
        snapshot = job.work / module.SNAPSHOTS / str(step)
        if snapshot.exists():
            shutil.copytree(snapshot, folder / str(step), dirs_exist_ok=True)
        measure(job, step, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_measure", keeping)
        yield folder


@pytest.fixture(scope="module")
def walk(chain: Chain, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The policy and its own samples as a run makes them, and the stages of a frontier."""
    made = start(chain, tmp_path_factory.mktemp("walk"), settings())
    for name in ("policy", "before", "after", "trajectory", "trajectory_report"):
        made.folders[name] = made.run(name)
    made.folders["reference_samples"] = made.run("reference_samples")
    return made


def of_step(rows: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    return [row for row in rows if row["step"] == step]


@pytest.fixture(scope="module")
def rows(walk: Chain) -> list[dict[str, Any]]:
    return read_rows(walk.folders["trajectory"] / "trajectory.parquet")


def test_it_is_measured_every_so_many_steps_and_at_the_end(walk: Chain, rows: list[dict[str, Any]]) -> None:
    assert [(step, len(of_step(rows, step))) for step in EVALUATED] == [(step, SAMPLES) for step in EVALUATED]
    assert walk.counts["trajectory"] == {
        "evaluations": 3,
        "samples": 3 * SAMPLES,
        "steps": 5,
        "stopped_early": 0,
    }
    assert len(rows) == 3 * SAMPLES
    assert not list((walk.root / "work-trajectory" / module.SNAPSHOTS).iterdir()), "what was measured is not kept"


def test_the_training_is_that_of_the_policy_to_the_bit(walk: Chain, kept: Path) -> None:
    """Evaluations take no random numbers from it, and leave nothing behind in it."""
    folder = walk.folders["policy"]
    last = kept / "5" / "model.safetensors"
    assert last.read_bytes() == (folder / "model" / "model.safetensors").read_bytes()
    history = [json.loads((walk.folders[name] / "history.json").read_text()) for name in ("trajectory", "policy")]
    assert history[0] == history[1]


def test_the_last_samples_are_those_that_the_finished_policy_gives(walk: Chain, rows: list[dict[str, Any]]) -> None:
    """The same prompts and random numbers as in a run's own evaluation."""
    after = read_rows(walk.folders["after"] / "samples.parquet")
    for row, other in zip(of_step(rows, 5), after, strict=True):
        for name in ("logprob", "base_logprob"):
            assert row[name] == pytest.approx(other.pop(name), abs=1e-3)
        assert {name: row[name] for name in other} == other


def test_the_kl_is_that_of_a_plain_forward_of_both_models(walk: Chain, kept: Path, rows: list[dict[str, Any]]) -> None:
    base = models.load_base(walk.folders["base"] / "model").model
    for step in (2, 5):
        policy = models.load_base(kept / str(step)).model
        for row in of_step(rows, step)[:3]:
            ids = torch.tensor([[*row["prompt_ids"], *row["ids"]]])
            with torch.inference_mode():
                own, others = (
                    Categorical(logits=model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1].double())
                    for model in (policy, base)
                )
            assert row["kl"] == pytest.approx(float(kl_divergence(own, others).sum()), abs=1e-4)


def test_an_adapter_is_merged_for_each_evaluation_and_trained_as_before(
    chain: Chain, kept: Path, tmp_path: Path
) -> None:
    walk = start(chain, tmp_path / "lora", settings(adapter="lora", adapter_rank=2, steps=4))
    policy, _ = walk.run("policy"), walk.run("trajectory")
    assert (kept / "4" / "model.safetensors").read_bytes() == (policy / "model" / "model.safetensors").read_bytes()


# What a crash leaves


@pytest.mark.parametrize(
    ("at", "error"),
    [(2, KeyboardInterrupt), (5, KeyboardInterrupt), (4, Interrupted), (5, Interrupted)],
    ids=["killed at the first", "killed at the last", "asked to stop", "asked to stop at the last"],
)
def test_what_was_measured_survives_and_the_rest_comes_out_as_without_a_crash(
    chain: Chain, walk: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException]
) -> None:
    """It ends while the samples of an evaluation are scored, and goes on from its last checkpoint."""
    resumed = start(chain, tmp_path / "resumed", settings())
    seen: list[int] = []
    write = evaluating.write_judged

    def crash(job: Job, table: Any, folder: Path, found: Any) -> Any:
        if folder.name == f".{at}":
            raise error("stopped")
        seen.append(int(folder.name[1:]))
        return write(job, table, folder, found)

    monkeypatch.setattr(evaluating, "write_judged", crash)
    with pytest.raises(error):
        resumed.run("trajectory")
    assert seen == [step for step in EVALUATED if step < at]
    monkeypatch.setattr(evaluating, "write_judged", _counting(write, seen))
    job = job_of(resumed, "trajectory")
    assert STAGES["trajectory"].body(job) == walk.counts["trajectory"]
    assert sorted(seen) == EVALUATED, "each was measured once"
    assert digest_folder(job.out) == digest_folder(walk.folders["trajectory"])


def test_a_stop_that_is_asked_for_where_a_policy_is_due_loses_none(chain: Chain, walk: Chain, tmp_path: Path) -> None:
    """The training keeps a checkpoint of that step, so nothing would come by there again."""

    def ask(done: int, _: int) -> None:
        if done >= EVALUATED[0]:
            raise Interrupted("stopped")

    stopped = start(chain, tmp_path / "stopped", settings())
    for folder in ("trajectory", "work-trajectory"):
        (stopped.root / folder).mkdir()
    with pytest.raises(Interrupted):
        STAGES["trajectory"].body(replace(job_of(stopped, "trajectory"), progress=ask))
    job = job_of(stopped, "trajectory")
    assert STAGES["trajectory"].body(job) == walk.counts["trajectory"]
    assert digest_folder(job.out) == digest_folder(walk.folders["trajectory"])


def _counting(write: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    def counted(job: Job, table: Any, folder: Path, found: Any) -> Any:
        seen.append(int(folder.name[1:]))
        return write(job, table, folder, found)

    return counted


def job_of(chain: Chain, name: str) -> Job:
    """The job of a stage that was begun before, in the same folders."""
    inputs = {need: chain.folders[need] for need in STAGES[name].needs(chain.config)}
    work = chain.root / f"work-{name}"
    return Job(chain.config, inputs, chain.root / name, work, chain.root / "kept", dict.fromkeys(inputs, ""))


# The reference's samples, and the report


def test_the_reference_is_sampled_often_on_each_held_out_prompt(walk: Chain) -> None:
    found = read_rows(walk.folders["reference_samples"] / "scores.parquet")
    before = read_rows(walk.folders["before"] / "samples.parquet")
    prompts = list(dict.fromkeys(row["prompt_id"] for row in before))
    assert [row["prompt_id"] for row in found] == [prompt for prompt in prompts for _ in range(DRAWN)]
    assert walk.counts["reference_samples"] == {"samples": DRAWN * HELD_OUT, "unscored": 0}
    same = {(row["prompt_id"], tuple(row["ids"])) for row in found} & {
        (row["prompt_id"], tuple(row["ids"])) for row in before
    }
    assert len(same) < len(before) / 2, "with random numbers of its own"


def test_the_reference_is_cut_into_as_many_samples_as_the_others(walk: Chain) -> None:
    """Shards of five prompts with two samples each: three prompts with three."""
    parts = STAGES["reference_samples"].parts
    assert parts is not None
    refs: Any = {"prompts": type("Ref", (), {"counts": {"eval": HELD_OUT}})}
    assert parts.split(walk.config, refs) == [(0, 3), (3, 6)]


def test_the_report_has_each_step_with_errors_over_prompts(walk: Chain, rows: list[dict[str, Any]]) -> None:
    folder = walk.folders["trajectory_report"]
    standings = json.loads((folder / "standings.json").read_text())
    assert [each["step"] for each in standings] == EVALUATED
    for each in standings:
        found = of_step(rows, each["step"])
        by_prompt = np.array([row["kl"] for row in found]).reshape(HELD_OUT, 2).mean(1)
        assert each["kl"] == pytest.approx(by_prompt.mean())
        assert each["kl_se"] == pytest.approx(by_prompt.std(ddof=1) / HELD_OUT**0.5)
        assert each["reward"] == pytest.approx(np.mean([row["reward"] for row in found]))
        sampled = np.mean([row["logprob"] - row["base_logprob"] for row in found])
        assert each["kl_sampled"] == pytest.approx(sampled) == pytest.approx(each["report"]["delta"]["kl"])
    reference = json.loads((folder / "reference.json").read_text())
    assert (reference["prompts"], reference["samples"]) == (HELD_OUT, 2)


# What is computed again


def test_each_setting_moves_what_reads_it_and_no_more() -> None:
    def keys(evaluation: Any = None, **changes: Any) -> dict[str, str]:
        frontier = {"losses": ("hinge",), "betas": (0.5,), **changes}
        whole = config(sampling={"top_k": 0}, evaluation=evaluation or {})
        (point, *_) = frontier_configs(whole, FrontierConfig(**frontier))
        refs = {name: StageRef(stage=name, key="k", path=Path(), digest="d", counts={}, seconds=0.0) for name in STAGES}
        return {name: key_of(stage, point, refs) for name, stage in FRONTIER.items()}

    before = keys()

    def moved(**changes: Any) -> set[str]:
        after = keys(**changes)
        return {name for name in before if before[name] != after[name]}

    assert moved(evaluate_every=3) == {"trajectory"}
    assert moved(ceiling_samples=9) == {"reference_samples"}
    assert moved(held_out=3) == {"trajectory", "reference_samples"}
    assert moved(betas=(0.1,)) == moved(losses=("sigmoid",)) == {"trajectory"}
    assert moved(betas=(0.5, 0.1)) == set()
    assert moved(evaluation={"bootstrap": 500}) == {"trajectory_report"}
    others = {"real_texts": "grammar", "real_rows": 100, "tasks": ("arc_easy",), "task_rows": 9, "table_rows": 5}
    assert moved(evaluation=others) == set(), "what other stages of a run find"
    gold = {"name": "other", "kind": "classifier", "model": "a/b"}
    assert moved(evaluation={"gold": [gold], "gold_fraction": 0.3}) == set()


def test_what_both_pipelines_have_is_one() -> None:
    """So a run finds what a frontier computed, and a frontier what a run did."""
    assert all(PIPELINE[name] is stage for name, stage in FRONTIER.items() if name in PIPELINE)
    assert set(FRONTIER) - set(PIPELINE) == {"trajectory", "trajectory_report", "reference_samples"}
