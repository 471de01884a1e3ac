"""What a frontier gathers: each reward by itself, its ceiling once for each seed, and what is shown of several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config import FrontierConfig, PointConfig, frontier_configs
from alignment.errors import ScoreError
from alignment.judging import ceiling
from alignment.judging.frontier import FrontierPoint, Reference
from alignment.judging.frontier_page import frontier_page
from alignment.rows import SCORES
from alignment.stages.store import StageRef, write_json
from alignment.stages.trajectory_report import OF_BASE
from flows.cli.frontier import show_shares
from tasks.frontier import Gathered, in_words, record
from tasks.registry import records
from tests.alignment.chain import config
from tests.alignment.judging.test_frontier import point
from tests.flows.cli.screen import screen

PROMPTS, SAMPLES = 6, 32


def settings(seed: int) -> PointConfig:
    given = FrontierConfig(losses=("hinge",), betas=(0.5,), seeds=(seed,), ceiling_samples=SAMPLES)
    (found,) = frontier_configs(config(sampling={"top_k": 0}), given)
    return found


def rewards(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(PROMPTS, SAMPLES))


@pytest.fixture
def stages(tmp_path: Path) -> Any:
    """The finished stages of a seed, whose reference's samples have these rewards by a reward of this digest."""

    def made(name: str, reward: str, values: Any) -> dict[str, StageRef]:
        folder = tmp_path / name
        folder.mkdir()
        ids = [f"p{row}" for row in range(len(values)) for _ in values[row]]
        flat = [value if np.isfinite(value) else None for row in values for value in row]
        pq.write_table(pa.table({"prompt_id": ids, "reward": flat}), folder / SCORES.file)
        write_json(folder / OF_BASE, Reference(0.0, 0.1, 5.0, 0.5, 20.0, PROMPTS, 2).row())
        own = {"reward": reward}
        return {
            stage: StageRef(stage=stage, key="k", path=folder, digest=own.get(stage, name), counts={}, seconds=0.0)
            for stage in ("reward", "reference_samples", "trajectory_report")
        }

    return made


def trained(seed: int, reward: float, kl: float = 0.9) -> list[FrontierPoint]:
    return [point(kl, reward, seed=seed)]


@pytest.fixture
def two_rewards(stages: Any) -> Gathered:
    """Seed 1 has ten times the rewards of seed 0, and a policy that gained as much of them."""
    gathered = Gathered()
    gathered.add(settings(0), trained(0, 0.5), stages("first", "one", rewards(0)))
    gathered.add(settings(1), trained(1, 5.0), stages("second", "another", 10 * rewards(0)))
    return gathered


def test_seeds_whose_reward_models_differ_have_ceilings_of_their_own(two_rewards: Gathered) -> None:
    one, other = two_rewards.found
    assert (one.seeds, other.seeds) == ("seed 0", "seed 1")
    assert other.reference.reward == pytest.approx(10 * one.reference.reward)
    assert other.best_of_n[-1].reward == pytest.approx(10 * one.best_of_n[-1].reward)
    shares = [found.share(1.0).fraction for found in two_rewards.found]
    assert shares[0] is not None
    assert 0.2 < shares[0] < 1
    assert shares[1] == pytest.approx(shares[0], rel=0.02), "units cancel out of a share of the gain"


def test_seeds_with_one_reward_are_one_frontier(stages: Any) -> None:
    gathered = Gathered()
    for seed in (0, 1):
        gathered.add(settings(seed), trained(seed, 0.5 + seed), stages(f"seed {seed}", "given", rewards(seed)))
    (found,) = gathered.found
    assert found.seeds == "seeds 0, 1"
    assert [each.reward for each in found.points] == [0.5, 1.5]
    assert (found.reference.prompts, found.reference.samples) == (2 * PROMPTS, SAMPLES)
    assert found.reference.reward == pytest.approx(np.mean([rewards(0), rewards(1)]))


