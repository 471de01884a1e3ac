"""The stages on given pairs without a reward: no sample is drawn to train on, and held-out pairs judge the policy."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import models
from alignment.errors import PairsError
from alignment.judging.card import result_table
from alignment.judging.gates import judge
from alignment.judging.report import EvalReport
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.rows import ACCEPTED, PROMPTS, QUARANTINED, RANKED, REFERENCED
from tasks.pipeline import PIPELINE
from tests.alignment.chain import Chain, config, keys
from tests.alignment.preference_rows import row_of, with_chatml, write

ROWS = 40
FAULTY: dict[str, Any] = {"chosen": [], "rejected": []}


@pytest.fixture(scope="module")
def instruct(tiny_gpt2: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 that sees 256 tokens, with a chat template, in the `save_pretrained` layout."""
    folder = tmp_path_factory.mktemp("instruct")
    tokenizer = with_chatml(tiny_tokenizer)
    models.save(Loaded(tiny_gpt2(vocab_size=len(tokenizer), width=8, context=256), tokenizer), folder)
    return folder


def own_pairs(folder: Path, data: Path, **changes: dict[str, Any]) -> Any:
    layers: dict[str, dict[str, Any]] = {
        "data": {"path": str(data), "rows": 0},
        "base": {"model": str(folder)},
        "reward": {"kind": "none"},
        "prompts": {"source": "pairs", "count": 100, "eval_count": 20, "min_eval": 2, "max_tokens": 100},
        "pairs": {"source": "given"},
        "sampling": {"total_tokens": 120, "top_k": 20, "batch_tokens": 960},
        "dpo": {"steps": 20, "batch_size": 8, "loss": "sigmoid", "learning_rate": 1e-2, "stop_chosen_drop": 0.0},
        "evaluation": {"judge": "none"},
    }
    return config(**{name: layers.get(name, {}) | changes.get(name, {}) for name in {*layers, *changes}})


def run_all(root: Path, settings: Any) -> Chain:
    chain = Chain(root, settings)
    for stage in PIPELINE.wanted(settings):
        chain.folders[stage.name] = chain.run(stage.name)
    return chain


