"""What a run starts from: a preset, a version or a run, by name."""

import pytest

from alignment.config import AlignConfig, build_config
from alignment.errors import ConfigError
from flows.align import connect
from flows.settings import CONFIGS, load_config
from flows.start_from import offered, presets, read_start
from flows.submission import submission
from tasks.registry import runs
from tasks.registry.connection import client


def test_every_shipped_file_that_configures_a_run_is_a_preset_and_the_first_need_nothing() -> None:
    assert presets()[:2] == ("tiny", "quickstart")
    assert set(presets()) == {path.stem for path in CONFIGS.glob("*.yaml")} - {"promotion"}
    for name in presets():
        assert build_config(read_start(name)) == load_config(name)


def test_a_form_offers_no_preset_that_it_would_refuse_and_none_of_the_notebook_s() -> None:
    refused = {name for name in presets() if submission(name, {}, called_here=False).faults}
    assert refused == {"chat", "judge", "own_pairs", "function_reward"}
    notebook = {"notebook_hinge", "notebook_no_prompts", "notebook_sigmoid"}
    assert set(presets()) - set(offered()) == refused | notebook


def test_one_that_is_not_offered_can_be_named_all_the_same() -> None:
    assert read_start("own_pairs")["data"]["path"] == "my-pairs.jsonl"


@pytest.mark.parametrize("name", ["tiny ", " tiny", "\ttiny\n"])
def test_spaces_around_a_name_are_not_part_of_it(name: str) -> None:
    assert read_start(name) == read_start("tiny")
    assert read_start("  ") == {}


def test_nothing_means_the_defaults() -> None:
    assert build_config(read_start("")) == AlignConfig()


@pytest.mark.parametrize("name", ["quickest", "promotion", "flows/configs/tiny.yaml", "/etc/passwd", "../tiny"])
def test_a_path_or_an_unknown_name_is_refused_and_what_there_is_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="no preset") as raised:
        read_start(name)
    assert [fault.fields for fault in raised.value.faults] == [("start_from",)]
    assert f"({', '.join(offered())})" in str(raised.value)


def test_a_run_gives_its_whole_configuration() -> None:
    config = build_config({"seed": 3, "dpo": {"beta": 0.25}})
    connect()
    with runs.run(config, run_name="one") as run_id:
        pass
    assert build_config(read_start(run_id)) == config


@pytest.mark.parametrize("recorded", ["dpo: {beta: 99}", "no fields in it", "dpo: ["])
def test_a_record_that_this_release_refuses_is_a_fault_of_the_field(recorded: str) -> None:
    connect()
    with runs.run(AlignConfig(), run_name="refused") as run_id:
        client().log_text(run_id, recorded, "config.yaml")
    with pytest.raises(
        ConfigError, match=rf"^start_from = {run_id}: config\.yaml: not a record of Plumbline's"
    ) as raised:
        read_start(run_id)
    assert [fault.fields for fault in raised.value.faults] == [("start_from",)]


@pytest.mark.parametrize("name", ["f" * 32, "models:/nobody/3", "nobody@champion"])
def test_one_that_mlflow_does_not_have_is_a_fault_of_the_field(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^start_from = ") as raised:
        read_start(name)
    assert [fault.fields for fault in raised.value.faults] == [("start_from",)]
