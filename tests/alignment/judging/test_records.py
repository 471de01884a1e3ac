"""Records of older releases: read, judged again with the same figures; what a newer one wrote is refused by name."""

import json
import math
from pathlib import Path

import pytest
import yaml

from alignment.config import AlignConfig
from alignment.errors import NewerRecordError, RecordError
from alignment.judging import records
from alignment.judging.gates import judge
from alignment.judging.records import read_config, read_report, read_samples
from alignment.judging.report import SCHEMA, EvalReport, SampleRow

SCHEMA_1 = Path(__file__).parents[2] / "fixtures" / "schema_1"
"""What a run of version 0.1.0 recorded, and what it said of it."""


def text(name: str, **changes: object) -> str:
    """A file of that record, some of its values changed."""
    found = (SCHEMA_1 / name).read_text(encoding="utf-8")
    return json.dumps(json.loads(found) | changes) if changes else found


def config(**changes: dict[str, object]) -> str:
    """The configuration of that record, some groups laid over."""
    found = yaml.safe_load(text("config.yaml"))
    return yaml.safe_dump(found | {group: found.get(group, {}) | fields for group, fields in changes.items()})


def test_a_record_of_schema_1_gets_the_verdict_that_it_got_with_the_same_figures() -> None:
    judgement = judge(read_report(text("report.json")), read_config(text("config.yaml"), ("gates",)).gates)
    expected = json.loads(text("verdict.json"))
    assert judgement.verdict == expected["verdict"]
    assert [
        {"bound": gate.bound, "name": gate.name, "passed": gate.passed, "value": gate.value} for gate in judgement.gates
    ] == expected["gates"]


def test_its_configuration_and_sample_texts_are_read() -> None:
    read = read_config(text("config.yaml"), AlignConfig.model_fields)
    assert (read.base.steps, read.dpo.loss, read.evaluation.judge) == (280, "hinge", "grammar")
    rows = read_samples(text("samples.json"))
    assert len(rows) == 32
    assert rows[0].prompt == "my sister and i saw this sequel after"
    assert (rows[0].base_reward, rows[0].aligned_reward) == (0.9325072169, 1.1971753836)


def test_what_is_written_today_says_its_schema_and_is_read_again() -> None:
    report = read_report(text("report.json"))
    written = report.model_dump_json()
    assert json.loads(written)["schema"] == SCHEMA
    assert read_report(written) == report
    assert EvalReport.model_validate_json(written) == report


def test_figures_that_are_not_finite_and_those_that_do_not_apply_are_read() -> None:
    values = json.loads(text("report.json"))
    values["delta"] |= {"kl": "Infinity", "win_rate_length_matched": None}
    values["aligned"] |= {"perplexity": "NaN", "grammatical": None}
    report = read_report(json.dumps(values))
    assert report.delta.kl == math.inf
    assert math.isnan(report.aligned.perplexity)
    assert report.delta.get("win_rate_length_matched") is report.aligned.get("grammatical") is None
    assert report.delta.interval("win_rate") == (0.9453125, 0.98828125)


def test_a_drift_of_schema_1_gets_the_figure_that_its_table_had_made() -> None:
    drift = {"base_kl_per_token": 0.0, "kl_per_token": 0.1, "anchor_reward_mean": -0.5, "reward_gain": 1.7}
    report = read_report(text("report.json", drift=drift))
    assert report.drift is not None
    assert report.drift.base_reward_gain == report.base.reward_mean + 0.5


def test_a_report_without_what_every_report_has_is_none() -> None:
    with pytest.raises(RecordError, match=r"\(no reward_gain, reward_gain_ci, win_rate, .* in delta\)$"):
        read_report(text("report.json", schema=2, delta={}))


def test_a_newer_record_is_refused_by_name() -> None:
    with pytest.raises(NewerRecordError) as raised:
        read_report(text("report.json", schema=SCHEMA + 1, figures={}), "report.json of run 7")
    assert str(raised.value) == (
        f"report.json of run 7: schema {SCHEMA + 1} is newer than the {SCHEMA} that this release reads; "
        "upgrade Plumbline"
    )


@pytest.mark.parametrize("broken", ["", "[]", "{", '{"prompts": 3}', '{"schema": 0}', '{"schema": "one"}'])
def test_what_is_no_report_is_said_in_one_line(broken: str) -> None:
    with pytest.raises(RecordError, match=r"^report\.json: not a record of Plumbline's \([^\n]*\)$"):
        read_report(broken)


def test_fields_that_came_or_went_since_do_not_make_an_old_configuration_unreadable() -> None:
    old = yaml.safe_load(config(gates={"max_length_change": 3.0}, magic={"wand": 1}, dpo={"loss": "of old"}))
    del old["gates"]["min_win_rate"]
    read = read_config(yaml.safe_dump(old | {"gates": old["gates"] | {"min_gain": 0.5}}), ("gates",))
    assert read.gates == AlignConfig().gates.model_copy(update={"min_gain": 0.5, "max_perplexity_ratio": 1.25})
    assert read.dpo == AlignConfig().dpo


def test_a_field_that_was_renamed_is_read_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RENAMED", {"gates.least_gain": "gates.min_gain", "rewards.steps": "reward.steps"})
    old = config(gates={"least_gain": 0.5}, rewards={"steps": 7})
    assert read_config(old, ("gates",)).gates.min_gain == 0.0, "the new name was there as well"
    values = yaml.safe_load(old)
    del values["gates"]["min_gain"], values["reward"]["steps"]
    read = read_config(yaml.safe_dump(values), ("gates", "reward"))
    assert (read.gates.min_gain, read.reward.steps) == (0.5, 7)


@pytest.mark.parametrize("broken", ["[]", "x: [", "gates: 3", "gates: {min_win_rate: 7}"])
def test_what_is_no_configuration_is_said_in_one_line(broken: str) -> None:
    with pytest.raises(RecordError, match=r"^config\.yaml: not a record of Plumbline's \([^\n]*\)$"):
        read_config(broken, ("gates",))


def test_samples_are_read_by_the_names_of_their_columns() -> None:
    columns = ["aligned_reward", "aligned", "judge", "base_reward", "base", "prompt"]
    [row] = read_samples(json.dumps({"columns": columns, "data": [[2.0, "after", 1, 1.0, "before", "film"]]}))
    assert row == SampleRow(prompt="film", base="before", base_reward=1.0, aligned="after", aligned_reward=2.0)
    with pytest.raises(RecordError, match=r"^samples\.json: not a record"):
        read_samples(json.dumps({"columns": columns[1:], "data": [["after", 1, 1.0, "before", "film"]]}))
