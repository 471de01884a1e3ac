"""The stages one after the other on a shrunken default, without a scheduler: real folders, and counts that sum."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignment import models, stages
from alignment.config import AlignConfig, build_config, merge
from alignment.errors import ModelError, PairsError
from alignment.logprobs import score_completions
from alignment.pipeline import STAGES
from alignment.report import EvalReport
from alignment.stages import Job, read_rows, write_rows

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # Great Expectations' imports

TEXTS, PROMPTS, HELD_OUT, STEPS = 300, 12, 6, 3
SIZE = {"layers": 1, "width": 16, "heads": 2, "context": 32, "batch_size": 4, "learning_rate": 1e-2}
SHRUNKEN: dict[str, dict[str, Any]] = {
    "data": {"rows": TEXTS},
    "base": SIZE | {"vocab_size": 300, "steps": 30},
    "reward": SIZE | {"steps": 10},
    "prompts": {"count": PROMPTS, "eval_count": HELD_OUT, "tokens_min": 4, "tokens_max": 6},
    "sampling": {"samples_per_prompt": 2, "total_tokens": 24, "top_k": 20, "batch_size": 7, "shard_prompts": 5},
    "validation": {
        "min_gap": 0.0,
        "min_tokens": 1,
        "min_chars": 1,
        "max_length_ratio": 1_000.0,
        "min_pairs": 1,
        "max_quarantined": 1.0,
        "chosen_longer_min": 0.0,
        "chosen_longer_max": 1.0,
        "max_length_correlation": 1.0,
        "min_distinct_prompts": 1,
    },
    "dpo": {"steps": STEPS, "batch_size": 2, "warmup_steps": 1, "log_every": 1},
    "evaluation": {"samples_per_prompt": 2, "bootstrap": 100, "judge": "grammar"},
}


def config(**changes: dict[str, Any]) -> AlignConfig:
    return build_config(merge(SHRUNKEN, changes))


@dataclass
class Chain:
    """Runs stages into folders of their own below `root`; keeps what each counted."""

    root: Path
    config: AlignConfig
    folders: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    told: dict[str, tuple[int, int]] = field(default_factory=dict)

    def run(self, name: str, folder: str = "", fill: str = "", **options: Any) -> Path:
        """Fill `folder`, by default the stage's own name, with a stage or with another function of its file."""
        stage = STAGES[name]
        module, _, function = (fill or stage.fill).partition(":")
        out, work = self.root / (folder or name), self.root / f"work-{folder or name}"
        out.mkdir()
        work.mkdir()

        def progress(done: int, total: int) -> None:
            self.told[name] = (done, total)

        job = Job(
            self.config,
            {need: self.folders[need] for need in stage.needs if need in self.folders},
            out,
            work,
            progress,
            self.rows.append if name == "policy" else None,
            options,
        )
        self.counts[folder or name] = getattr(importlib.import_module(module), function)(job)
        return out

    def sample(self, name: str, first: int, last: int) -> Path:
        return self.run("samples", name, "alignment.stages:sample_shard", first=first, last=last)

    def other(self, root: Path, **changes: dict[str, Any]) -> "Chain":
        """The same folders so far, under another configuration."""
        return Chain(root, config(**changes), dict(self.folders))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Every stage but the anchor's, the samples in shards of 5, 5 and 2 prompts."""
    chain = Chain(tmp_path_factory.mktemp("chain"), config())
    for name in [stage.name for stage in STAGES.values() if stage.when(chain.config)]:
        options: dict[str, Any] = {}
        if name == "samples":
            shards = [chain.sample(f"shard {first}", first, min(first + 5, PROMPTS)) for first in (0, 5, 10)]
            options = {"shards": [str(shard) for shard in shards]}
        if name == "reference":
            options = {"reference": "the base model's digest"}
        chain.folders[name] = chain.run(name, **options)
    return chain


