"""What a frontier tries, how each policy is measured on its way, and the configuration of each of its trainings."""

from itertools import product
from typing import Annotated, Any

from pydantic import Field

from alignment.config.group import Group
from alignment.config.loading import build_config, build_group, merge
from alignment.config.whole import AlignConfig
from alignment.errors import ConfigError
from alignment.kinds import DIVERGENCES, LOSSES


class FrontierConfig(Group):
    """What a frontier tries, every combination on the same pairs, and how each policy is measured in its training."""

    losses: tuple[Annotated[str, LOSSES], ...] = Field(
        ("hinge", "sigmoid"), min_length=1, max_length=16, description="Losses to try"
    )
    betas: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.05, 0.1, 0.3, 0.5, 1.0, 5.0), min_length=1, max_length=16, description="Values of beta to try"
    )
    divergences: tuple[Annotated[str, DIVERGENCES], ...] = Field(
        (), max_length=16, description="Divergences to try; empty: dpo.divergence alone"
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), max_length=16, description="Peak learning rates to try; empty: dpo.learning_rate alone"
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = Field(
        (), max_length=16, description="Seeds to try, each with models and samples of its own; empty: `seed` alone"
    )
    evaluate_every: int = Field(
        25, ge=1, le=10_000_000, description="Steps of training between two evaluations; one is at the end as well"
    )
    held_out: int = Field(
        0, ge=0, le=1_000_000, description="Held-out prompts that a policy is measured on, the first so many; 0: all"
    )
    ceiling_samples: int = Field(
        64, ge=2, le=4_096, description="The reference's samples of each of them, for the ceiling and best-of-n"
    )


class PointConfig(AlignConfig):
    """What decides one training of a frontier: the settings of a run, and how its policy is measured on the way."""

    frontier: FrontierConfig = FrontierConfig()


def build_frontier(**values: Any) -> FrontierConfig:
    """What a frontier tries, from the values that were given; raises ConfigError for one that is out of bounds."""
    return build_group(FrontierConfig, "frontier", values)


def frontier_of(config: AlignConfig) -> FrontierConfig:
    """How the policy is measured on its way, of the configuration of a frontier's training."""
    assert isinstance(config, PointConfig), "stages of a frontier are given its configuration"
    return config.frontier


def frontier_configs(config: AlignConfig, frontier: FrontierConfig) -> list[PointConfig]:
    """One configuration per training, those of one seed together: they share every stage before the policy.

    Raises ConfigError where a combination contradicts the rest of the configuration, and where samples and rewards are
    not what a frontier is made of.
    """
    require_measurable(config)
    values, dpo = config.model_dump(), config.dpo
    axes = product(
        frontier.seeds or (config.seed,),
        frontier.divergences or (dpo.divergence,),
        frontier.losses,
        frontier.betas,
        frontier.learning_rates or (dpo.learning_rate,),
    )
    return [_point(values, frontier, *each) for each in dict.fromkeys(axes)]


def require_measurable(config: AlignConfig) -> None:
    """Raise ConfigError unless samples are the policy's own, from all of its tokens, and have a reward.

    And unless one process trains: it stops on its way to measure the policy.
    """
    if config.dpo.processes > 1:
        raise ConfigError(
            f"dpo.processes = {config.dpo.processes}: a frontier measures each policy while it is trained, which one "
            "process does; set dpo.processes to 1, and run several trainings at once instead"
        )
    sampling = config.sampling
    given = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
    own = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    if wrong := ", ".join(f"sampling.{name} = {value:g}" for name, value in given.items() if value != own[name]):
        raise ConfigError(
            f"{wrong}: the KL of a policy is measured on samples of its own distribution; a frontier needs "
            "sampling.temperature 1, top_k 0 and top_p 1"
        )
    if sampling.stop:
        raise ConfigError(
            "sampling.stop: a text that is cut where a stop text begins is no sample of the policy, so its KL would be "
            "wrong; a frontier needs sampling.stop empty"
        )
    if config.reward.kind == "none":
        raise ConfigError("reward.kind = none: a frontier is reward against KL, so it needs a reward.kind that scores")


def _point(
    values: dict[str, Any], frontier: FrontierConfig, seed: int, divergence: str, loss: str, beta: float, rate: float
) -> PointConfig:
    changes = {
        "seed": seed,
        "dpo": {"divergence": divergence, "loss": loss, "beta": beta, "learning_rate": rate},
    }
    source = f"frontier, {loss}, beta {beta:g}, {divergence}, learning rate {rate:g}"
    found = build_config(merge(values, changes), source=source)
    return PointConfig(**{name: getattr(found, name) for name in AlignConfig.model_fields}, frontier=frontier)
