"""Rewards through the stages: samples without a score, parts of a sum with their scales, and second judges."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ScoreError
from alignment.judging.card import result_rows, result_table
from alignment.judging.report import EvalReport
from alignment.stages.job import SCRATCH
from alignment.stages.plan import key_of
from alignment.stages.set_aside import is_set_aside
from alignment.stages.store import StageRef
from tasks.pipeline import PIPELINE
from tests.alignment.chain import HELD_OUT, PROMPTS, Chain, keys
from tests.alignment.conftest import read_rows

RULES = (
    "def length(completions, **_):\n    return [float(len(c)) for c in completions]\n"
    "def vowels(completions, **_):\n    return [float(sum(c.count(v) for v in 'aeiou')) for c in completions]\n"
    "def unsure(completions, **_):\n    return [None if len(c) % 5 == 0 else float(len(c)) for c in completions]\n"
    "def silent(completions, **_):\n    return [None if len(c) % 3 else 1.0 for c in completions]\n"
)


@pytest.fixture(autouse=True)
def _rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.py").write_text(RULES, encoding="utf-8")


@pytest.fixture
def run(chain: Chain, tmp_path: Path) -> Callable[..., Chain]:
    """`run(stages, **changes)`: some stages again, under another reward; the rest is the chain's."""

    def other(stages: str, **changes: Any) -> Chain:
        found = chain.other(tmp_path, **changes)
        for name in stages.split():
            found.folders[name] = found.run(name)
        return found

    return other


def rule(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "function", "function": f"rules.py:{name}"} | fields


def report(found: Chain) -> EvalReport:
    return EvalReport.model_validate_json((found.folders["report"] / "report.json").read_text(encoding="utf-8"))


# Samples without a score


def test_samples_without_a_score_are_counted_and_in_no_pair(run: Any) -> None:
    found = run("reward scores pairs", reward={"kind": "function", "function": "rules.py:unsure"})
    rows = read_rows(found.folders["scores"] / "scores.parquet")
    unscored = [row for row in rows if len(row["completion"]) % 5 == 0]
    assert unscored
    assert [row for row in rows if row["reward"] is None] == unscored
    assert found.counts["scores"] == {
        "scored": len(rows) - len(unscored),
        "unscored": len(unscored),
        "truncated": 0,
    }
    counts = found.counts["pairs"]
    halves = [row["prompt_id"] for row in unscored]  # two samples a prompt: one without a score leaves nothing to pair
    assert counts["unscored"] == len(unscored)
    assert counts["prompts_unpaired"] == len(set(halves))
    assert counts["candidates"] == PROMPTS - len(set(halves))


def test_the_evaluation_keeps_their_rows_and_takes_figures_over_the_others(run: Any) -> None:
    found = run(
        "reward scores pairs validation before after report", reward={"kind": "function", "function": "rules.py:unsure"}
    )
    sides = {side: read_rows(found.folders[side] / "samples.parquet") for side in ("before", "after")}
    read = report(found)
    for side, figures, unscored in (
        ("before", read.base, read.unscored_base),
        ("after", read.aligned, read.unscored_aligned),
    ):
        rewards = [row["reward"] for row in sides[side] if row["reward"] is not None]
        assert len(sides[side]) == 2 * HELD_OUT
        assert unscored == found.counts[side]["unscored"] == len(sides[side]) - len(rewards)
        assert figures.reward_mean == pytest.approx(statistics.mean(rewards))
        assert figures.reward_sd == pytest.approx(statistics.stdev(rewards))
        assert figures.length == pytest.approx(statistics.mean(len(row["ids"]) for row in sides[side]))
    means = {
        side: {
            prompt: statistics.mean(each)
            for prompt in {row["prompt_id"] for row in rows}
            if (each := [row["reward"] for row in rows if row["prompt_id"] == prompt and row["reward"] is not None])
        }
        for side, rows in sides.items()
    }
    both = means["before"].keys() & means["after"].keys()
    assert read.compared == len(both)
    assert read.delta.reward_gain == pytest.approx(
        statistics.mean(means["after"][prompt] - means["before"][prompt] for prompt in both)
    )


def test_more_than_half_without_a_score_stop_the_run(run: Any) -> None:
    with pytest.raises(
        ScoreError, match=r"^reward: function gave no score for \d+ of 24 samples, which is more than half"
    ):
        run("reward scores", reward={"kind": "function", "function": "rules.py:silent"})


def test_a_classifier_scores_in_the_precision_that_is_asked_for(chain: Chain, tmp_path: Path) -> None:
    """Rounded to 8 bits of mantissa: off by more than fp32 is, and by little."""
    exact, rounded = (
        [row["reward"] for row in read_rows(folder / "scores.parquet")]
        for folder in (chain.folders["scores"], chain.other(tmp_path, reward={"precision": "bf16"}).run("scores"))
    )
    assert rounded == pytest.approx(exact, abs=0.1)
    assert rounded != pytest.approx(exact, abs=1e-5)


# Sums