@pytest.fixture
def rows(chain: Chain) -> Callable[[str, str], list[dict[str, Any]]]:
    """`rows(stage, file)` of the chain."""
    return lambda stage, file: read_rows(chain.folders[stage] / file)


# Counts


def test_the_texts_are_all_there(chain, rows):
    assert chain.counts["texts"] == {"read": TEXTS, "kept": TEXTS}
    assert len(rows("texts", "texts.parquet")) == TEXTS


def test_every_text_became_a_prompt_or_is_counted(chain, rows):
    counts = chain.counts["prompts"]
    assert sum(counts.values()) == TEXTS
    assert (counts["train"], counts["eval"]) == (PROMPTS, HELD_OUT)
    assert len(rows("prompts", "prompts.parquet")) == PROMPTS + HELD_OUT


def test_every_prompt_has_its_samples_and_every_sample_an_end(chain, rows):
    counts = chain.counts["samples"]
    assert counts["samples"] == 2 * PROMPTS == counts["finished"] + counts["truncated"]
    parts = [chain.counts[f"shard {first}"] for first in (0, 5, 10)]
    assert {name: sum(part[name] for part in parts) for name in counts} == counts
    assert len(rows("samples", "samples.parquet")) == 2 * PROMPTS


def test_every_sample_has_a_score(chain, rows):
    assert chain.counts["scores"] == {"scored": 2 * PROMPTS, "truncated": 0}
    samples, scores = rows("samples", "samples.parquet"), rows("scores", "scores.parquet")
    assert [{**sample, "reward": score["reward"]} for sample, score in zip(samples, scores, strict=True)] == scores


def test_every_candidate_is_a_pair_or_a_tie(chain, rows):
    counts = chain.counts["pairs"]
    assert counts["candidates"] == PROMPTS == counts["built"] + counts["ties"] + counts["not_needed"]
    assert len(rows("pairs", "pairs.parquet")) == counts["built"]


def test_every_pair_is_accepted_or_quarantined(chain, rows):
    counts = chain.counts["validation"]
    assert counts["pairs"] == chain.counts["pairs"]["built"] == counts["accepted"] + counts["quarantined"]
    assert len(rows("validation", "accepted.parquet")) == counts["accepted"]
    assert len(rows("validation", "quarantined.parquet")) == counts["quarantined"]


def test_every_accepted_pair_is_learnt_from(chain):
    accepted = chain.counts["validation"]["accepted"]
    assert accepted > 0
    assert chain.counts["reference"] == {"from_sampling": accepted, "scored": 0}
    assert chain.counts["policy"] == {"pairs": accepted, "steps": STEPS, "stopped_early": 0}


@pytest.mark.parametrize("side", ["before", "after"])
def test_every_held_out_prompt_is_answered_by_both_models(chain, rows, side):
    counts = chain.counts[side]
    assert (counts["prompts"], counts["samples"]) == (HELD_OUT, 2 * HELD_OUT)
    assert counts["finished"] + counts["truncated"] == counts["samples"] == len(rows(side, "samples.parquet"))
    assert chain.counts["report"] == {"prompts": HELD_OUT, "samples": 2 * HELD_OUT}


def test_long_stages_tell_their_progress_to_the_end(chain):
    last = {name: told for name, told in chain.told.items() if told[0] == told[1]}
    assert {"base", "reward", "samples", "scores", "policy", "before", "after"} <= set(last)


# Prompts and samples


def test_a_prompt_is_told_as_the_text_of_its_tokens(chain, rows):
    tokenizer = models.load_base(chain.folders["base"] / "model").tokenizer
    texts = [row["text"] for row in rows("texts", "texts.parquet")]
    for row in rows("prompts", "prompts.parquet"):
        assert row["prompt"] == tokenizer.decode(row["prompt_ids"])
        assert any(text.startswith(row["prompt"]) for text in texts)
        assert 4 <= len(row["prompt_ids"]) <= 6


