"""What `plumbline models` lists: each version with its verdict, gain, aliases and date."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alignment.config import AlignConfig
from alignment.errors import ModelError
from alignment.judging import headline
from alignment.judging.gates import judge
from alignment.judging.report import Preferences
from tasks.registry import columns, connection, marks, records, runs, versions
from tasks.registry.listing import Figures, Refused, list_refused, list_versions
from tasks.registry.marks import APPROVER, DECISION, JUDGED_AGAIN, REASON, SMOKE_VERDICT, TIME
from tests.registered import make_run, make_version, register, report, verdict_tags
from tests.reports import make_report

pytestmark = pytest.mark.usefixtures("local")


def test_a_version_has_the_gain_that_its_run_recorded_its_aliases_and_its_date() -> None:
    found = report(reward_gain=1.01, reward_gain_ci=(0.93, 1.09))
    run_id, uri = make_run("listed", found=found)
    records.log_evaluation(run_id, found, judge(found, AlignConfig().gates))
    register(run_id, uri, "listed", "challenger", tags=verdict_tags(found))
    versions.set_alias("listed", "champion", "1")

    (listed,) = list_versions("listed")

    assert (listed.uri, listed.aliases, listed.run_id) == ("models:/listed/1", ("challenger", "champion"), run_id)
    assert (listed.verdict, listed.reason) == ("pass", "")
    assert (listed.reward_gain, listed.reward_gain_ci) == (1.01, (0.93, 1.09))
    assert datetime.now(UTC) - listed.registered < timedelta(minutes=10)


def test_a_version_has_the_figures_of_its_run_and_the_last_decision_on_it() -> None:
    found = report(kl_per_token=0.07, win_rate=0.95)
    run_id, uri = make_run("decided", found=found)
    records.log_evaluation(run_id, found, judge(found, AlignConfig().gates))
    register(run_id, uri, "decided", "challenger", tags=verdict_tags(found))
    when = "2026-01-02T03:04:05+00:00"
    decision = {DECISION: "promoted", APPROVER: "Ann", REASON: "better", TIME: when, SMOKE_VERDICT: "passed"}
    versions.tag_version("decided", "1", decision)

    (listed,) = list_versions("decided")

    assert (listed.win_rate, listed.kl_per_token, listed.length_change) == (0.95, 0.07, 3.0)
    assert (listed.decision, listed.approver, listed.decision_reason) == ("promoted", "Ann", "better")
    assert listed.decided == datetime.fromisoformat(when)
    assert listed.smoke == "passed"


def test_refused_runs_are_those_of_the_model_the_newest_first() -> None:
    bad = report(kl_per_token=0.9, perplexity_ratio=3.0)
    made = []
    for name in ("mine", "other", "mine"):
        run_id, _ = make_run(f"a run of {name}", found=bad, tags={"plumbline.model_name": name})
        records.log_evaluation(run_id, bad, judge(bad, AlignConfig().gates))
        made.append(run_id)

    assert [each.run_id for each in list_refused("mine").newest] == [made[2], made[0]]
    first = list_refused("mine", limit=1)
    assert ([each.run_id for each in first.newest], first.more) == ([made[2]], 1)
    newest = list_refused("mine").newest[0]
    assert sorted(newest.gates) == ["kl_per_token", "perplexity_ratio"]
    assert "KL per token 0.90 exceeds 0.2" in newest.reason
    assert list_refused("it's") == Refused([], more=0)


def test_of_a_refused_sweep_the_points_are_listed_and_not_the_sweep() -> None:
    bad = report(kl_per_token=0.9)
    parent, _ = make_run("sweep", record=False, tags={"plumbline.model_name": "swept"})
    point, _ = make_run("a point", found=bad, tags={"plumbline.model_name": "swept", "mlflow.parentRunId": parent})
    records.log_evaluation(point, bad, judge(bad, AlignConfig().gates))
    runs.conclude(parent, "fail", "0 of 1 points passed")

    assert [each.run_id for each in list_refused("swept").newest] == [point]


def test_of_a_run_without_a_reward_the_figures_of_its_pairs_are_listed() -> None:
    pairs = Preferences(pairs=80, left_out=0, accuracy=0.8, accuracy_ci=(0.7, 0.9), margin=1.2, margin_ci=(0.5, 1.9))
    found = make_report(compared=0, preferences=pairs, delta={"reward_gain": None, "reward_gain_ci": None})
    run_id, uri = make_run("by pairs", found=found)
    records.log_evaluation(run_id, found, judge(found, AlignConfig().gates))
    register(run_id, uri, "by pairs", "challenger", tags={})

    (listed,) = list_versions("by pairs")

    assert (listed.reward_gain, listed.preference_accuracy, listed.preference_margin) == (None, 0.8, 1.2)


def test_each_headline_is_a_field_and_tags_and_columns_have_no_other() -> None:
    assert set(Figures.model_fields) == set(headline.METRICS) == set(headline.WRITTEN)
    assert set(marks.FIGURES) <= set(headline.METRICS)
    shown = {column.strip("`").removeprefix("metrics.`Result/") for column in columns.COLUMNS if "Result/" in column}
    assert shown
    assert shown <= set(headline.METRICS)


def test_the_verdict_is_what_the_tags_say() -> None:
    make_version("judged", tags={"plumbline.kind": "anchor"})
    make_version("judged", tags={"plumbline.verdict": "fail", "gate.win_rate": "failed"})
    make_version("judged", tags={JUDGED_AGAIN: "Run 1: KL per token 0.31 exceeds 0.2."})
    run_id, uri = make_run("judged")
    register(run_id, uri, "judged", "challenger", key="foreign", tags={})

    assert [(each.version, each.verdict) for each in list_versions("judged")] == [
        ("4", "not judged"),
        ("3", "refused since"),
        ("2", "fail"),
        ("1", "anchor"),
    ]
    assert [each.reward_gain for each in list_versions("judged")] == [None] * 4
    assert "KL per token 0.31" in list_versions("judged")[1].reason


def test_all_models_stand_by_their_names() -> None:
    make_version("b model")
    make_version("a model")
    names = [each.name for each in list_versions()]
    assert names == sorted(names)
    assert {"a model", "b model"} <= set(names)


def test_a_name_that_nobody_registered_is_refused_with_those_that_are_there() -> None:
    make_version("there")
    with pytest.raises(ModelError, match=r"no version is registered as 'nowhere' in MLflow at .*; there are .*there"):
        list_versions("nowhere")


def test_before_a_first_run_there_is_nothing_and_no_database_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert list_versions() == []
    with pytest.raises(ModelError, match="nothing is registered there yet"):
        list_versions("any")
    assert not (tmp_path / "new").exists()
