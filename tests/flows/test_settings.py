"""A promotion's settings: the shipped file holds the defaults, and one that is not valid is refused by name."""

from pathlib import Path

import pytest

from alignment.config import PromotionConfig
from alignment.errors import ConfigError
from flows.settings import PROMOTION, load_promotion


def test_the_shipped_settings_are_the_defaults() -> None:
    assert load_promotion(PROMOTION) == PromotionConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("automatic: perhaps", "automatic"),
        ("timeout: 3", "timeout"),
        ("[", "not readable as YAML"),
        ("timeout_hours: 1:20", "timeout_hours"),  # 80 to YAML 1.1
        ("timeout_hours: yes", "timeout_hours"),
        ("automatic: true\nautomatic: false", "line 2: `automatic` is written twice, first on line 1"),
        ("- automatic", "holds a list"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "promotion.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_promotion(file)
    with pytest.raises(ConfigError, match="No such file"):
        load_promotion(tmp_path / "missing.yaml")