def test_no_held_out_prompt_is_sampled_for_pairs(rows):
    split = {row["prompt_id"]: row["split"] for row in rows("prompts", "prompts.parquet")}
    assert {split[row["prompt_id"]] for row in rows("samples", "samples.parquet")} == {"train"}
    assert {split[row["prompt_id"]] for row in rows("before", "samples.parquet")} == {"eval"}


def test_samples_in_shards_are_the_samples_at_once(chain, rows, tmp_path):
    whole = chain.other(tmp_path, sampling={"batch_size": 64})
    found = read_rows(whole.sample("all", 0, PROMPTS) / "samples.parquet")
    for one, sharded in zip(found, rows("samples", "samples.parquet"), strict=True):
        assert one.pop("logprob") == pytest.approx(sharded.pop("logprob"), abs=1e-4)
        assert one == sharded


def test_the_text_of_a_sample_is_its_prompt_and_what_follows(rows):
    for row in rows("samples", "samples.parquet"):
        assert row["text"].startswith(row["prompt"])
        assert row["finished"] == (row["ids"][-1] == 0)
        assert row["finished"] or len(row["prompt_ids"]) + len(row["ids"]) == 24
        assert "<|endoftext|>" not in row["text"]


def test_a_base_with_too_short_a_context_is_refused_before_it_writes(chain, base_folder, tmp_path):
    """It sees 16 tokens and 24 are asked for; the prompts may come from an earlier run that asked for fewer."""
    given = chain.other(tmp_path, base={"model": str(base_folder)})
    given.folders["base"] = given.run("base")
    with pytest.raises(ModelError) as raised:
        given.sample("shard", 0, PROMPTS)
    assert str(raised.value).startswith("sampling.total_tokens = 24 exceeds the base model's context of 16 tokens")


def test_a_model_that_is_given_is_brought_in_whole(chain, base_folder, reward_folder, tmp_path):
    given = chain.other(tmp_path, base={"model": str(base_folder)}, reward={"model": str(reward_folder)})
    assert models.load_base(given.run("base") / "model").model.config.n_positions == 16
    assert models.load_reward(given.run("reward") / "model").model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert given.counts == {"base": {"brought_in": 1}, "reward": {"brought_in": 1}}


def test_the_empty_prompt_is_written_as_no_text(chain, tmp_path):
    empty = chain.other(tmp_path, prompts={"mode": "empty"})
    found = read_rows(empty.run("prompts") / "prompts.parquet")
    assert {(tuple(row["prompt_ids"]), row["prompt"]) for row in found} == {((0,), "")}
    assert empty.counts["prompts"] == {"train": PROMPTS, "eval": HELD_OUT}


# Pairs


def test_a_pair_is_two_samples_of_one_prompt_with_their_scores(rows):
    samples = {(row["prompt_id"], row["index"]): row for row in rows("scores", "scores.parquet")}
    for pair in rows("pairs", "pairs.parquet"):
        prompt_id, chosen, rejected = pair["pair_id"].split("-")
        better, worse = samples[prompt_id, int(chosen)], samples[prompt_id, int(rejected)]
        assert pair["gap"] == better["reward"] - worse["reward"] > 0
        assert (pair["chosen_ids"], pair["rejected_ids"]) == (better["ids"], worse["ids"])
        assert (pair["chosen_tokens"], pair["rejected_tokens"]) == (len(better["ids"]), len(worse["ids"]))
        assert (pair["chosen"], pair["prompt_ids"]) == (better["text"], worse["prompt_ids"])
        assert pair["strategy"] == "best_vs_worst"


def test_only_as_many_pairs_are_kept_as_were_asked_for(chain, tmp_path):
    few = chain.other(tmp_path, pairs={"max_pairs": 5})
    built = read_rows(few.run("pairs") / "pairs.parquet")
    counts = few.counts["pairs"]
    assert (counts["built"], len(built), len({row["pair_id"] for row in built})) == (5, 5, 5)
    assert counts["candidates"] == PROMPTS == counts["built"] + counts["ties"] + counts["not_needed"]


