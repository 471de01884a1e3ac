"""The report: every figure of a four-sample evaluation worked out by hand, and the laws of a paired comparison."""

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import EvaluationConfig
from alignment.errors import ScoreError
from alignment.judging.comparison import Metrics, compare, drift, measure, reward_result
from alignment.judging.measured import Measured
from alignment.judging.report import Drift, EvalReport

CONFIG = EvaluationConfig(bootstrap=1_000, confidence=0.9)

BASE = Measured(
    prompt_ids=["a", "a", "b", "b"],
    completions=[[1, 2], [1, 3], [2, 2], [3, 1]],
    rewards=np.array([0.0, 2.0, 1.0, 1.0]),
    base_logprobs=np.array([-2.0, -2.0, -2.0, -2.0]),
    policy_logprobs=np.array([-2.0, -2.0, -2.0, -2.0]),
    finished=np.array([True, True, True, False]),
    texts=["12", "13", "22", "31"],
    judged={"grammatical": np.array([1.0, 1.0, 0.5, 0.5]), "gold_sentiment": np.array([1.0, -1.0, 0.5, 0.5])},
)
ALIGNED = Measured(
    prompt_ids=["b", "a", "b", "a"],
    completions=[[4, 4, 4, 4], [1, 2], [4, 4, 4, 4], [1, 2]],
    rewards=np.array([1.0, 3.0, 1.0, 3.0]),
    base_logprobs=np.array([-6.0, -3.0, -6.0, -3.0]),
    policy_logprobs=np.array([-4.0, -2.0, -4.0, -2.0]),
    finished=np.array([False, True, False, True]),
    texts=["4444", "12", "4444", "12"],
    judged={"grammatical": np.array([0.0, 1.0, 0.0, 1.0]), "gold_sentiment": np.array([0.0, 1.0, 0.0, 1.0])},
)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    from alignment.judging.hf_metrics import all_metrics

    return all_metrics()


def run(metrics: Metrics, base: Measured = BASE, aligned: Measured = ALIGNED, seed: int = 0) -> EvalReport:
    return compare(base, aligned, metrics=metrics, winners_mean=1.5, config=CONFIG, seed=seed)


def reordered(measured: Measured, order: list[int]) -> Measured:
    columns: dict[str, Any] = {
        name: column[order] if isinstance(column, np.ndarray) else [column[i] for i in order]
        for name, column in vars(measured).items()
        if name not in {"judged", "scored"}
    }
    return Measured(**columns, judged={name: column[order] for name, column in measured.judged.items()})


def test_one_model_by_hand(metrics: Metrics) -> None:
    """The aligned side: 12 tokens, counts 1:2 2:2 4:8.

    Rewards 3 3 1 1: mean 2, SD sqrt(4/3). Perplexity exp(18/12). Distinct: {1, 2, 4}, {12, 44}, {444} over 12.
    Repetition: only the two texts 4444 have 3-grams, 444 twice each: 1 - 1/2.
    """
    row = measure(ALIGNED, metrics)
    assert row.reward_mean == 2.0
    assert row.reward_sd == pytest.approx(math.sqrt(4 / 3))
    assert row.entropy == pytest.approx(-(2 * (1 / 6) * math.log(1 / 6) + (2 / 3) * math.log(2 / 3)))
    assert row.perplexity == pytest.approx(math.exp(1.5))
    assert (row.distinct_1, row.distinct_2, row.distinct_3) == pytest.approx((3 / 12, 2 / 12, 1 / 12))
    assert row.repetition == 0.5
    assert (row.length, row.finished, row.grammatical) == (3.0, 0.5, 0.5)
    assert (row.gold_sentiment, measure(BASE, metrics).gold_sentiment) == (0.5, 0.25)


