"""The study's commands: what names a run, what is recorded of it and kept, and the tables that are printed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.rows import SAMPLE_TEXTS
from alignment.stages.store import write_json
from benchmarks import study, study_page
from benchmarks.trials import PARTS, POSSIBLE, Trial

ROW: dict[str, Any] = {
    "part": "cliff",
    "trial": "hinge",
    "seed": 1,
    "config": "c",
    "reward_base": 0.1,
    "reward_aligned": 0.9,
    "gain": 0.5,
    "gain_low": 0.25,
    "gain_high": 0.75,
    "reward_sd": 2.0,
    "reward_sd_ratio": 0.9,
    "won": 0.625,
    "perplexity_ratio": 4.0,
    "kl": 2.5,
    "kl_per_token": 0.25,
    "entropy_base": 6.0,
    "entropy_aligned": 6.5,
    "verdict": "fail",
    "refused_by": ["perplexity_ratio", "kl_per_token"],
    "seconds": 1234.0,
    "texts": [{"base": " was\nbad", "base_reward": -1.0, "aligned": " was good", "aligned_reward": 2.0}],
}


def every() -> list[Trial]:
    return [trial for part in PARTS.values() for trial in part()]


@pytest.mark.parametrize("trial", [*every(), POSSIBLE], ids=lambda trial: f"{trial.part}: {trial.name} {trial.seed}")
def test_each_trial_is_a_configuration_that_can_be_run(trial: Trial) -> None:
    config = study.config_of(trial, "reviews.parquet", "model")
    assert isinstance(config, AlignConfig)
    assert config.data.path == "reviews.parquet"
    assert config.base.model == ("model" if trial.given else "train")


def test_no_two_trials_of_a_part_have_one_name_and_seed() -> None:
    for part in PARTS.values():
        names = [(trial.part, trial.name, trial.seed) for trial in part()]
        assert len(names) == len(set(names))


def test_the_two_runs_of_the_notebook_are_recorded_once_for_both_parts() -> None:
    shared = [trial for trial in PARTS["cliff"]() if trial in PARTS["table"]()]
    assert [trial.name for trial in shared] == ["hinge, lr 0.001", "sigmoid, lr 0.001"]


def test_a_run_is_named_by_what_decides_its_figures() -> None:
    trial = Trial("cliff", "one", {"dpo.beta": 0.1})

    def name(trial: Trial, data: str = "a.parquet") -> str:
        return study.named(study.config_of(trial, data), trial)

    assert name(trial) == name(trial, "elsewhere/b.parquet")
    assert name(trial) == name(replace(trial, changes={"dpo.beta": 0.1, "registry.model_name": "other"}))
    changed = [
        replace(trial, changes={"dpo.beta": 0.2}),
        replace(trial, seed=1),
        replace(trial, after=Trial("cliff", "first round", {"dpo.beta": 0.3})),
    ]
    assert len({name(each) for each in [trial, *changed]}) == 4


def test_a_record_takes_the_place_of_an_earlier_one_of_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "results" / "study.parquet"
    other = {"part": "possible", "trial": "best of 2", "seed": 0, "config": "c", "gain": 0.56}
    study_page.keep([ROW, other], path)
    study_page.keep([ROW | {"gain": 0.6}], path)
    found = study_page.recorded(path)
    assert [(row["trial"], row["gain"]) for row in found] == [("best of 2", 0.56), ("hinge", 0.6)]
    assert found[0]["refused_by"] is None
    assert found[1]["texts"] == ROW["texts"]
    assert [file.name for file in path.parent.iterdir()] == ["study.parquet"]


def test_what_is_recorded_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ran = tmp_path / "study.parquet", []

    def measure(trial: Trial, data: str, home: study.Home, base: str = "") -> dict[str, Any]:
        ran.append(trial.name)
        return study.about(trial, study.named(study.config_of(trial, data), trial))

    monkeypatch.setattr(study, "measure", measure)
    trials = [Trial("levers", "one", {"dpo.beta": 0.1}), Trial("levers", "two", {"dpo.beta": 0.2})]
    home = study.Home(tmp_path / "home")
    study.run_part(trials[:1], "a.parquet", home, path=path)
    study.run_part(trials, "b.parquet", home, path=path)
    assert ran == ["one", "two"]


def test_the_seconds_of_a_stage_outlive_the_command_that_computed_it(tmp_path: Path) -> None:
    class Ref:
        stage, key, cached, counts = "base", "k", False, dict[str, int]()

    first, later = study.Home(tmp_path), study.Home(tmp_path)
    first.heard(Ref())
    Ref.cached = True
    later.heard(Ref())
    assert later.spent({"base": Ref()}) == first.spent({"base": Ref()}) < math.inf
    Ref.key = "of another command"
    assert math.isnan(later.spent({"base": Ref()}))


def test_a_table_has_a_line_for_each_record_and_a_verdict_with_its_reasons() -> None:
    heading, rule, line = study_page.table([ROW], study_page.TRAINED)
    assert heading.startswith("| trial | reward | gain, SDs | won |")
    assert rule == f"|{'---|' * len(study_page.TRAINED)}"
    assert line == (
        "| hinge, seed 1 | +0.10 → +0.90 | +0.50 (+0.25 to +0.75) | 62% | 4.00 | 2.5 | 6.00 → 6.50 "
        "| refused: perplexity_ratio, kl_per_token | 1,234 |"
    )


PASSED: dict[str, Any] = ROW | {"perplexity_ratio": 1.1, "kl_per_token": 0.1, "verdict": "pass", "refused_by": []}


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({}, []),
        ({"verdict": "fail", "refused_by": ["perplexity_ratio"]}, []),
        ({"perplexity_ratio": 1.1644}, ["perplexity_ratio"]),  # judged when 1.25 was allowed
        ({"perplexity_ratio": 0.6}, ["perplexity_ratio"]),
        ({"gain_low": -0.1}, ["reward_gain"]),
        ({"won": 0.5}, ["win_rate"]),
        ({"reward_sd_ratio": 0.3}, ["reward_sd_ratio"]),
        ({"entropy_base": 5.0}, ["entropy_change"]),
        ({"kl_per_token": math.nan}, ["kl_per_token"]),
        ({"verdict": "fail", "refused_by": ["realism_rise"]}, ["realism_rise"]),  # of which no figure is recorded
    ],
)
def test_a_record_is_judged_by_the_gates_of_today(changed: dict[str, Any], refused: list[str]) -> None:
    row = PASSED | changed
    assert study_page.refused_by(row) == refused
    assert study_page.TRAINED["verdict"](row) == (f"refused: {refused[0]}" if refused else "passed")


def test_kept_texts_are_those_of_the_models_without_the_prompts(tmp_path: Path) -> None:
    row = {"prompt": "This film", "base": "This film was\nbad", "base_reward": -1.0}
    row |= {"aligned": "This film was good", "aligned_reward": 2.0}
    write_json(tmp_path / SAMPLE_TEXTS, [row] * 5)
    found = study.texts(tmp_path)
    assert found == ROW["texts"] * study.SHOWN
    assert list(study_page.samples([ROW])) == ["- hinge: “…was good” (+2.0);", "  base: “…was bad” (-1.0)"]


def test_no_sign_of_a_text_means_anything_to_markdown() -> None:
    assert study_page.literal("a <br />*b*\n_c_ [d](e)") == r"a \<br /\>\*b\* \_c\_ \[d\](e)"


def test_the_page_has_what_is_recorded() -> None:
    """`python -m benchmarks.study page` brings it up to date."""
    page = study_page.PAGE.read_text("utf-8")
    assert study_page.filled(page, study_page.recorded()) == page


def test_a_page_is_filled_between_its_marks_alone() -> None:
    rows = [ROW | {"trial": f"hinge, lr {rate}", "seed": 0} for rate in ("0.001", "1e-05")]
    page = "# Before\n<!-- study: table -->\nold\n<!-- end -->\n<!-- study: cliff texts -->\n<!-- end -->\nafter\n"
    lines = study_page.filled(page, rows).splitlines()
    assert lines[:2] == ["# Before", "<!-- study: table -->"]
    assert [line[:17] for line in lines if line.startswith("| hinge")] == ["| hinge, lr 0.001"]
    assert [line[:17] for line in lines if line.startswith("- hinge")] == ["- hinge, lr 1e-05", "- hinge, lr 0.001"]
    assert "old" not in lines
    assert lines[-1] == "after"
    assert study_page.filled("\n".join(lines), rows) == "\n".join(lines)
