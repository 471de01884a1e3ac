"""How held-out pairs are ranked by the implicit reward, by hand, and what table, card and gates make of it."""

from typing import Any

import numpy as np
import pytest

from alignment.config import AlignConfig, EvaluationConfig, GatesConfig, build_config
from alignment.judging.card import gates_list, gates_table, result_list
from alignment.judging.gates import judge
from alignment.judging.model_card import model_card
from alignment.judging.preferences import preferences
from alignment.judging.report import Preferences
from tests.reports import make_report

RANKED = Preferences(pairs=200, left_out=0, accuracy=0.62, accuracy_ci=(0.55, 0.68), margin=0.4, margin_ci=(0.2, 0.6))
UNSURE = RANKED.model_copy(update={"accuracy_ci": (0.5, 0.7)})
WITHOUT: dict[str, Any] = {
    "compared": 0,
    "winners_mean": None,
    "unscored_base": 512,
    "unscored_aligned": 512,
    "aligned": {"reward_mean": None, "reward_sd": None},
    "base": {"reward_mean": None, "reward_sd": None},
    "delta": dict.fromkeys(
        ("reward_gain", "reward_gain_ci", "reward_gain_in_sd", "reward_sd_ratio", "win_rate", "win_rate_ci")
    ),
}


def test_accuracy_counts_ties_half_and_the_margin_is_in_units_of_beta():
    """Log-ratios of chosen 1, 0, 2 and of rejected 0, 0, 4: ranked, tied, and the wrong way round."""
    base = np.array([-5.0, -6.0, -7.0])
    found = preferences(
        (base + np.array([1.0, 0.0, 2.0]), base - 1 + np.array([0.0, 0.0, 4.0])),
        (base, base - 1),
        beta=0.5,
        left_out=2,
        config=EvaluationConfig(bootstrap=100),
        seed=0,
    )
    assert (found.pairs, found.left_out) == (3, 2)
    assert found.accuracy == pytest.approx(0.5)
    assert found.margin == pytest.approx(0.5 * (1 + 0 - 2) / 3)
    assert found.accuracy_ci[0] <= found.accuracy <= found.accuracy_ci[1]


def test_the_base_itself_ties_on_every_pair():
    logprobs = (np.array([-1.0, -2.0]), np.array([-3.0, -1.0]))
    found = preferences(logprobs, logprobs, beta=0.3, left_out=0, config=EvaluationConfig(), seed=0)
    assert (found.accuracy, found.accuracy_ci, found.margin) == (0.5, (0.5, 0.5), 0.0)


def test_one_pair_has_no_interval():
    one = (np.array([-1.0]), np.array([-2.0]))
    with pytest.raises(ValueError, match="two or more"):
        preferences(one, one, beta=0.3, left_out=0, config=EvaluationConfig(), seed=0)


@pytest.mark.parametrize(("found", "passes"), [(RANKED, True), (UNSURE, False)])
def test_the_lower_bound_of_the_accuracy_must_exceed_one_half(found, passes):
    judged = judge(make_report(preferences=found, **WITHOUT), GatesConfig())
    assert (judged.verdict == "pass") is passes
    assert [gate.name for gate in judged.gates if not gate.passed] == ([] if passes else ["preference_accuracy"])


def test_a_bound_of_ones_own():
    strict = GatesConfig(min_preference_accuracy=0.6)
    assert judge(make_report(preferences=RANKED, **WITHOUT), strict).verdict == "fail"


def test_without_any_measure_of_improvement_nothing_passes():
    judged = judge(make_report(**WITHOUT), GatesConfig())
    assert judged.verdict == "fail"
    assert judged.sentence == (
        "Not registered: number of measures of improvement 0.00 is below 1 (neither a reward nor held-out pairs say "
        "whether the model became better)."
    )


def test_gates_that_could_not_be_applied_are_told_and_the_others_judge():
    judged = judge(make_report(preferences=RANKED, **WITHOUT), GatesConfig())
    assert judged.not_applied == dict.fromkeys(("reward_gain", "win_rate", "reward_sd_ratio"), "no reward")
    assert judged.sentence == (
        "May be registered: 62.0% of 200 held-out pairs ranked as they were given (95% CI 55.0 to 68.0), and the text "
        "stays as fluent as the base (perplexity ratio 1.08, KL 0.05 nats per token). No reward is configured: reward "
        "gain, win rate and SD were not judged."
    )
    assert "| win rate | – | – | not applied | no reward |" in gates_table(judged)
    assert "- win rate: not applied, no reward" in gates_list(judged)


def test_with_a_reward_both_are_judged():
    judged = judge(make_report(preferences=UNSURE), GatesConfig())
    assert not judged.not_applied
    assert [gate.name for gate in judged.gates if not gate.passed] == ["preference_accuracy"]
    assert "reward +1.50 (95% CI 1.40 to 1.60) on held-out prompts, 62.0% of 200 held-out pairs" in (
        judge(make_report(preferences=RANKED), GatesConfig()).sentence
    )


def test_the_table_has_a_row_for_accuracy_and_margin_and_none_for_a_reward_that_is_not_there():
    told = result_list(make_report(preferences=RANKED, **WITHOUT))
    assert "- accuracy on 200 held-out pairs: 50.0% → 62.0%, 55.0% to 68.0%" in told
    assert "- margin of held-out pairs (implicit reward, nats): 0.00 → +0.40, +0.20 to +0.60" in told
    assert "- reward" not in told
    assert "won" not in told
    assert "without a reward" not in told
    assert "baseline" not in told


def test_the_card_says_how_it_was_judged():
    config = build_config(
        {
            "data": {"path": "pairs.jsonl"},
            "base": {"model": "some/model"},
            "prompts": {"source": "pairs"},
            "pairs": {"source": "given"},
            "reward": {"kind": "none"},
        }
    )
    report = make_report(preferences=RANKED, **WITHOUT)
    card = model_card(config, report, judge(report, config.gates), [], {})
    assert "given, as they stand in the data" in card
    assert "No reward is configured" in card
    assert "not that it writes such texts" in card
    assert "length may explain the wins" not in card
    sampled = make_report()
    assert "held-out pairs" not in model_card(AlignConfig(), sampled, judge(sampled, GatesConfig()), [], {})
