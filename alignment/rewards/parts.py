"""Several rewards in one configuration: which of them score, and how one of them is run by itself."""

from collections.abc import Iterator
from pathlib import Path

from alignment.config import AlignConfig, RewardFields
from alignment.kinds import REWARD_MODELS

SUM = "sum"


def described(config: AlignConfig) -> tuple[RewardFields, ...]:
    """The rewards that label: the parts of a sum, or the one."""
    return config.reward.parts if config.reward.kind == SUM else (config.reward,)


def judges(config: AlignConfig) -> Iterator[tuple[str, RewardFields]]:
    """Every reward that scores by a model of its own, by where the configuration has it: `reward`, or a list's part."""
    labels: list[tuple[str, RewardFields]] = [("reward", config.reward)] if config.reward.kind != SUM else []
    labels += [(f"reward.parts.{part.name}", part) for part in config.reward.parts]
    seconds = [(f"evaluation.gold.{part.name}", part) for part in config.evaluation.gold]
    yield from ((place, judge) for place, judge in (*labels, *seconds) if takes_model(judge))


def alone(config: AlignConfig, fields: RewardFields) -> AlignConfig:
    """The configuration with these fields in place of the reward's own: how a part or a gold judge is run."""
    own = {name: getattr(fields, name) for name in RewardFields.model_fields}
    return config.model_copy(update={"reward": config.reward.model_copy(update=own | {"parts": ()})})


def normalises(config: AlignConfig) -> bool:
    """Whether parts of a sum are divided by their SDs on the base's samples."""
    return any(part.normalise for part in config.reward.parts)


def takes_model(fields: RewardFields) -> bool:
    """Whether `reward.model` says which model this reward scores by."""
    names = REWARD_MODELS.names()
    return fields.kind in names and bool(REWARD_MODELS.origin(fields.kind).options.get("model", True))


def is_trained(fields: RewardFields) -> bool:
    """Whether that model is trained here."""
    return takes_model(fields) and fields.model == "train"


def part_folder(folder: Path, name: str) -> Path:
    """Where a part's model is, below the folder of the stage `reward`."""
    return folder / "parts" / name
