"""What `plumbline models` lists: each version with its verdict, gain, aliases and date."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alignment.config import AlignConfig
from alignment.errors import ModelError
from alignment.judging.gates import judge
from tasks.registry import connection, records, runs, versions
from tasks.registry.listing import list_versions
from tasks.registry.marks import JUDGED_AGAIN
from tests.registered import make_run, make_version, register, report, verdict_tags

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
