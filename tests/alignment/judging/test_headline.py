"""The few figures that a verdict is told by."""

from alignment.judging.headline import headlines
from alignment.judging.report import Preferences
from tests.reports import make_report


def test_five_figures_tell_a_verdict() -> None:
    found = {each.name: each.text for each in headlines(make_report())}
    assert found == {
        "reward_gain": "+1.50 (+1.40 to +1.60)",
        "win_rate": "93.0% (90.0% to 96.0%)",
        "perplexity_ratio": "×1.08",
        "kl_per_token": "0.050",
        "length_change": "+3.0",
    }


def test_the_short_text_has_no_interval() -> None:
    assert headlines(make_report())[0].short == "+1.50"


def test_without_a_reward_the_ranking_of_held_out_pairs_comes_first() -> None:
    found = Preferences(pairs=10, left_out=0, accuracy=0.7, accuracy_ci=(0.6, 0.8), margin=0.4, margin_ci=(0.2, 0.6))
    missing = dict.fromkeys(("reward_gain", "reward_gain_ci", "win_rate", "win_rate_ci"))
    report = make_report(delta=missing, compared=0, preferences=found)
    assert [each.name for each in headlines(report)] == [
        "preference_accuracy",
        "preference_margin",
        "perplexity_ratio",
        "kl_per_token",
        "length_change",
    ]
