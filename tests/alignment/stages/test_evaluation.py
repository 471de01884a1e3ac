"""The judging stages on a shrunken default: both models on the same prompts, the report, the drift to an anchor."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import models
from alignment.errors import ModelError
from alignment.judging.report import EvalReport
from alignment.logprobs import score_completions
from alignment.stages import kept
from tests.alignment.chain import HELD_OUT, Chain
from tests.alignment.conftest import read_rows


def fresh(model: Path, found: list[dict[str, Any]], precision: str = "fp32") -> list[float]:
    """The log-probs of samples under a stage's model, one forward pass each."""
    loaded = models.load_base(model / "model", precision=precision)
    return [
        float(score_completions(loaded.model, [row["prompt_ids"]], [row["ids"]], pad_id=loaded.pad_id)[0])
        for row in found
    ]


# Both sides and the report


@pytest.mark.parametrize("side", ["before", "after"])
def test_every_held_out_prompt_is_answered_by_both_models(chain, rows, side):
    counts = chain.counts[side]
    assert (counts["prompts"], counts["samples"]) == (HELD_OUT, 2 * HELD_OUT)
    assert counts["finished"] + counts["truncated"] == counts["samples"] == len(rows(side, "samples.parquet"))
    assert chain.counts["report"] == {"prompts": HELD_OUT, "samples": 2 * HELD_OUT}


def test_log_probs_are_each_model_s_own(chain, rows):
    before, after = rows("before", "samples.parquet"), rows("after", "samples.parquet")
    under = fresh(chain.folders["base"], [*before, *after])
    assert [row["base_logprob"] for row in [*before, *after]] == pytest.approx(under, abs=1e-4)
    assert [row["logprob"] for row in before] == pytest.approx(under[: len(before)], abs=1e-4)
    assert any(row["base_logprob"] != pytest.approx(row["logprob"], abs=1e-3) for row in after)
    assert all(0 <= row["judged.grammatical"] <= 1 for row in rows("before", "samples.parquet"))
    assert all(-1 <= row["judged.gold_sentiment"] <= 1 for row in rows("before", "samples.parquet"))


def test_after_sampling_in_half_precision_log_probs_are_taken_again_in_full(chain, tmp_path):
    """The KL gate rests on them: rounding must not look like distance."""
    half = chain.other(tmp_path, sampling={"precision": "bf16"})
    for side, writer in (("before", "base"), ("after", "policy")):
        found = read_rows(half.run(side) / "samples.parquet")
        assert [row["logprob"] for row in found] == pytest.approx(fresh(chain.folders[writer], found), abs=1e-4)
        assert [row["base_logprob"] for row in found] == pytest.approx(fresh(chain.folders["base"], found), abs=1e-4)


def test_in_half_precision_both_models_log_probs_are_rounded_alike(chain, tmp_path):
    """Those of samples that were drawn in fp32 too: beside the base's, rounding must not look like distance."""
    half = chain.other(tmp_path, evaluation={"precision": "bf16"})
    for side, writer in (("before", "base"), ("after", "policy")):
        half.folders[side] = half.run(side)
        found = read_rows(half.folders[side] / "samples.parquet")
        own, base = (fresh(chain.folders[name], found, "bf16") for name in (writer, "base"))
        assert [row["logprob"] for row in found] == pytest.approx(own, abs=1e-1)
        assert [row["base_logprob"] for row in found] == pytest.approx(base, abs=1e-1)
        assert [row["logprob"] for row in found] != pytest.approx(fresh(chain.folders[writer], found), abs=1e-4)
        assert not any(row["exact_logprob"] for row in found)
    report = EvalReport.model_validate_json((half.run("report") / "report.json").read_text())
    assert report.precision == "bf16"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_model_is_in_memory_at_a_time(chain, tmp_path, monkeypatch, precision):
    """A card that has room for the largest need not have it for two: base, aligned model, anchor, reward model."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    loaded: list[str] = []

    def counted(load: Callable[..., models.Loaded]) -> Callable[..., models.Loaded]:
        def counting(*args: Any, **kwargs: Any) -> models.Loaded:
            assert not alive
            found = load(*args, **kwargs)
            alive.add(found.model)
            loaded.append(type(found.model).__name__)
            return found

        return counting

    for name in ("load_base", "load_reward"):
        monkeypatch.setattr(models, name, counted(getattr(models, name)))
    kept.forget_model()
    anchor = str(chain.folders["base"] / "model")
    other = chain.other(tmp_path, sampling={"precision": precision}, evaluation={"anchor": anchor})
    for side in ("before", "after", "anchor", "drift"):
        other.folders[side] = other.run(side)
    assert {"GPT2LMHeadModel", "DistilBertForSequenceClassification"} == set(loaded)


def test_a_policy_that_did_not_move_writes_what_the_base_writes(chain, rows, tmp_path):
    """Both sides draw common random numbers."""
    unmoved = chain.other(tmp_path)
    unmoved.folders["policy"] = unmoved.folders["base"]
    for one, two in zip(
        read_rows(unmoved.run("after") / "samples.parquet"), rows("before", "samples.parquet"), strict=True
    ):
        assert one.pop("base_logprob") == pytest.approx(two.pop("base_logprob"), abs=1e-4)
        assert one == two


def test_without_a_judge_nothing_is_called_grammatical(chain, tmp_path):
    unjudged = chain.other(tmp_path, evaluation={"judge": "none"})
    for side in ("before", "after"):
        unjudged.folders[side] = unjudged.run(side)
        found = read_rows(unjudged.folders[side] / "samples.parquet")
        assert not [name for name in found[0] if name.startswith("judged.")]
    report = EvalReport.model_validate_json((unjudged.run("report") / "report.json").read_text())
    assert report.base.get("grammatical") is None
    assert report.base.get("gold_sentiment") is None


def test_the_report_can_be_read_again_and_agrees_with_the_samples(chain, rows):
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    before, after = rows("before", "samples.parquet"), rows("after", "samples.parquet")
    assert report.prompts == HELD_OUT
    for side, found in ((report.base, before), (report.aligned, after)):
        assert side.reward_mean == pytest.approx(sum(row["reward"] for row in found) / len(found))
        assert side.length == pytest.approx(sum(len(row["ids"]) for row in found) / len(found))
        assert side.gold_sentiment == pytest.approx(sum(row["judged.gold_sentiment"] for row in found) / len(found))
    assert report.delta.reward_gain == pytest.approx(report.aligned.reward_mean - report.base.reward_mean)
    accepted = rows("validation", "accepted.parquet")
    assert report.winners_mean == pytest.approx(sum(row["chosen_score"] for row in accepted) / len(accepted))


def test_the_report_carries_how_good_the_models_are_that_were_trained_here(chain, tmp_path):
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    base, reward = (json.loads((chain.folders[name] / "metrics.json").read_text()) for name in ("base", "reward"))
    assert base == {"validation_perplexity": report.base_validation_perplexity}
    assert reward == {"validation_accuracy": report.reward_validation_accuracy}
    given = chain.other(tmp_path)
    given.folders["base"] = given.folders["reward"] = tmp_path  # a model that is given was not measured
    report = EvalReport.model_validate_json((given.run("report") / "report.json").read_text())
    assert (report.base_validation_perplexity, report.reward_validation_accuracy) == (None, None)


def test_the_table_shows_one_sample_of_each_prompt_before_and_after(chain, rows):
    table = json.loads((chain.folders["report"] / "samples.json").read_text())
    before, after = ([row for row in rows(side, "samples.parquet") if not row["index"]] for side in ("before", "after"))
    assert [row["prompt"] for row in table] == [row["prompt"] for row in before]
    assert [(row["base"], row["base_reward"]) for row in table] == [(row["text"], row["reward"]) for row in before]
    assert [(row["aligned"], row["aligned_reward"]) for row in table] == [(row["text"], row["reward"]) for row in after]


# The anchor


def anchored(chain: Chain, root: Path, model: Path) -> Chain:
    """The chain's later stages, with drift measured to `model`."""
    found = chain.other(root, evaluation={"anchor": str(model)})
    for name in ("anchor", "drift", "report"):
        found.folders[name] = found.run(name)
    return found