@pytest.fixture(scope="module")
def chain(instruct: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Conversations, one of them empty and one with a margin, through every stage."""
    root = tmp_path_factory.mktemp("given")
    rows = [row_of(number, "conversational implicit") for number in range(ROWS)]
    rows[5] |= {"margin": 2.0}
    return run_all(root, own_pairs(instruct, write(root / "pairs.jsonl", [*rows, FAULTY])))


def test_no_sample_is_drawn_for_training(chain: Chain) -> None:
    names = [stage.name for stage in PIPELINE.wanted(chain.config)]
    assert not {"samples", "scores"} & set(names)
    assert names.index("ranking") < names.index("report")


def test_every_row_is_a_pair_of_one_side_or_faulty(chain: Chain) -> None:
    prompts, pairs = chain.counts["prompts"], chain.counts["pairs"]
    assert prompts["empty_chat"] == 1
    assert pairs["rows"] == ROWS + 1 == pairs["kept"] + pairs["held_out"] + pairs["faulty"] + pairs["without_prompt"]
    assert (pairs["held_out"], pairs["faulty"], pairs["without_prompt"]) == (prompts["eval"], 1, 0)
    assert pairs["built"] == pairs["kept"] + 1


def test_a_pair_is_on_the_side_of_its_prompt(chain: Chain) -> None:
    sides = {row["prompt_id"]: row["split"] for row in PROMPTS.read(chain.folders["prompts"])}
    accepted = ACCEPTED.read(chain.folders["validation"])
    assert {sides[row["prompt_id"]] for row in accepted} == {"train"}
    ranked = RANKED.read(chain.folders["ranking"])
    assert {row["prompt_id"] for row in ranked} == {prompt for prompt, side in sides.items() if side == "eval"}


def test_unscored_pairs_are_accepted_and_the_faulty_row_is_set_apart_by_its_name(chain: Chain) -> None:
    accepted, quarantined = (table.read(chain.folders["validation"]) for table in (ACCEPTED, QUARANTINED))
    assert len(accepted) == chain.counts["pairs"]["kept"]
    assert {row["chosen_score"] for row in accepted} == {None}
    assert [dict(row)["broken"] for row in quarantined] == [["empty_chat"]]


def test_a_loss_that_learns_the_scores_refuses_pairs_without_them(chain: Chain, instruct: Path, tmp_path: Path) -> None:
    """One row has a margin, which is a gap; before a step is trained the others are counted."""
    gaps = [row["gap"] for row in REFERENCED.read(chain.folders["reference"])]
    asked = own_pairs(instruct, chain.root / "pairs.jsonl", dpo={"loss": "distill"})
    other = Chain(tmp_path, asked, dict(chain.folders))
    with pytest.raises(PairsError) as refused:
        other.run("policy")
    assert str(refused.value) == (
        f"dpo.loss = distill learns from the scores of both texts, and {gaps.count(None)} of {len(gaps)} pairs have "
        "none: take another loss, or set pairs.source to samples, which are scored"
    )
    assert "policy" not in other.told


def test_the_references_log_probs_are_the_bases_own(chain: Chain) -> None:
    loaded = models.load_base(chain.folders["base"] / "model")
    rows = REFERENCED.read(chain.folders["reference"])
    for side in ("chosen", "rejected"):
        fresh = score_completions(
            loaded.model,
            [row["prompt_ids"] for row in rows],
            [row[f"{side}_ids"] for row in rows],  # type: ignore[literal-required]
            pad_id=loaded.pad_id,
            batch_tokens=1,
        )
        assert [row[f"reference_{side}"] for row in rows] == pytest.approx(fresh.tolist(), abs=1e-4)  # type: ignore[literal-required]
    assert chain.counts["reference"] == {"from_sampling": 0, "scored": len(rows)}


def test_the_report_has_the_texts_fluency_and_the_ranking_of_held_out_pairs_and_no_reward(chain: Chain) -> None:
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    assert not report.has_reward
    assert report.winners_mean is None
    assert report.delta.get("reward_gain") is None
    assert report.delta.perplexity_ratio > 0
    ranked = RANKED.read(chain.folders["ranking"])
    margins = [
        0.5 * (row["policy_chosen"] - row["base_chosen"] - row["policy_rejected"] + row["base_rejected"])
        for row in ranked
    ]
    found = report.preferences
    assert found is not None
    assert (found.pairs, found.left_out) == (len(ranked), 0)
    assert found.margin == pytest.approx(sum(margins) / len(margins))
    assert found.accuracy == pytest.approx(sum(margin > 0 for margin in margins) / len(margins))
    assert found.accuracy > 0.9  # the rejected side alone says "No"


def test_the_gates_say_what_they_could_not_apply_and_judge_the_ranking(chain: Chain) -> None:
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    found = judge(report, chain.config.gates)
    assert found.not_applied == dict.fromkeys(("reward_gain", "win_rate", "reward_sd_ratio"), "no reward")
    (gate,) = (gate for gate in found.gates if gate.name == "preference_accuracy")
    assert (gate.passed, gate.low, gate.strict) == (True, 0.5, True)


def test_a_sampled_configuration_has_no_ranking() -> None:
    assert "ranking" not in {stage.name for stage in PIPELINE.wanted(config())}


@pytest.mark.parametrize("format", ["standard explicit", "standard implicit", "conversational explicit"])
def test_each_format_goes_through_to_the_accepted_pairs(instruct: Path, tmp_path: Path, format: str) -> None:
    data = write(
        tmp_path / "pairs.jsonl",
        [row_of(number, format) | {"score_chosen": 3, "score_rejected": 1} for number in range(ROWS)],
    )
    settings = own_pairs(instruct, data)
    chain = Chain(tmp_path, settings)
    for name in ("texts", "base", "prompts", "pairs", "validation"):
        chain.folders[name] = chain.run(name)
    accepted = ACCEPTED.read(chain.folders["validation"])
    assert len(accepted) == chain.counts["pairs"]["kept"] == ROWS - chain.counts["prompts"]["eval"]
    assert {(row["chosen_score"], row["rejected_score"], row["gap"]) for row in accepted} == {(3.0, 1.0, 2.0)}


def test_given_scores_are_no_baseline_of_the_configured_reward(instruct: Path, tmp_path: Path) -> None:
    """A file's grades from 1 to 10 say nothing beside the lengths that the reward gives."""
    (tmp_path / "rule.py").write_text("def length(completions):\n    return [float(len(c)) for c in completions]\n")
    rows = [row_of(number, "standard explicit") | {"score_chosen": 9, "score_rejected": 1} for number in range(ROWS)]
    function = {"kind": "function", "function": f"{tmp_path / 'rule.py'}:length"}
    chain = run_all(tmp_path, own_pairs(instruct, write(tmp_path / "pairs.jsonl", rows), reward=function))
    assert {row["chosen_score"] for row in ACCEPTED.read(chain.folders["validation"])} == {9.0}
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    assert report.has_reward
    assert report.winners_mean is None
    assert "baseline" not in result_table(report)


def test_pairs_of_a_file_of_their_own_are_held_out_and_none_of_them_is_trained_on(
    instruct: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "conversational explicit") for number in range(20)])
    other = write(tmp_path / "held-out.jsonl", [row_of(number, "conversational explicit") for number in range(15, 25)])
    chain = Chain(tmp_path, own_pairs(instruct, data, prompts={"eval_path": str(other)}))
    for name in ("texts", "base", "prompts", "pairs", "validation"):
        chain.folders[name] = chain.run(name)
    assert chain.counts["prompts"] == {"train": 15, "eval": 10, "held_out_too": 5}
    assert chain.counts["pairs"]["kept"] == 15
    checks = json.loads((chain.folders["validation"] / "checks.json").read_text())
    assert checks["figures"]["shared_prompts"] == 0
    chain.folders["policy"] = chain.folders["base"]
    chain.folders["ranking"] = chain.run("ranking")
    ranked = RANKED.read(chain.folders["ranking"])
    assert len(ranked) == 10
    assert all(row["policy_chosen"] == pytest.approx(row["base_chosen"]) for row in ranked)


