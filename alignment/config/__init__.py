"""The configuration of a run: one frozen model that is YAML's schema, the flags, the UI's form and MLflow's params."""

from alignment.config.group import Group  # isort: split

# first: the fields of other packages, which the modules below load, are a `Group` of this package

from alignment.config.frontier import FrontierConfig, PointConfig, build_frontier, frontier_configs
from alignment.config.inputs import (
    BaseConfig,
    DataConfig,
    PromptsConfig,
    RewardConfig,
    RewardFields,
    RewardPart,
    SourceConfig,
)
from alignment.config.judge import JudgeConfig
from alignment.config.loading import RENAMED, as_error, build_config, build_grid, examine, flatten, load_config, merge
from alignment.config.outcome import EvaluationConfig, GatesConfig, GridConfig, PromotionConfig, RegistryConfig
from alignment.config.policy import DPOConfig, PairsConfig, SamplingConfig, ValidationConfig
from alignment.config.precision import Precision
from alignment.config.whole import AlignConfig

__all__ = [
    "RENAMED",
    "AlignConfig",
    "BaseConfig",
    "DPOConfig",
    "DataConfig",
    "EvaluationConfig",
    "FrontierConfig",
    "GatesConfig",
    "GridConfig",
    "Group",
    "JudgeConfig",
    "PairsConfig",
    "PointConfig",
    "Precision",
    "PromotionConfig",
    "PromptsConfig",
    "RegistryConfig",
    "RewardConfig",
    "RewardFields",
    "RewardPart",
    "SamplingConfig",
    "SourceConfig",
    "ValidationConfig",
    "as_error",
    "build_config",
    "build_frontier",
    "build_grid",
    "examine",
    "flatten",
    "frontier_configs",
    "load_config",
    "merge",
]