def test_the_difference_by_hand(metrics: Metrics) -> None:
    """Prompt means a: 1 to 3, b: 1 to 1. Gains 2 and 0, so 1 on average; a win and a tie, so 3/4.

    With two prompts the resampled mean gain is 0, 1 or 2 and the win rate 1/2, 3/4 or 1: a 90% interval spans them.
    Base SD of 0 2 1 1 is sqrt(2/3), the aligned one sqrt(4/3): ratio sqrt 2. Perplexity exp(8/8) to exp(18/12).
    Log ratios of the aligned texts 2 1 2 1: 6/4 per sequence, 6/12 per token. Lengths a: 2 to 2, b: 2 to 4, so only a
    counts where lengths match. Grammar 0.75 to 0.5.
    """
    report = run(metrics)
    delta = report.delta
    assert (report.prompts, report.samples_per_prompt, report.winners_mean, report.confidence) == (2, 2, 1.5, 0.9)
    assert delta.reward_gain == 1.0
    assert delta.reward_gain_ci == (0.0, 2.0)
    assert delta.reward_gain_in_sd == pytest.approx(math.sqrt(1.5))
    assert delta.reward_sd_ratio == pytest.approx(math.sqrt(2))
    assert delta.win_rate == 0.75
    assert delta.win_rate_ci == (0.5, 1.0)
    assert delta.win_rate_length_matched == 1.0
    assert delta.reward_gain_at_equal_length == pytest.approx(2)  # of a, whose texts did not grow; b grew, and gained 0
    assert delta.perplexity_ratio == pytest.approx(math.exp(0.5))
    assert (delta.kl, delta.kl_per_token) == (1.5, 0.5)
    assert delta.entropy_change == pytest.approx(report.aligned.entropy - report.base.entropy)
    assert delta.length_change == 1.0
    assert delta.grammatical_change == -0.25


def test_a_model_against_itself_has_neither_gain_nor_distance(metrics: Metrics) -> None:
    delta = run(metrics, aligned=BASE).delta
    assert (delta.reward_gain, delta.reward_gain_ci, delta.win_rate) == (0.0, (0.0, 0.0), 0.5)
    assert (delta.reward_sd_ratio, delta.perplexity_ratio, delta.kl, delta.kl_per_token) == (1.0, 1.0, 0.0, 0.0)
    assert (delta.entropy_change, delta.length_change, delta.grammatical_change) == (0.0, 0.0, 0.0)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(4)))
def test_the_order_of_the_samples_does_not_matter(metrics: Metrics, order: list[int]) -> None:
    assert run(metrics, aligned=reordered(ALIGNED, order)) == run(metrics)


def test_the_interval_is_over_prompts_not_samples(metrics: Metrics) -> None:
    """Eight samples of each of two prompts, equal within a prompt: still two observations, so still 0 to 2."""
    base, aligned = (reordered(side, [0, 1, 2, 3] * 4) for side in (BASE, ALIGNED))
    report = run(metrics, base, aligned)
    assert (report.prompts, report.samples_per_prompt) == (2, 8)
    assert report.delta.reward_gain_ci == (0.0, 2.0)


def test_the_seed_decides_the_intervals_alone(metrics: Metrics) -> None:
    rng = np.random.default_rng(0)
    ids = [str(i) for i in range(30)]
    base, aligned = (
        Measured(
            prompt_ids=ids,
            completions=[[1, 2]] * 30,
            rewards=rng.normal(size=30),
            base_logprobs=np.full(30, -2.0),
            policy_logprobs=np.full(30, -2.0),
            finished=np.full(30, True),
            texts=[""] * 30,
        )
        for _ in range(2)
    )
    one, other = (run(metrics, base, aligned, seed) for seed in (1, 2))
    assert one == run(metrics, base, aligned, seed=1)
    assert one.delta.reward_gain_ci != other.delta.reward_gain_ci
    intervals = {"reward_gain_ci", "win_rate_ci", "reward_gain_at_equal_length_ci"}
    assert one.delta.model_dump(exclude=intervals) == other.delta.model_dump(exclude=intervals)