def test_a_sums_parts_stand_in_the_rows_and_the_report_and_are_divided_by_the_sds_of_the_bases_samples(
    run: Any,
) -> None:
    parts = [rule("length", normalise=True, weight=2), rule("vowels", weight=-0.5)]
    found = run("reward scores pairs validation before after report", reward={"kind": "sum", "parts": parts})
    scores = read_rows(found.folders["scores"] / "scores.parquet")
    sd = statistics.stdev(row["part.length"] for row in scores)
    read = report(found)
    for rows in (scores, *(read_rows(found.folders[side] / "samples.parquet") for side in ("before", "after"))):
        for row in rows:
            assert row["part.length"] == len(row["completion"])
            assert row["reward"] == pytest.approx(2 * row["part.length"] / sd - 0.5 * row["part.vowels"])
    length, vowels = read.parts
    assert (length.name, length.weight, vowels.name, vowels.weight) == ("length", 2.0, "vowels", -0.5)
    after = read_rows(found.folders["after"] / "samples.parquet")
    assert length.aligned_mean == pytest.approx(statistics.mean(row["part.length"] for row in after))
    assert length.gain == pytest.approx(length.aligned_mean - length.base_mean)
    assert length.gain_ci[0] <= length.gain <= length.gain_ci[1]
    titles = [row[0] for row in result_rows(read)]
    assert "part length, weight 2" in titles
    assert "part vowels, weight -0.5" in titles


# Second judges


def test_second_judges_score_both_models_samples_and_label_nothing(run: Any, chain: Chain, reward_folder: Path) -> None:
    gold = [rule("vowels"), {"name": "second", "kind": "classifier", "model": str(reward_folder)}]
    found = run("gold report", evaluation={"gold": gold})
    rows = read_rows(found.folders["gold"] / "gold.parquet")
    sides = {side: read_rows(chain.folders[side] / "samples.parquet") for side in ("before", "after")}
    assert [row["gold.vowels"] for row in rows] == [
        float(sum(map(row["completion"].count, "aeiou"))) for side in ("before", "after") for row in sides[side]
    ]
    assert found.counts["gold"] == {"samples": 4 * HELD_OUT, "vowels_unscored": 0, "second_unscored": 0}
    assert not list(found.folders["gold"].glob("**/*.safetensors"))
    read = report(found)
    assert [each.name for each in read.gold] == ["vowels", "second"]
    assert read.delta == report(chain).delta
    assert "gold second" in [row[0] for row in result_rows(read)]
    before = statistics.mean(row["gold.vowels"] for row in rows if row["side"] == "before")
    assert read.gold[0].base_mean == pytest.approx(before)


def test_a_second_judge_adds_its_stage_and_moves_the_report_alone(chain: Chain, tmp_path: Path) -> None:
    plain = keys(chain.config)
    judged = keys(chain.other(tmp_path, evaluation={"gold": [rule("vowels")]}).config)
    assert {name for name in judged if judged[name] != plain.get(name)} == {"gold", "report"}
    other = keys(chain.other(tmp_path, evaluation={"gold": [rule("length")]}).config)
    assert {name for name in other if other[name] != judged[name]} == {"gold", "report"}


def test_a_judge_by_words_learns_from_texts_that_are_set_aside(run: Any, chain: Chain, tmp_path: Path) -> None:
    gold = [{"name": "words", "kind": "tfidf"}]
    found = run("gold report", evaluation={"gold": gold})
    (judge,) = report(found).gold
    assert judge.note.endswith("word salad deceives it like the reward")
    assert "The judge “words” reads which words" in result_table(report(found))
    texts = [row["text"] for row in read_rows(chain.folders["texts"] / "texts.parquet")]
    wanted = found.root / "work-gold" / SCRATCH / "texts" / "texts.parquet"
    assert [row["text"] for row in read_rows(wanted)] == [text for text in texts if is_set_aside(text, 0.25)]
    both, alone = keys(found.config), keys(chain.other(tmp_path, evaluation={"gold": gold, "gold_fraction": 0}).config)
    plain = keys(chain.config)
    assert both["reward"] != plain["reward"] == alone["reward"]


# Keys


def test_the_code_of_a_function_moves_what_it_scores(chain: Chain, tmp_path: Path) -> None:
    config = chain.other(tmp_path, reward={"kind": "function", "function": "rules.py:length"}).config
    ref = StageRef(stage="any", key="k", path=Path(), digest="content", counts={}, seconds=0.0)

    def of_stages() -> dict[str, str]:
        return {stage.name: key_of(stage, config, dict.fromkeys(PIPELINE, ref)) for stage in PIPELINE.wanted(config)}

    before = of_stages()
    Path("rules.py").write_text(RULES + "# edited\n", encoding="utf-8")
    after = of_stages()
    assert {name for name in before if before[name] != after[name]} == {"reward", "scores", "before", "after"}
    Path("elsewhere").mkdir()
    Path("elsewhere/rules.py").write_text(RULES, encoding="utf-8")
    config = chain.other(tmp_path, reward={"kind": "function", "function": "elsewhere/rules.py:length"}).config
    assert of_stages() == before