def test_samples_that_all_score_the_same_give_nothing_to_learn(chain, rows, tmp_path):
    tied = chain.other(tmp_path)
    tied.folders["scores"] = tmp_path
    write_rows(tmp_path / "scores.parquet", [{**row, "reward": 0.5} for row in rows("scores", "scores.parquet")])
    with pytest.raises(PairsError) as raised:
        tied.run("pairs")
    assert str(raised.value) == (
        "pairs: all 12 candidates tied, so there is nothing to prefer; the reward model gives every text the same "
        "score: check reward.model and reward.positive_class, or draw more varied samples"
    )


# The reference


def test_the_log_probs_of_sampling_are_those_of_a_fresh_forward(chain, rows):
    loaded = models.load_base(chain.folders["base"] / "model")
    pairs = rows("reference", "pairs.parquet")
    for side in ("chosen", "rejected"):
        prompts, completions = [row["prompt_ids"] for row in pairs], [row[f"{side}_ids"] for row in pairs]
        fresh = score_completions(loaded.model, prompts, completions, pad_id=loaded.pad_id, batch_size=4)
        assert [row[f"reference_{side}"] for row in pairs] == pytest.approx(fresh, abs=1e-4)
    assert {row["reference"] for row in pairs} == {"the base model's digest"}


def test_after_sampling_in_half_precision_the_reference_is_scored_again_in_full(chain, rows, tmp_path):
    half = chain.other(tmp_path, sampling={"precision": "bf16"})
    shard = half.sample("shard 0", 0, PROMPTS)
    assert len(read_rows(shard / "samples.parquet")) == 2 * PROMPTS
    found = read_rows(half.run("reference", reference="digest") / "pairs.parquet")
    accepted = rows("validation", "accepted.parquet")
    assert half.counts["reference"] == {"from_sampling": 0, "scored": len(accepted)}
    for side in ("chosen", "rejected"):  # these samples were drawn in full precision, so both ways agree
        expected = [row[f"{side}_logprob"] for row in accepted]
        assert [row[f"reference_{side}"] for row in found] == pytest.approx(expected, abs=1e-4)


# The policy and the report


def test_the_policy_is_the_base_after_its_steps(chain):
    history = json.loads((chain.folders["policy"] / "history.json").read_text())
    assert [row["step"] for row in history] == [1, 2, 3]
    assert len(chain.rows) == STEPS
    base, policy = (load_file(chain.folders[name] / "model" / "model.safetensors") for name in ("base", "policy"))
    moves = [float((base[name] - policy[name]).abs().max()) for name in base]
    assert 0 < max(moves) < 0.01  # three steps of at most 3e-4, each about as long as the learning rate


def test_the_base_model_is_measured_against_itself(rows):
    assert all(row["base_logprob"] == row["logprob"] for row in rows("before", "samples.parquet"))
    assert any(row["base_logprob"] != row["logprob"] for row in rows("after", "samples.parquet"))
    assert all(0 <= row["grammatical"] <= 1 for row in rows("before", "samples.parquet"))
    assert all(-1 <= row["gold"] <= 1 for row in rows("before", "samples.parquet"))


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
        assert {(row["grammatical"], row["gold"]) for row in found} == {(None, None)}
    report = EvalReport.model_validate_json((unjudged.run("report") / "report.json").read_text())
    assert report.base.grammatical is None
    assert report.base.gold_sentiment is None


