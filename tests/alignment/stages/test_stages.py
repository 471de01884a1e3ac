"""The stages up to the policy on a shrunken default, without a scheduler: real folders, and counts that sum."""

import json

import pytest
from safetensors.torch import load_file

from alignment import models
from alignment.errors import DataError, ModelError, PairsError
from alignment.logprobs import score_completions
from alignment.rows import ACCEPTED, SAMPLES, SCORES
from alignment.stages.store import digest_folder
from tests.alignment.chain import HELD_OUT, PROMPTS, STEPS, TEXTS
from tests.alignment.conftest import read_rows

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
    parts = [chain.counts[f"samples {first}"] for first in (0, 5, 10)]
    assert {name: sum(part[name] for part in parts) for name in counts} == counts
    assert len(rows("samples", "samples.parquet")) == 2 * PROMPTS


def test_every_sample_has_a_score(chain, rows):
    assert chain.counts["scores"] == {"scored": 2 * PROMPTS, "unscored": 0, "truncated": 0}
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
    whole = chain.other(tmp_path, sampling={"batch_tokens": 2048})
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
    assert str(raised.value).startswith("sampling.total_tokens = 24 exceeds the context of 16 tokens that base.model")


def test_a_model_that_is_given_is_copied_whole(chain, base_folder, reward_folder, tmp_path):
    given = chain.other(tmp_path, base={"model": str(base_folder)}, reward={"model": str(reward_folder)})
    assert models.load_base(given.run("base") / "model").model.config.n_positions == 16
    assert models.load_reward(given.run("reward") / "model").model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert given.counts == {"base": {"copied": 1}, "reward": {"copied": 1}}


def test_the_empty_prompt_is_written_as_no_text(chain, tmp_path):
    empty = chain.other(tmp_path, prompts={"source": "empty"})
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
    SCORES.write(tmp_path, [{**row, "reward": 0.5} for row in rows("scores", "scores.parquet")])
    with pytest.raises(PairsError) as raised:
        tied.run("pairs")
    assert str(raised.value) == (
        "pairs: all 12 candidates tied, so there is nothing to prefer; the reward model gives every text the same "
        "score: check reward.model and reward.positive_class, or draw more varied samples"
    )


@pytest.mark.parametrize(
    ("reward", "way_out"),
    [
        (
            {"kind": "judge"},
            r"; look at the judge's answers, .*reward\.judge\.pattern and reward\.judge\.max_answer_tok",
        ),
        ({"kind": "function", "function": "rule.py:brief"}, r"; find out why reward\.function returns None for them"),
        ({"kind": "classifier"}, "; find out why the reward classifier gives none"),
    ],
)
def test_where_no_prompt_has_two_scored_samples_these_are_named_and_the_way_out(chain, rows, tmp_path, reward, way_out):
    alone = chain.other(tmp_path, reward=reward)
    alone.folders["scores"] = tmp_path
    found = rows("scores", "scores.parquet")
    SCORES.write(tmp_path, [row | ({"reward": None} if row["index"] else {}) for row in found])
    unscored = len(found) - PROMPTS
    with pytest.raises(
        PairsError, match=rf"^pairs: no prompt .* since {unscored} samples have none{way_out}"
    ) as raised:
        alone.run("pairs")
    assert str(raised.value).endswith(f", or raise sampling.samples_per_prompt = {len(found) // PROMPTS}")


def test_a_judge_that_scores_all_the_same_is_no_reward_model(chain, rows, tmp_path):
    tied = chain.other(tmp_path, reward={"kind": "judge"})
    tied.folders["scores"] = tmp_path
    SCORES.write(tmp_path, [row | {"reward": 7.0} for row in rows("scores", "scores.parquet")])
    with pytest.raises(PairsError, match=r"all 12 candidates tied, .* set pairs\.source to judged, which compares"):
        tied.run("pairs")


# The reference


def test_the_log_probs_of_sampling_are_those_of_a_fresh_forward(chain, rows):
    loaded = models.load_base(chain.folders["base"] / "model")
    pairs = rows("reference", "pairs.parquet")
    for side in ("chosen", "rejected"):
        prompts, completions = [row["prompt_ids"] for row in pairs], [row[f"{side}_ids"] for row in pairs]
        fresh = score_completions(loaded.model, prompts, completions, pad_id=loaded.pad_id)
        assert [row[f"reference_{side}"] for row in pairs] == pytest.approx(fresh, abs=1e-4)
    assert {row["reference"] for row in pairs} == {digest_folder(chain.folders["base"])}