def test_a_reward_judges_the_texts_of_the_evaluation_beside_the_ranking(
    instruct: Path, reward_folder: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "standard explicit") for number in range(ROWS)])
    chain = run_all(tmp_path, own_pairs(instruct, data, reward={"kind": "classifier", "model": str(reward_folder)}))
    report = EvalReport.model_validate_json((chain.folders["report"] / "report.json").read_text())
    assert report.has_reward
    assert report.preferences is not None
    assert report.winners_mean is None
    assert not judge(report, chain.config.gates).not_applied


def test_where_no_row_is_a_pair_to_train_on_the_way_out_is_told(instruct: Path, tmp_path: Path) -> None:
    """As after rounds that have used every prompt."""
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "standard explicit") for number in range(ROWS)])
    chain = Chain(tmp_path, own_pairs(instruct, data))
    for name in ("texts", "base", "prompts"):
        chain.folders[name] = chain.run(name)
    used = [row["prompt_id"] for row in PROMPTS.read(chain.folders["prompts"]) if row["split"] == "train"]
    (tmp_path / "used.txt").write_text("\n".join(used))
    later = Chain(
        tmp_path / "later",
        own_pairs(instruct, data, prompts={"exclude": str(tmp_path / "used.txt")}),
        dict(chain.folders),
    )
    later.root.mkdir()
    later.folders["prompts"] = later.run("prompts")
    with pytest.raises(PairsError, match=rf"none of {ROWS} rows is a pair .* run `plumbline check`"):
        later.run("pairs")


def test_what_decides_the_token_ids_is_in_the_keys_of_pairs_and_ranking(instruct: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "standard explicit") for number in range(3)])
    before, after = (keys(own_pairs(instruct, data, prompts=changed)) for changed in ({}, {"system": "Be kind."}))
    assert {"prompts", "pairs", "ranking"} <= {name for name in before if before[name] != after[name]}
