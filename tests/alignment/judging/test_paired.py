"""Two models on the same prompts: figures by hand, intervals by scipy, and what is never set against each other."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from alignment.judging.evaluated import Evaluated, gather
from alignment.judging.paired import OTHER_REWARDS, Figure, Paired, pair

LENGTHS = [2, 4]


def record(
    rewards: dict[str, list[float | None]], logprob: float = -1.0, base_logprob: float = -3.0, text: str = "t"
) -> Evaluated:
    """An evaluation of prompts with some samples each, of two and of four tokens in turn."""
    rows = [
        {
            "prompt_id": prompt,
            "prompt": f"{prompt} ",
            "index": index,
            "ids": list(range(LENGTHS[index % 2])),
            "completion": f"{text}{index}",
            "finished": True,
            "reward": reward,
            "logprob": logprob * (index + 1),
            "base_logprob": base_logprob * (index + 1),
        }
        for prompt, values in rewards.items()
        for index, reward in enumerate(values)
    ]
    table = pa.Table.from_pylist(rows).cast(
        pa.schema(
            [
                ("prompt_id", pa.string()),
                ("prompt", pa.string()),
                ("index", pa.int64()),
                ("ids", pa.list_(pa.int64())),
                ("completion", pa.string()),
                ("finished", pa.bool_()),
                ("reward", pa.float64()),
                ("logprob", pa.float64()),
                ("base_logprob", pa.float64()),
            ]
        )
    )
    return gather(table, table, {}, reward="r", base="b")


def compared(one: Evaluated, two: Evaluated, **options: Any) -> Paired:
    chosen = {"same_reward": True, "same_base": True, "resamples": 2_000, "confidence": 0.95, "seed": 0} | options
    return pair(one, two, **chosen)


def figures(found: Paired) -> dict[str, Figure]:
    return {each.name: each for each in found.figures}


def test_a_prompt_counts_once_with_the_mean_of_its_samples() -> None:
    """A: means 1 and 3. B: means 2 and 3.5. So +0.75 on average; B wins both."""
    found = figures(compared(record({"p": [0, 2], "q": [3, 3]}), record({"p": [2, 2], "q": [3, 4]})))
    assert (found["reward"].a, found["reward"].b, found["reward"].change) == (2.0, 2.75, 0.75)
    assert found["win_rate"].change == 1.0
    assert found["length"].change == 0.0


def test_kl_and_perplexity_are_those_of_all_tokens() -> None:
    """Samples of 2 and 4 tokens: the log-ratios sum to 2 + 4 nats in A and 1 + 2 in B, the base's to -3 - 6 in both."""
    found = figures(compared(record({"p": [0, 0], "q": [0, 0]}), record({"p": [0, 0], "q": [0, 0]}, logprob=-2.0)))
    assert (found["kl"].a, found["kl"].b) == (3.0, 1.5)
    assert found["kl_per_token"].a == pytest.approx(6 / 6)
    assert found["kl_per_token"].change == pytest.approx(-0.5)
    assert found["perplexity"].a == pytest.approx(math.exp(9 / 6))
    assert found["perplexity"].change == pytest.approx(1.0)


def test_intervals_are_the_bootstrap_s() -> None:
    """scipy draws other random numbers, so the ends agree within the bootstrap's own error."""
    rng = np.random.default_rng(1)
    before, after = rng.normal(0.0, 1.0, 60), rng.normal(0.4, 1.0, 60)
    names = [f"p{number:02}" for number in range(60)]
    one = record({name: [value] for name, value in zip(names, before.tolist(), strict=True)})
    two = record({name: [value] for name, value in zip(names, after.tolist(), strict=True)})
    found = figures(compared(one, two))["reward"]
    expected = stats.bootstrap(((after - before),), np.mean, method="percentile", rng=2, n_resamples=20_000)
    assert found.interval == pytest.approx(expected.confidence_interval, abs=0.03)
    assert found.differs == (not expected.confidence_interval.low <= 0 <= expected.confidence_interval.high)


def test_a_ratio_of_sums_has_the_interval_of_whole_prompts() -> None:
    rng = np.random.default_rng(3)
    names = [f"p{number:02}" for number in range(50)]
    one, two = (record({name: [0.0] for name in names}) for _ in range(2))
    surprise = rng.uniform(2.0, 6.0, 50)
    place = two.table.column_names.index("base_logprob")
    two = Evaluated(
        two.table.set_column(place, "base_logprob", pa.array([*-surprise, *-surprise], pa.float64())),
        "r",
        "b",
        50,
        50,
        50,
    )
    found = figures(compared(one, two))["perplexity"]
    expected = stats.bootstrap(
        (surprise,),
        lambda x, axis: np.exp((x.mean(axis=axis) - 3.0) / 2),
        method="percentile",
        rng=2,
        n_resamples=20_000,
    )
    assert found.change == pytest.approx(math.exp((surprise.mean() - 3.0) / 2))
    assert found.interval == pytest.approx(expected.confidence_interval, abs=0.05)


def test_scores_of_different_rewards_are_not_set_against_each_other() -> None:
    found = compared(record({"p": [0.0], "q": [1.0]}), record({"p": [5.0], "q": [6.0]}), same_reward=False)
    assert figures(found).keys() == {"kl", "kl_per_token", "perplexity", "length"}
    assert found.notes == (OTHER_REWARDS,)
    assert [each.gain for each in found.samples] == [None, None]
    assert not found.gains(5)


def test_log_probs_under_different_bases_are_not_set_against_each_other() -> None:
    found = compared(record({"p": [0.0], "q": [1.0]}), record({"p": [5.0], "q": [6.0]}), same_base=False)
    assert figures(found).keys() == {"reward", "win_rate", "length"}


def test_prompts_of_one_record_alone_are_left_out_and_counted() -> None:
    found = compared(record({"p": [0.0], "q": [1.0], "r": [0.0]}), record({"q": [2.0], "r": [0.0], "s": [9.0]}))
    assert found.prompts == 2
    assert figures(found)["reward"].change == 0.5
    assert found.notes == ("2 prompts are in one of the records only, and are left out.",)


def test_a_sample_without_a_score_counts_for_nothing() -> None:
    found = compared(record({"p": [None, 1.0], "q": [1.0, 1.0]}), record({"p": [2.0, 2.0], "q": [None, None]}))
    assert figures(found)["reward"].change == 1.0, "p alone is scored on both sides"
    assert figures(found)["reward"].interval is None, "of one prompt"
    assert [each.gain for each in found.samples] == [None, 1.0, None, None]


def test_no_shared_prompt_gives_no_figure() -> None:
    found = compared(record({"p": [0.0]}), record({"q": [0.0]}))
    assert (found.prompts, found.figures, found.samples) == (0, (), ())


def test_samples_stand_side_by_side_by_what_they_gain() -> None:
    found = compared(
        record({"p": [0.0, 0.0], "q": [0.0, 0.0]}), record({"p": [1.0, -2.0], "q": [3.0, 0.0]}, text="better")
    )
    assert [(each.id, each.gain) for each in found.gains(5)] == [("q-0", 3.0), ("p-0", 1.0)]
    assert [(each.id, each.gain) for each in found.losses(5)] == [("p-1", -2.0)]
    best = found.gains(1)[0]
    assert (best.one.aligned, best.two.aligned) == ("q t0", "q better0")
