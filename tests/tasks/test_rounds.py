"""A round of retraining: from the champion, on prompts that are new, measured to the first base."""

from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.errors import DataError, ModelError, NothingNewError
from alignment.stages.store import StageRef
from tasks import rounds
from tasks.checks import require_new
from tasks.home import home, store
from tasks.registry import marks, models, records, versions
from tasks.registry.versions import RegisteredVersion
from tests.alignment.chain import keys

CONFIG = AlignConfig()
CHAMPION = RegisteredVersion("plumbline-quickstart", "3", ("champion",), "run 3", {marks.KEY: "policy 3"})
ANCHOR = RegisteredVersion("plumbline-quickstart", "2", ("anchor",), "run 3", {})


class Registry:
    """What MLflow holds, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: set[str] = set()
        self.aliases: dict[str, RegisteredVersion] = {}
        self.lineage: dict[str, StageRef] = {}
        self.registered: list[dict[str, Any]] = []
        self.logged: list[tuple[str, Path]] = []
        monkeypatch.setattr(records, "used_prompts", lambda name: set(self.used))
        monkeypatch.setattr(records, "read_lineage", lambda run_id: self.lineage)
        monkeypatch.setattr(models, "log_model", self.log_model)
        self.tagged: RegisteredVersion | None = None
        monkeypatch.setattr(versions, "find_alias", lambda name, alias: self.aliases.get(alias))
        monkeypatch.setattr(versions, "find_tagged", lambda name, tag, value: self.tagged)
        monkeypatch.setattr(versions, "set_alias", lambda name, alias, version: self.set.append((alias, version)))
        self.set: list[tuple[str, str]] = []
        monkeypatch.setattr(versions, "create_version", self.create_version)
        for name in ("excluded_prompts", "anchor_version"):  # as plain functions, without a server
            monkeypatch.setattr(rounds, name, getattr(rounds, name).fn)

    def log_model(self, run_id: str, folder: Path, *_: Any, **__: Any) -> str:
        self.logged.append((run_id, folder))
        return "models:/m-1"

    def create_version(self, run_id: str, uri: str, name: str, **options: Any) -> RegisteredVersion:
        self.registered.append({"run_id": run_id, "uri": uri, "name": name, **options})
        return ANCHOR


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(monkeypatch)


def written(key: str, weights: str) -> StageRef:
    """A base in the store, whose digest is that of its weights."""

    def fill(folder: Path) -> dict[str, int]:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text(weights)
        return {"copied": 1}

    return store().write("base", key, fill)


# Where a round starts


def test_without_a_champion_a_round_is_the_configured_run(mlflow: Registry) -> None:
    assert rounds.next_round(CONFIG) == CONFIG
    assert mlflow.registered == []


def test_a_round_starts_from_the_champion_s_version_and_is_measured_to_the_anchor_s(mlflow: Registry) -> None:
    """Numbers, not aliases: a promotion in the meantime moves neither."""
    mlflow.aliases = {"champion": CHAMPION, "anchor": ANCHOR}
    found = rounds.next_round(CONFIG)
    assert found.base.model == "models:/plumbline-quickstart/3"
    assert found.evaluation.anchor == "models:/plumbline-quickstart/2"
    changed = {name for name in AlignConfig.model_fields if getattr(found, name) != getattr(CONFIG, name)}
    assert changed == {"base", "evaluation"}


def test_a_round_leaves_out_what_earlier_ones_used(mlflow: Registry) -> None:
    mlflow.used = {"b", "a"}
    found = rounds.next_round(CONFIG)
    assert Path(found.prompts.exclude).read_text() == "a\nb\n"
    assert found.model_copy(update={"prompts": CONFIG.prompts}) == CONFIG


# Prompts that were used


def test_the_list_lies_at_home_and_the_same_prompts_are_the_same_file(mlflow: Registry) -> None:
    mlflow.used = {"a", "b"}
    one = Path(rounds.excluded_prompts(CONFIG))
    assert one.is_relative_to(home())
    assert Path(rounds.excluded_prompts(CONFIG)) == one
    mlflow.used = {"a", "b", "c"}
    other = Path(rounds.excluded_prompts(CONFIG))
    assert other != one
    assert one.read_text() == "a\nb\n"
    assert {file.name for file in one.parent.iterdir()} == {one.name, other.name}


def test_prompts_that_the_configuration_excludes_stay_excluded(mlflow: Registry, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("z\n")
    config = build_config({"prompts": {"exclude": str(tmp_path / "mine.txt")}})
    assert Path(rounds.excluded_prompts(config)).read_text() == "z\n"
    mlflow.used = {"a"}
    assert Path(rounds.excluded_prompts(config)).read_text() == "a\nz\n"


def test_a_list_that_is_missing_is_refused_in_one_line(mlflow: Registry, tmp_path: Path) -> None:
    config = build_config({"prompts": {"exclude": str(tmp_path / "none.txt")}})
    with pytest.raises(DataError, match=r"^prompts\.exclude [^\n]*none\.txt: cannot be read \([^\n]*leave it empty$"):
        rounds.excluded_prompts(config)


# The anchor


def test_an_anchor_that_is_registered_stays_the_anchor(mlflow: Registry) -> None:
    """Whatever has become of the store, the configuration and the data."""
    mlflow.aliases = {"anchor": ANCHOR}
    assert rounds.anchor_version(CONFIG, CHAMPION) == "models:/plumbline-quickstart/2"
    assert (mlflow.registered, mlflow.logged) == ([], [])


def test_an_anchor_that_lost_its_alias_is_still_the_anchor(mlflow: Registry) -> None:
    mlflow.tagged = ANCHOR
    assert rounds.anchor_version(CONFIG, CHAMPION) == ANCHOR.uri
    assert (mlflow.registered, mlflow.logged) == ([], [])


def test_a_champion_brought_in_from_elsewhere_is_its_own_anchor(mlflow: Registry) -> None:
    brought_in = RegisteredVersion("plumbline-quickstart", "1", ("champion",), "", {})
    assert rounds.anchor_version(CONFIG, brought_in) == "models:/plumbline-quickstart/1"
    assert mlflow.set == [("anchor", "1")]


def test_a_champion_of_ours_whose_run_is_gone_is_told_with_the_way_out(mlflow: Registry) -> None:
    with pytest.raises(ModelError, match=r"no record of its base; register that base .* alias `anchor`"):
        rounds.anchor_version(CONFIG, CHAMPION)


def test_the_first_champion_s_base_becomes_a_version_that_is_no_candidate(mlflow: Registry) -> None:
    base = written("an old key", "weights")
    mlflow.lineage = {"base": base}
    assert rounds.anchor_version(CONFIG, CHAMPION) == ANCHOR.uri
    assert mlflow.logged == [("run 3", base.path / "model")]
    (made,) = mlflow.registered
    assert (made["name"], made["uri"]) == ("plumbline-quickstart", "models:/m-1")
    assert mlflow.set == [("anchor", ANCHOR.version)]
    assert made["key"] == f"anchor-{base.digest}"
    assert made["tags"] == {"plumbline.kind": "anchor", "verdict": "anchor"}
    assert "Not a candidate for promotion" in made["description"]


def test_two_rounds_at_once_have_one_anchor(mlflow: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's was registered while this one's was being brought in."""
    mlflow.lineage = {"base": written("an old key", "weights")}

    def log_model(*_: Any, **__: Any) -> str:
        mlflow.aliases = {"anchor": ANCHOR}
        return "models:/m-2"

    monkeypatch.setattr(models, "log_model", log_model)
    assert rounds.anchor_version(CONFIG, CHAMPION) == ANCHOR.uri
    assert (mlflow.registered, mlflow.set) == ([], [])