def test_grammar_is_reported_only_where_it_was_judged(metrics: Metrics) -> None:
    report = run(metrics, replace(BASE, judged={}), replace(ALIGNED, judged={}))
    assert report.base.get("grammatical") is None
    assert report.delta.get("grammatical_change") is None


def test_a_base_without_spread_gives_ratios_that_are_not_finite(metrics: Metrics) -> None:
    delta = run(metrics, base=replace(BASE, rewards=np.ones(4))).delta
    assert delta.reward_sd_ratio == math.inf
    assert delta.reward_gain_in_sd == math.inf


def test_a_report_with_values_that_are_not_finite_survives_json(metrics: Metrics) -> None:
    report = run(metrics, aligned=replace(ALIGNED, base_logprobs=np.full(4, -math.inf)))
    assert report.delta.perplexity_ratio == math.inf
    assert EvalReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("base", "aligned", "message"),
    [
        (BASE, replace(ALIGNED, prompt_ids=["a", "a", "c", "c"]), r"2 prompts were sampled from one model only.*'b'"),
        (BASE, replace(ALIGNED, prompt_ids=["a", "a", "a", "b"]), "prompts have 1 to 3 samples"),
        (BASE, replace(ALIGNED, judged={}), "one model only was judged"),
    ],
)
def test_sides_that_cannot_be_paired_are_refused(
    metrics: Metrics, base: Measured, aligned: Measured, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(metrics, base, aligned)


# Drift


UNJUDGED = replace(BASE, judged={})
"""The anchor's own samples: its log-probs are its own, and nobody judged their grammar."""


def test_drift_by_hand() -> None:
    """The anchor: 8 tokens at -8 nats, perplexity e; rewards 0 2 1 1, mean 1.

    The base's samples: the anchor gives them -10 nats, they gave themselves -8, over 8 tokens: KL 1/4, perplexity
    exp(10/8). The aligned ones: -18 against -12 over 12 tokens: KL 1/2, perplexity exp(18/12); rewards 3 3 1 1, mean 2.
    """
    base = replace(BASE, base_logprobs=np.array([-3.0, -3.0, -2.0, -2.0]))
    found = drift(UNJUDGED, base, ALIGNED)
    assert (found.base_kl_per_token, found.kl_per_token) == (0.25, 0.5)
    assert found.base_perplexity_ratio == pytest.approx(math.exp(0.25))
    assert found.perplexity_ratio == pytest.approx(math.exp(0.5))
    assert (found.anchor_reward_mean, found.reward_gain, found.base_reward_gain) == (1.0, 1.0, 0.0)


def test_a_base_that_is_the_anchor_has_not_drifted_and_the_rest_is_the_comparison_s(metrics: Metrics) -> None:
    found, delta = drift(UNJUDGED, BASE, ALIGNED), run(metrics).delta
    assert (found.base_kl_per_token, found.base_perplexity_ratio) == (0.0, 1.0)
    assert (found.kl_per_token, found.perplexity_ratio) == (delta.kl_per_token, delta.perplexity_ratio)
    assert found.reward_gain == delta.reward_gain


def test_a_text_that_the_anchor_cannot_write_is_infinitely_far_and_survives_json(metrics: Metrics) -> None:
    found = drift(UNJUDGED, BASE, replace(ALIGNED, base_logprobs=np.full(4, -math.inf)))
    assert (found.kl_per_token, found.perplexity_ratio) == (math.inf, math.inf)
    assert Drift.model_validate_json(found.model_dump_json()) == found
    report = run(metrics).model_copy(update={"drift": found})
    assert EvalReport.model_validate_json(report.model_dump_json()) == report


def test_a_report_that_was_written_before_drift_was_measured_can_be_read(metrics: Metrics) -> None:
    old = run(metrics).model_dump(mode="json", exclude={"drift"})
    assert EvalReport.model_validate(old).drift is None


@pytest.mark.parametrize("side", ["base", "aligned"])
def test_an_anchor_that_answered_other_prompts_is_refused(side: str) -> None:
    sides = {"base": BASE, "aligned": ALIGNED}
    sides[side] = replace(sides[side], prompt_ids=["a", "a", "c", "c"])
    with pytest.raises(ValueError, match="sampled from one model only"):
        drift(UNJUDGED, **sides)


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rewards for 4 prompt_ids"):
        replace(BASE, rewards=np.zeros(3))


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples to evaluate"):
        reordered(BASE, [])


def test_comparing_and_judging_import_neither_torch_nor_evaluate() -> None:
    code = "import sys, alignment.judging.comparison, alignment.judging.gates; sys.exit(bool({'torch', 'evaluate'} & set(sys.modules)))"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Samples without a reward


def test_figures_of_rewards_are_of_the_samples_that_have_one(metrics: Metrics) -> None:
    """Without the base's second sample of a: means 0 and 1 before, 3 and 1 after, so gains of 3 and 0."""
    base = replace(BASE, scored=np.array([True, False, True, True]))
    report = run(metrics, base=base)
    assert (report.prompts, report.compared, report.unscored_base, report.unscored_aligned) == (2, 2, 1, 0)
    assert report.base.reward_mean == pytest.approx((0 + 1 + 1) / 3)
    assert report.delta.reward_gain == pytest.approx((3 + 0) / 2)
    assert report.delta.win_rate == 0.75
    everything = run(metrics)
    for name in ("perplexity", "entropy", "length", "finished", "grammatical"):
        assert report.base.get(name) == everything.base.get(name)


def test_rewards_are_compared_on_prompts_that_have_one_on_both_sides(metrics: Metrics) -> None:
    third: dict[str, Any] = {"prompt_ids": ["a", "b", "c"], "completions": [[1]] * 3, "texts": [""] * 3, "judged": {}}
    columns: dict[str, Any] = {name: np.full(3, -1.0) for name in ("base_logprobs", "policy_logprobs")}
    sides = [
        replace(BASE, **third, **columns, finished=np.full(3, True), rewards=np.array(rewards), scored=np.array(scored))
        for rewards, scored in (
            ([1.0, 2.0, math.nan], [True, True, False]),
            ([2.0, 4.0, 9.0], [True, True, True]),
        )
    ]
    report = run(metrics, base=sides[0], aligned=sides[1])
    assert (report.prompts, report.compared) == (3, 2)
    assert report.delta.reward_gain == pytest.approx((1 + 2) / 2)
    assert report.aligned.reward_mean == 5.0
    with pytest.raises(
        ScoreError, match=r"^reward: 1 of the held-out prompts have a score for a sample of both models"
    ):
        run(metrics, replace(sides[0], scored=np.array([True, False, False])), sides[1])


def test_without_any_reward_its_figures_are_not_there(metrics: Metrics) -> None:
    none = np.zeros(4, dtype=bool)
    report = run(metrics, replace(BASE, scored=none), replace(ALIGNED, scored=none))
    assert (report.compared, report.has_reward) == (0, False)
    assert not [name for part in (report.base, report.delta) for name in part.names() if name.startswith("reward")]
    assert report.delta.get("win_rate") is None
    assert report.delta.kl_per_token == run(metrics).delta.kl_per_token


def test_another_reward_of_the_same_samples_has_its_own_gain_and_interval(metrics: Metrics) -> None:
    """By prompt: a from 0 to 4, b from 1 to 1; the base's sample without a score is left out."""
    scores = ([0.0, None, 1.0, 1.0], [1.0, 4.0, 1.0, 4.0])
    found = reward_result("second", BASE, ALIGNED, scores, config=CONFIG, seed=0)
    assert (found.name, found.weight, found.prompts, found.unscored_base, found.unscored_aligned) == (
        "second",
        None,
        2,
        1,
        0,
    )
    assert (found.base_mean, found.aligned_mean) == (pytest.approx(2 / 3), 2.5)
    assert found.gain == pytest.approx((4 + 0) / 2)
    assert found.gain_ci == (0.0, 4.0)
