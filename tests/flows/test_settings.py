"""The settings files: a shipped one is found by its name, and what is not valid is refused by name."""

from pathlib import Path

import pytest

from alignment.config import PromotionConfig
from alignment.errors import ConfigError
from flows.settings import CONFIGS, PROMOTION, QUICKSTART, find_config, load_config, load_promotion


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


@pytest.mark.parametrize("name", ["quickstart.yaml", "quickstart"])
def test_a_shipped_file_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == QUICKSTART
    assert load_config(name, {"dpo": {"beta": 0.3}}).dpo.beta == 0.3


def test_a_file_of_one_s_own_comes_first_and_a_path_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart.yaml").write_text("seed: 5", encoding="utf-8")
    assert load_config("quickstart.yaml").seed == 5
    for path in ("elsewhere/quickstart.yaml", str(tmp_path / "imdb.yaml")):
        assert find_config(path) == Path(path)
        with pytest.raises(ConfigError, match="No such file"):
            load_config(path)


def test_a_name_that_is_no_file_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"qickstart: .*imdb_scratch.*quickstart, ") as raised:
        find_config("qickstart")
    assert "promotion" not in str(raised.value)


def test_a_shipped_file_is_named_without_the_folder_that_it_is_installed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.settings.read_yaml", lambda _: {"dpo": {"beta": 99}})
    with pytest.raises(ConfigError, match=r"^quickstart\.yaml: dpo\.beta = 99"):
        load_config(CONFIGS / "quickstart.yaml")