def report_of(chain: Chain) -> EvalReport:
    return EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())


def test_a_base_that_is_the_anchor_has_not_drifted_and_the_policy_as_far_as_from_the_base(chain, rows, tmp_path):
    """The anchor draws the base's random numbers, so it writes what the base writes; grammar is judged all the same."""
    found = anchored(chain, tmp_path, chain.folders["base"] / "model")
    report, drift = report_of(found), report_of(found).drift
    assert drift is not None
    assert drift.base_kl_per_token == pytest.approx(0.0, abs=1e-5)
    assert drift.base_perplexity_ratio == pytest.approx(1.0, abs=1e-5)
    assert drift.kl_per_token == pytest.approx(report.delta.kl_per_token, abs=1e-5)
    assert drift.perplexity_ratio == pytest.approx(report.delta.perplexity_ratio, abs=1e-5)
    assert drift.anchor_reward_mean == pytest.approx(report.base.reward_mean)
    assert drift.reward_gain == pytest.approx(report.delta.reward_gain)
    own = read_rows(found.folders["drift"] / "samples.parquet")
    assert [row["ids"] for row in own] == [row["ids"] for row in rows("before", "samples.parquet")]
    assert report.model_copy(update={"drift": None}) == report_of(chain)
    assert report_of(chain).drift is None


def test_drift_to_another_model_is_that_of_its_own_log_probs(chain, rows, tmp_path):
    """The policy stands in for an anchor: it has not drifted from itself, and the base is scored anew, one by one."""
    drift = report_of(anchored(chain, tmp_path, chain.folders["policy"] / "model")).drift
    assert drift is not None
    assert (drift.kl_per_token, drift.perplexity_ratio) == pytest.approx((0.0, 1.0), abs=1e-5)
    assert drift.reward_gain == pytest.approx(0.0, abs=1e-6)
    anchor = models.load_base(chain.folders["policy"] / "model")
    before, tokens, total = rows("before", "samples.parquet"), 0, 0.0
    for row in before:
        under = score_completions(anchor.model, [row["prompt_ids"]], [row["ids"]], pad_id=anchor.pad_id)
        total += row["logprob"] - float(under[0])
        tokens += len(row["ids"])
    assert drift.base_kl_per_token == pytest.approx(total / tokens, abs=1e-5)
    assert drift.base_kl_per_token != 0


def test_an_anchor_of_another_vocabulary_is_refused(chain, base_folder, tmp_path):
    found = chain.other(tmp_path, evaluation={"anchor": str(base_folder)})
    found.folders["anchor"] = found.run("anchor")
    with pytest.raises(ModelError, match=r"^evaluation\.anchor: its vocabulary of \d+ tokens is not the base model's"):
        found.run("drift")


def test_the_anchor_s_folders_hold_only_what_they_promise(chain, tmp_path):
    found = anchored(chain, tmp_path, chain.folders["base"] / "model")
    assert {file.name for file in found.folders["anchor"].iterdir()} == {"model"}
    assert {file.name for file in found.folders["drift"].iterdir()} == {"samples.parquet", "anchored.parquet"}
    assert found.counts["drift"]["samples"] == 2 * HELD_OUT
    assert found.counts["anchor"] == {"copied": 1}
