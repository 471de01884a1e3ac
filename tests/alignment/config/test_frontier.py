"""What a frontier tries: one configuration per training, and what it refuses to measure."""

from typing import Any

import pytest

from alignment.config import AlignConfig, FrontierConfig, build_config, build_frontier, flatten, frontier_configs
from alignment.errors import ConfigError


def test_every_combination_is_one_training_and_those_of_a_seed_stand_together() -> None:
    given = FrontierConfig(losses=("hinge", "sigmoid"), betas=(0.1, 5.0), seeds=(3, 4))
    found = [(each.seed, each.dpo.loss, each.dpo.beta) for each in frontier_configs(AlignConfig(), given)]
    assert found == [(seed, loss, beta) for seed in (3, 4) for loss in ("hinge", "sigmoid") for beta in (0.1, 5.0)]


def test_what_is_not_varied_stays_as_the_configuration_has_it() -> None:
    config = build_config({"seed": 7, "dpo": {"learning_rate": 2e-4, "divergence": "jensen_shannon"}})
    (point,) = frontier_configs(config, FrontierConfig(losses=("hinge",), betas=(0.5,)))
    assert (point.seed, point.dpo.learning_rate, point.dpo.divergence) == (7, 2e-4, "jensen_shannon")
    assert {name: value for name, value in flatten(point).items() if not name.startswith("frontier.")} == flatten(
        config
    )


def test_a_value_that_is_named_twice_is_tried_once() -> None:
    assert len(frontier_configs(AlignConfig(), FrontierConfig(losses=("hinge", "hinge"), betas=(0.5, 0.5)))) == 1


def test_a_combination_that_contradicts_itself_is_refused_by_its_name() -> None:
    given = FrontierConfig(losses=("ipo",), betas=(0.3,), divergences=("forward_kl",))
    with pytest.raises(ConfigError, match=r"^frontier, ipo, beta 0\.3, forward_kl, .*does not go with the ipo loss"):
        frontier_configs(AlignConfig(), given)


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        ({"temperature": 0.7}, "sampling.temperature = 0.7"),
        ({"top_k": 20, "top_p": 0.9}, "sampling.top_k = 20, sampling.top_p = 0.9"),
        ({"stop": ["\n"]}, "sampling.stop"),
    ],
    ids=str,
)
def test_samples_that_are_not_the_policy_s_own_are_refused_in_one_line(sampling: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        frontier_configs(build_config({"sampling": sampling}), FrontierConfig())
    assert str(raised.value).startswith(f"{named}: ")
    assert "\n" not in str(raised.value)


def test_without_a_reward_there_is_no_frontier() -> None:
    given = {"reward": {"kind": "none"}, "pairs": {"source": "given"}, "prompts": {"source": "pairs"}}
    config = build_config({**given, "data": {"path": "pairs.jsonl"}, "base": {"model": "some/model"}})
    with pytest.raises(ConfigError, match=r"reward\.kind = none"):
        frontier_configs(config, FrontierConfig())


def test_a_value_out_of_bounds_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^frontier: betas\.1 = 99"):
        build_frontier(betas=[0.3, 99], losses=None)