def test_the_report_can_be_read_again_and_agrees_with_the_samples(chain, rows):
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    before, after = rows("before", "samples.parquet"), rows("after", "samples.parquet")
    assert report.prompts == HELD_OUT
    for side, found in ((report.base, before), (report.aligned, after)):
        assert side.reward_mean == pytest.approx(sum(row["reward"] for row in found) / len(found))
        assert side.length == pytest.approx(sum(len(row["ids"]) for row in found) / len(found))
        assert side.gold_sentiment == pytest.approx(sum(row["gold"] for row in found) / len(found))
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
        under = score_completions(anchor.model, [row["prompt_ids"]], [row["ids"]], pad_id=anchor.pad_id, batch_size=1)
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
    assert {file.name for file in found.folders["drift"].iterdir()} == {"samples.parquet", "drift.json"}
    assert found.counts["drift"]["samples"] == 2 * HELD_OUT
    assert found.counts["anchor"] == {"brought_in": 1}


# Prompts of earlier rounds


def test_a_round_is_cut_from_what_an_earlier_one_left(chain, rows, tmp_path):
    first = rows("prompts", "prompts.parquet")
    used = [row["prompt_id"] for row in first if row["split"] == "train"]
    (tmp_path / "used.txt").write_text("\n".join(used) + "\n")
    second = chain.other(tmp_path, prompts={"exclude": str(tmp_path / "used.txt")})
    found = read_rows(second.run("prompts") / "prompts.parquet")
    new = [row["prompt_id"] for row in found if row["split"] == "train"]
    assert len(new) == PROMPTS
    assert not set(new) & set(used)
    assert [row for row in found if row["split"] == "eval"] == [row for row in first if row["split"] == "eval"]
    counts = second.counts["prompts"]
    assert counts["used_before"] >= PROMPTS
    assert sum(counts.values()) == TEXTS


def test_the_table_shows_one_sample_of_each_prompt_before_and_after(chain, rows):
    table = json.loads((chain.folders["report"] / "samples.json").read_text())
    before = [row for row in rows("before", "samples.parquet") if row["index"] == 0]
    assert [row["prompt"] for row in table] == [row["prompt"] for row in before]
    assert [row["base"] for row in table] == [row["text"] for row in before]


def test_every_folder_holds_only_what_its_stage_promises(chain):
    expected = {
        "texts": {"texts.parquet"},
        "base": {"model", "metrics.json"},
        "reward": {"model", "metrics.json"},
        "prompts": {"prompts.parquet"},
        "samples": {"samples.parquet"},
        "scores": {"scores.parquet"},
        "pairs": {"pairs.parquet"},
        "validation": {"accepted.parquet", "quarantined.parquet", "checks.json"},
        "reference": {"pairs.parquet"},
        "policy": {"model", "history.json"},
        "before": {"samples.parquet"},
        "after": {"samples.parquet"},
        "report": {"report.json", "samples.json"},
    }
    assert {name: {file.name for file in folder.iterdir()} for name, folder in chain.folders.items()} == expected


def test_one_base_model_is_kept_between_shards(chain):
    folder = chain.folders["base"] / "model"
    stages._kept_base.cache_clear()
    assert stages._base(folder) is stages._base(folder)


def test_the_base_model_that_was_kept_sets_its_threads_again(chain, monkeypatch):
    """A reward model of another size may have been loaded in between."""
    placed: list[object] = []
    loaded = stages._base(chain.folders["base"] / "model")
    monkeypatch.setattr(models, "place", placed.append)
    assert stages._base(chain.folders["base"] / "model") is loaded
    assert placed == [loaded.model]


def test_a_reward_model_that_reads_only_a_part_says_of_how_many(chain, reward_folder, tmp_path):
    """It sees 16 tokens of its own, and texts have up to 24 of the base's."""
    given = chain.other(tmp_path, reward={"model": str(reward_folder)})
    given.folders["reward"] = given.run("reward")
    texts = [row["text"] for row in read_rows(chain.folders["samples"] / "samples.parquet")]
    tokenizer = models.load_reward(reward_folder).tokenizer
    longer = sum(len(ids) > 16 for ids in tokenizer(texts)["input_ids"])
    given.run("scores")
    assert given.counts["scores"] == {"scored": 2 * PROMPTS, "truncated": longer}
    assert longer > 0