def test_samples_in_half_precision_carry_log_probs_that_are_not_exact(chain, tmp_path):
    half = chain.other(tmp_path, sampling={"precision": "bf16"})
    assert {row["exact_logprob"] for row in SAMPLES.read(half.sample("shard 0", 0, PROMPTS))} == {False}
    assert {row["exact_logprob"] for row in SAMPLES.read(chain.folders["samples"])} == {True}


def test_log_probs_that_are_not_exact_are_computed_again_by_the_reference(chain, rows, tmp_path):
    """Whatever stands in the pair; those that are exact are taken as they are."""
    accepted = rows("validation", "accepted.parquet")
    some = [{**row, "exact_logprob": bool(n % 2), "chosen_logprob": -1.0} for n, row in enumerate(accepted)]
    other = chain.other(tmp_path)
    other.folders["validation"] = tmp_path / "given"
    other.folders["validation"].mkdir()
    ACCEPTED.write(other.folders["validation"], some)
    found = read_rows(other.run("reference") / "pairs.parquet")
    exact = len(accepted) // 2
    assert other.counts["reference"] == {"from_sampling": exact, "scored": len(accepted) - exact}
    for number, (row, pair) in enumerate(zip(found, accepted, strict=True)):
        assert row["reference_chosen"] == (-1.0 if number % 2 else pytest.approx(pair["chosen_logprob"], abs=1e-4))
        assert row["reference_rejected"] == pytest.approx(pair["rejected_logprob"], abs=1e-4)


def test_a_data_file_that_changes_while_it_is_read_is_refused(chain, tmp_path, monkeypatch):
    """Its texts would be kept under the key of the old content."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfine,1\ndull,0\n")
    given = chain.other(tmp_path, data={"path": str(path)}, evaluation={"judge": "none"})
    from alignment.data import texts

    def changed(*args, **options):
        found = load(*args, **options)
        path.write_text("text,label\nother,1\n")
        return found

    load = texts.load_texts
    monkeypatch.setattr(texts, "load_texts", changed)
    with pytest.raises(DataError, match="a file changed while it was read; run again"):
        given.run("texts")


# The policy


def test_the_policy_is_the_base_after_its_steps(chain):
    history = json.loads((chain.folders["policy"] / "history.json").read_text())
    assert [row["step"] for row in history] == [1, 2, 3]
    assert len(chain.rows) == STEPS
    base, policy = (load_file(chain.folders[name] / "model" / "model.safetensors") for name in ("base", "policy"))
    moves = [float((base[name] - policy[name]).abs().max()) for name in base]
    assert 0 < max(moves) < 0.01  # three steps of at most 3e-4, each about as long as the learning rate


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


def test_every_folder_holds_only_what_its_stage_promises(chain):
    expected = {
        "texts": {"texts.parquet", "labels.json"},
        "base": {"model", "metrics.json"},
        "reward": {"model", "metrics.json"},
        "prompts": {"prompts.parquet"},
        "samples": {"parts.json", "rows.json"},
        "samples 0": {"samples.parquet", "rows.json"},
        "scores": {"parts.json", "rows.json"},
        "scores 0": {"scores.parquet", "rows.json"},
        "pairs": {"parts.json", "rows.json"},
        "pairs 0": {"pairs.parquet", "rows.json"},
        "validation": {"parts.json", "rows.json", "checks.json"},
        "validation 0": {"accepted.parquet", "quarantined.parquet", "rows.json", "tally.json", "tally.npz"},
        "reference": {"pairs.parquet"},
        "policy": {"model", "history.json"},
        "before": {"samples.parquet"},
        "after": {"samples.parquet"},
        "report": {"report.json", "samples.json"},
    }
    folders = chain.folders | {name: chain.root / name for name in ("samples 0", "scores 0", "pairs 0", "validation 0")}
    assert {name: {file.name for file in folder.iterdir()} for name, folder in folders.items()} == expected


def test_a_reward_model_that_reads_only_a_part_says_of_how_many(chain, reward_folder, tmp_path):
    """It sees 16 tokens of its own, and texts have up to 24 of the base's."""
    given = chain.other(tmp_path, reward={"model": str(reward_folder)})
    given.folders["reward"] = given.run("reward")
    texts = [row["text"] for row in read_rows(chain.folders["samples"] / "samples.parquet")]
    tokenizer = models.load_reward(reward_folder).tokenizer
    longer = sum(len(ids) > 16 for ids in tokenizer(texts)["input_ids"])
    given.run("scores")
    assert given.counts["scores"] == {"scored": 2 * PROMPTS, "unscored": 0, "truncated": longer}
    assert longer > 0
