"""A sweep's grid, what becomes of its points, and which of them wins."""

import math
from dataclasses import replace
from typing import Any

import pytest

from alignment.config import AlignConfig, GridConfig, flatten
from alignment.errors import ConfigError
from alignment.judging.grid import Point, best_point, grid_configs, point_rows
from alignment.judging.report import GateResult, Judgement, Preferences
from tests.alignment.chain import keys
from tests.reports import make_report

FAILED = GateResult(name="kl_per_token", value=0.3, low=None, high=0.2, passed=False, why="far")


def point(passed: bool = True, run_id: str = "r", **delta: Any) -> Point:
    report = make_report(delta={"kl_per_token": 0.061} | delta)
    sentence = "May be registered." if passed else "Not registered: KL."
    judgement = Judgement(verdict="pass" if passed else "fail", sentence=sentence, gates=() if passed else (FAILED,))
    return Point("hinge", 0.5, 3e-4, run_id, report, judgement, sentence)


BROKEN = Point("sigmoid", 0.1, 1.0, "", None, None, "training diverged: loss nan at step 5; lower the learning rate")


# The grid


def test_every_combination_is_one_configuration_in_the_order_of_the_grid() -> None:
    grid = GridConfig(losses=("hinge", "ipo"), betas=(0.1, 0.5), learning_rates=(1e-4, 1e-3))
    found = [(item.dpo.loss, item.dpo.beta, item.dpo.learning_rate) for item in grid_configs(AlignConfig(), grid)]
    assert found == [
        ("hinge", 0.1, 1e-4), ("hinge", 0.1, 1e-3), ("hinge", 0.5, 1e-4), ("hinge", 0.5, 1e-3),
        ("ipo", 0.1, 1e-4), ("ipo", 0.1, 1e-3), ("ipo", 0.5, 1e-4), ("ipo", 0.5, 1e-3),
    ]  # fmt: skip


def test_points_differ_in_what_is_swept_alone_and_share_all_stages_before_the_policy() -> None:
    config = AlignConfig.model_validate({"dpo": {"steps": 7, "nll_weight": 0.1}, "seed": 3})
    configs = grid_configs(config, GridConfig())
    given = flatten(config)
    for item in configs:
        changed = {name for name, value in flatten(item).items() if value != given[name]}
        assert changed <= {"dpo.loss", "dpo.beta", "dpo.learning_rate"}
    of_each = [keys(item) for item in configs]
    shared = {name for name in of_each[0] if len({found[name] for found in of_each}) == 1}
    assert set(of_each[0]) - shared == {"policy", "after", "report"}


def test_a_value_that_is_given_twice_is_tried_once() -> None:
    grid = GridConfig(losses=("hinge", "hinge"), betas=(0.5, 0.5), learning_rates=(1e-4,))
    assert len(grid_configs(AlignConfig(), grid)) == 1


def test_a_point_that_contradicts_the_configuration_is_refused_and_named() -> None:
    config = AlignConfig.model_validate({"dpo": {"loss": "sigmoid", "label_smoothing": 0.1}})
    with pytest.raises(ConfigError) as raised:
        grid_configs(config, GridConfig(betas=(0.5,), learning_rates=(1e-4,)))
    assert str(raised.value) == (
        "sweep, hinge, beta 0.5, learning rate 0.0001: dpo.label_smoothing = 0.1 has no effect on the hinge loss: "
        "set it to 0, or take the sigmoid or robust loss"
    )


# The winner


def test_the_surest_gain_wins_not_the_largest() -> None:
    sure, large = point(reward_gain_ci=(1.2, 1.4)), point(reward_gain=9.0, reward_gain_ci=(0.1, 18.0))
    assert best_point([large, sure]) is sure


def test_only_points_that_passed_can_win() -> None:
    refused, passed = point(passed=False, reward_gain_ci=(5.0, 6.0)), point(reward_gain_ci=(-2.0, -1.0))
    assert best_point([refused, BROKEN, passed]) is passed
    assert best_point([refused, BROKEN]) is None
    assert best_point([]) is None


def test_the_first_of_two_equal_points_wins() -> None:
    one, two = point(run_id="one"), point(run_id="two")
    assert best_point([one, two]) is one


# The table


def test_one_row_per_point_in_order_with_figures_verdict_and_reason() -> None:
    rows = point_rows([point(), point(passed=False, perplexity_ratio=math.inf), BROKEN])
    assert rows[0] == {
        "point": "1",
        "loss": "hinge",
        "beta": "0.5",
        "learning rate": "0.0003",
        "reward gain": "+1.50 (+1.40 to +1.60)",
        "win rate": "0.930",
        "KL per token": "0.061",
        "perplexity ratio": "1.08",
        "verdict": "passed",
        "refused by": "",
        "why": "",
    }
    assert (rows[1]["perplexity ratio"], rows[1]["verdict"], rows[1]["why"]) == (
        "inf",
        "refused",
        "Not registered: KL.",
    )
    assert (rows[2]["reward gain"], rows[2]["verdict"], rows[2]["why"]) == ("–", "failed", BROKEN.sentence)
    assert [row["point"] for row in rows] == ["1", "2", "3"]
    assert [row["refused by"] for row in rows] == ["", "kl_per_token", ""]
    assert [list(row) for row in rows] == [list(rows[0])] * 3


def test_what_is_written_beside_a_point() -> None:
    assert BROKEN.short == "β 0.1, lr 1"


def test_without_a_reward_the_surest_accuracy_on_held_out_pairs_wins() -> None:
    def ranked(run_id: str, low: float) -> Point:
        made = point(run_id=run_id)
        assert made.report is not None
        found = Preferences(pairs=9, left_out=0, accuracy=0.7, accuracy_ci=(low, 0.8), margin=0.1, margin_ci=(0, 0.2))
        without = dict.fromkeys(("reward_gain", "reward_gain_ci", "win_rate", "win_rate_ci"))
        return replace(made, report=make_report(delta=without, compared=0, preferences=found))

    best = best_point([ranked("one", 0.55), ranked("two", 0.6), ranked("three", 0.51)])
    assert best is not None
    assert best.run_id == "two"
    assert [(row["reward gain"], row["win rate"]) for row in point_rows([best])] == [("–", "–")]
