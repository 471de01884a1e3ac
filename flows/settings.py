"""The settings files in flows/configs, and how those of a promotion are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignment.config import AlignConfig, PromotionConfig, RegistryConfig, build_config
from alignment.errors import ConfigError
from alignment.yaml_file import read_yaml

CONFIGS = Path(__file__).parent / "configs"
TINY = CONFIGS / "tiny.yaml"
QUICKSTART = CONFIGS / "quickstart.yaml"
QUICKSTART_RETRAIN = CONFIGS / "quickstart_retrain.yaml"
PROMOTION = CONFIGS / "promotion.yaml"
MODEL_NAME = RegistryConfig().model_name


def find_config(path: str | Path) -> Path:
    """The file of a configuration: the one at `path`, else the one of this name in flows/configs; ending optional.

    Raises ConfigError, with the names of those, for a name that is neither.
    """
    given = Path(path)
    if given.exists() or given.parent != Path():
        return given
    found = [place for place in (CONFIGS / given.name, CONFIGS / f"{given.name}.yaml") if place.is_file()]
    if not found:
        shipped = sorted(place.stem for place in CONFIGS.glob("*.yaml") if place != PROMOTION)
        raise ConfigError(f"config {path}: no such file here, nor among the shipped ones: {', '.join(shipped)}")
    return found[0]


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> AlignConfig:
    """Read a configuration from a YAML file, or from a shipped one by its name, such as `quickstart.yaml`.

    `overrides` are laid over it, nested as the YAML is: `{"dpo": {"beta": 0.3}}`. Raises ConfigError where the file is
    missing, is not YAML, or a field is unknown or out of bounds.
    """
    file = find_config(path)
    return build_config(read_yaml(file), source=shown_name(file), overrides=overrides)


def shown_name(file: Path) -> str:
    """What messages call a configuration's file: a shipped one by its name alone."""
    return file.name if file.parent == CONFIGS else str(file)


def load_promotion(path: Path) -> PromotionConfig:
    """Read a promotion's settings from a YAML file. Raises ConfigError if they cannot be read or are not valid."""
    path = find_config(path)
    try:
        return PromotionConfig.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"config {path}: {faults}; see flows/configs/promotion.yaml") from error