def test_the_ceiling_is_computed_once_for_each_seed(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = ceiling.ceiling

    def counting(values: Any, betas: Any) -> Any:
        computed.append(len(values))
        return compute(values, betas)

    monkeypatch.setattr(ceiling, "ceiling", counting)
    gathered, refs = Gathered(), [stages(f"seed {seed}", "given", rewards(seed)) for seed in (0, 1)]
    for seed, reward in ((0, 0.1), (0, 0.2), (1, 0.3), (1, 0.4)):
        gathered.add(settings(seed), trained(seed, reward), refs[seed])
    assert computed == [PROMPTS, 2 * PROMPTS]
    assert [each.reward for each in gathered.found[0].points] == [0.1, 0.2, 0.3, 0.4]


def test_prompts_that_are_left_out_are_told(stages: Any) -> None:
    """Of one prompt three samples have no score, of another all but one."""
    values = rewards(0)
    values[0, 5:8] = values[1, 1:] = np.nan
    gathered = Gathered()
    gathered.add(settings(0), trained(0, 0.5), stages("gaps", "one", values))
    (found,) = gathered.found
    reference = found.reference
    assert (reference.prompts, reference.samples, reference.left_out) == (PROMPTS - 1, SAMPLES - 3, 1)
    text = frontier_page(found.points, found.ceiling, found.best_of_n, reference, settings(0).gates)
    assert "5 held-out prompts; 1 left out of the ceiling, with too few scores" in text


def test_too_few_scores_for_a_ceiling_are_a_fault_of_the_reward(stages: Any) -> None:
    values = rewards(0)
    values[1:] = np.nan
    with pytest.raises(ScoreError, match=r"reward\.kind = classifier: 1 held-out prompt has a score for 32 of"):
        Gathered().add(settings(0), trained(0, 0.5), stages("none", "one", values))


# What is shown of several rewards


def test_in_words_each_seed_has_its_share_and_no_reward_is_the_best(two_rewards: Gathered) -> None:
    found = [replace(each, ceiling=_ceiling(each, {3: 0.25})) for each in two_rewards.found]
    assert in_words(found) == (
        "2 policies of 2 trainings; of the gain that is possible within 3 nats the best policy has 25.0% with seed 0, "
        "25.0% with seed 1: 25.0% in the mean. Each seed's reward has a scale of its own, so rewards of two seeds do "
        "not compare."
    )
    assert "of the gain" not in in_words([replace(each, ceiling=()) for each in found])


def test_the_terminal_has_the_share_of_each_seed_and_their_mean(two_rewards: Gathered) -> None:
    one, other = two_rewards.found
    found = [
        replace(one, ceiling=_ceiling(one, {1: 0.5, 2: 0.4, 3: 0.25, 5: 0.2, 10: 0.1})),
        replace(other, ceiling=_ceiling(other, {1: 0.25, 2: 0.2, 3: 0.15, 5: 0.1}, trusted=False)),
    ]
    text = screen(lambda console: show_shares(found, console), 80)
    assert [" ".join(line.split()) for line in text.splitlines()][1:5] == [
        "trained with 1 2 3 5 10",
        "seed 0 50.0% 40.0% 25.0% 20.0% 10.0%",
        "seed 1 ~25.0% ~20.0% ~15.0% ~10.0% –",
        "in the mean ~37.5% ~30.0% ~20.0% ~15.0% –",
    ]


def test_each_reward_has_a_page_and_a_figure_that_say_whose_they_are(
    two_rewards: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(records, "log_json", lambda _, name, value: kept.update({name: value}))
    monkeypatch.setattr(records, "log_text", lambda _, name, value: kept.update({name: value}))
    monkeypatch.setattr(records, "log_figures", lambda _, found: kept.update(found))
    record.fn("run", two_rewards.found, settings(0))
    assert set(kept) == {"frontier.json", "frontier.html", "frontier", "frontier-seed-1.html", "frontier-seed-1"}
    for seed, stem in enumerate(("frontier", "frontier-seed-1")):
        assert f"Reward against distance from the reference, seed {seed}" in kept[f"{stem}.html"]
        assert f"seed {seed}; other seeds&#39; rewards have scales of their own" in kept[f"{stem}.html"]
        assert kept[stem].axes[0].get_title(loc="left").endswith(f"seed {seed}")
    kept.clear()
    record.fn("run", two_rewards.found[:1], settings(0))
    assert set(kept) == {"frontier.json", "frontier.html", "frontier"}
    assert "seed 0;" not in kept["frontier.html"]


def _ceiling(found: Any, parts: dict[int, float], *, trusted: bool = True) -> Any:
    """A ceiling of whose gain at each KL the policy of `found` has such a part."""
    start, first = found.reference.reward, found.ceiling[0]
    gain = found.points[0].reward - start
    return tuple(replace(first, kl=kl, reward=start + gain / part, trusted=trusted) for kl, part in parts.items())