def test_a_base_that_the_store_lost_is_made_again_where_it_comes_out_the_same(
    mlflow: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = written("key", "weights")
    mlflow.lineage = {"base": again.model_copy(update={"key": "lost"})}
    monkeypatch.setattr(rounds, "compute_alone", lambda goal, config: again)
    rounds.anchor_version(CONFIG, CHAMPION)
    assert mlflow.logged == [("run 3", again.path / "model")]


def test_a_base_that_is_lost_is_told_with_the_way_out(mlflow: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    other = written("key", "other weights")
    mlflow.lineage = {"base": other.model_copy(update={"key": "lost", "digest": "0123456789abcdef"})}
    monkeypatch.setattr(rounds, "compute_alone", lambda goal, config: other)
    with pytest.raises(ModelError) as raised:
        rounds.anchor_version(CONFIG, CHAMPION)
    assert str(raised.value) == (
        "models:/plumbline-quickstart: the base of version 3 (content 0123456789ab) is no longer in the store, and "
        f"base.model = train gives another ({other.digest[:12]}); restore the store, or register that base under this "
        "name with the alias `anchor`"
    )
    assert (mlflow.registered, mlflow.logged) == ([], [])


def test_a_base_in_the_store_that_is_not_the_champion_s_is_not_taken_for_it(
    mlflow: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same key with another content, as after the folder was written anew."""
    other = written("key", "other weights")
    mlflow.lineage = {"base": other.model_copy(update={"digest": "another"})}
    monkeypatch.setattr(rounds, "compute_alone", lambda goal, config: other)
    with pytest.raises(ModelError, match="is no longer in the store"):
        rounds.anchor_version(CONFIG, CHAMPION)


# Nothing new


def prompts(train: int, used: int) -> StageRef:
    counts = {"train": train, "eval": 9} | ({"used_before": used} if used else {})
    return StageRef(stage="prompts", key="k", path=Path(), digest="d", counts=counts, seconds=0.0)


@pytest.mark.parametrize("new", [0, 31, 63])
def test_fewer_new_prompts_than_a_set_of_pairs_needs_are_nothing_new(new: int) -> None:
    """By default a prompt gives one pair, and a set needs 64: with 63 prompts the validation would stop each round."""
    with pytest.raises(NothingNewError) as raised:
        require_new(CONFIG, {"prompts": prompts(new, 700)}, "")
    assert str(raised.value) == (
        f"nothing new to learn from: {new} prompts that no earlier round has used (700 were), and a round needs 64 "
        "(validation.min_distinct_prompts, validation.min_pairs); give new texts in data.path"
    )


@pytest.mark.parametrize(
    ("strategy", "samples", "enough"),
    [("best_vs_worst", 4, 64), ("best_vs_random", 4, 64), ("best_vs_rest", 3, 32), ("all_pairs", 4, 32)],
)
def test_what_a_set_needs_depends_on_the_pairs_a_prompt_gives(strategy: str, samples: int, enough: int) -> None:
    """64 pairs are 64 prompts at 1 each, 32 at 2, and 11 at 6, where 32 distinct prompts are the tighter bound."""
    config = build_config({"pairs": {"strategy": strategy}, "sampling": {"samples_per_prompt": samples}})
    require_new(config, {"prompts": prompts(enough, 700)}, "")
    with pytest.raises(NothingNewError, match=f"a round needs {enough} "):
        require_new(config, {"prompts": prompts(enough - 1, 700)}, "")


def test_enough_new_prompts_are_enough() -> None:
    require_new(CONFIG, {"prompts": prompts(512, 700)}, "")


def test_too_few_prompts_that_nobody_used_are_left_to_the_validation() -> None:
    """Small data is an error, not a round to skip."""
    require_new(CONFIG, {"prompts": prompts(3, 0)}, "")


def test_the_keys_of_a_round_are_those_of_its_prompts(mlflow: Registry) -> None:
    """A round that died finds its stages again: the same used prompts give the same keys."""
    mlflow.used = {"a", "b"}
    one, two = (keys(rounds.next_round(CONFIG)) for _ in range(2))
    mlflow.used = {"a", "b", "c"}
    other = keys(rounds.next_round(CONFIG))
    assert one == two
    assert {name for name in one if one[name] == other[name]} == {"texts", "base", "reward"}
