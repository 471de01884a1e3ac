"""The settings files in flows/configs, and how those of a promotion are read."""

from pathlib import Path

from pydantic import ValidationError

from alignment.config import PromotionConfig, RegistryConfig
from alignment.errors import ConfigError
from alignment.yaml_file import read_yaml

CONFIGS = Path(__file__).parent / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
QUICKSTART_RETRAIN = CONFIGS / "quickstart_retrain.yaml"
PROMOTION = CONFIGS / "promotion.yaml"
MODEL_NAME = RegistryConfig().model_name


def load_promotion(path: Path) -> PromotionConfig:
    """Read a promotion's settings from a YAML file. Raises ConfigError if they cannot be read or are not valid."""
    try:
        return PromotionConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"config {path}: {faults}; see flows/configs/promotion.yaml") from error
