"""The Markdown of a run: an honest baseline, cells that cannot break a table, and the limits said aloud."""

import re
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.judging.card import (
    gates_list,
    gates_table,
    in_markdown,
    result_list,
    result_rows,
    result_table,
    samples_list,
    samples_table,
)
from alignment.judging.model_card import model_card
from alignment.judging.report import EvalReport, GateResult, Judgement, RewardResult, SampleRow
from tests.reports import make_report

GATES = (
    GateResult(name="win_rate", value=0.93, low=0.55, high=None, passed=True, why="too few prompts got a better text"),
    GateResult(name="kl_per_token", value=0.31, low=None, high=0.2, passed=False, why="the policy went too far"),
)
JUDGEMENT = Judgement(verdict="fail", sentence="Refused: KL per token 0.31 exceeds 0.2.", gates=GATES)
SAMPLE = SampleRow(prompt="the film", base=" was bad", base_reward=-1.0, aligned=" was good", aligned_reward=1.25)


def report(grammatical: float | None = None, **delta: Any) -> EvalReport:
    return make_report(
        base={"reward_mean": -0.31, "grammatical": grammatical},
        aligned={"reward_mean": 1.19, "length": 43.0, "grammatical": grammatical},
        delta={"win_rate_length_matched": 0.91, "kl_per_token": 0.061} | delta,
    )


def columns(table: str) -> set[int]:
    return {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}


def test_the_baseline_is_the_base_models_own_samples_and_the_biased_one_is_named_so() -> None:
    rows = {row[0]: row[1:] for row in result_rows(report())}
    assert rows["reward, mean"] == ("−0.31", "+1.19", "+1.50 (+1.40 to +1.60)")
    assert rows["biased baseline: mean score of the winners"] == ("+0.66", "+1.19", "+0.53")
    assert "winners are picked for their score" in result_table(report())


def test_where_the_reward_scored_no_pairs_nothing_is_said_of_winners() -> None:
    found = report().model_copy(update={"winners_mean": None})
    assert len(result_rows(found)) == len(result_rows(report())) - 1
    assert "winners" not in result_table(found)
    assert "baseline" not in result_table(found)


def test_rows_carry_units_and_signs() -> None:
    rows = {row[0]: row[1:] for row in result_rows(report())}
    assert rows["length (tokens)"] == ("40.0", "43.0", "+3.0")
    assert rows["KL from the base (nats per token)"] == ("0", "0.061", "–")
    assert rows["perplexity under the base"] == ("12.00", "12.00", "×1.08")
    assert rows["distinct 2-grams"] == ("40.0%", "40.0%", "0.0 points")
    assert rows["reward gain (SDs of the base's reward)"] == ("–", "–", "+1.25")


def test_a_gain_has_its_interval_beside_it() -> None:
    found = report(reward_gain_at_equal_length=1.2, reward_gain_at_equal_length_ci=(1.05, 1.4))
    rows = {row[0]: row[1:] for row in result_rows(found)}
    assert rows["reward gain at equal length"] == ("–", "–", "+1.20 (+1.05 to +1.40)")


@pytest.mark.parametrize(("judged", "shown"), [(None, False), (0.9, True)])
def test_grammar_has_a_row_only_where_it_was_judged(judged: float | None, shown: bool) -> None:
    assert ("grammatical sentences" in {row[0] for row in result_rows(report(judged))}) is shown
    card = model_card(AlignConfig(), report(judged), JUDGEMENT, [SAMPLE], {})
    assert ("grammatical was not judged" in card) is not shown


def test_the_gold_judge_has_a_row_only_where_it_judged() -> None:
    judged = make_report(base={"gold_sentiment": -0.1}, aligned={"gold_sentiment": 0.6})
    assert ("gold sentiment (−1 to 1, by the grammar)", "−0.10", "+0.60", "+0.70") in result_rows(judged)
    assert not any("gold" in row[0] for row in result_rows(report()))


def test_models_that_were_trained_here_show_how_good_they_are() -> None:
    trained = report().model_copy(update={"base_validation_perplexity": 9.5, "reward_validation_accuracy": 0.97})
    rows = [
        ("base model's perplexity of held-out texts", "9.50", "–", "–"),
        ("reward model's accuracy on held-out texts", "97.0%", "97.0%", "–"),
    ]
    assert result_rows(trained) == [*result_rows(report()), *rows]
    card = model_card(AlignConfig(), trained, JUDGEMENT, [SAMPLE], {})
    assert all(f"| {' | '.join(row)} |" in card for row in rows)


def test_drift_has_rows_only_where_an_anchor_was_given() -> None:
    """The aligned model's reward is 2 above the anchor's, the base's one half."""
    figures = {"base_kl_per_token": 0.05, "kl_per_token": 0.12, "base_perplexity_ratio": 1.02}
    far = report().model_copy(update={"drift": make_report(drift=figures).drift})
    rows = [
        ("KL from the anchor, the first base (nats per token)", "0.050", "0.120", "+0.070"),
        ("perplexity under the anchor, over its own", "×1.02", "×1.10", "–"),
        ("reward above the anchor's", "+0.50", "+2.00", "–"),
    ]
    assert [row for row in result_rows(far) if row not in result_rows(report())] == rows
    card = model_card(AlignConfig(), far, JUDGEMENT, [SAMPLE], {})
    assert all(f"| {' | '.join(row)} |" in card for row in rows)
    assert "anchor" not in result_table(report())


@pytest.mark.parametrize("sampling", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.9}])
def test_a_kl_on_shifted_samples_is_called_an_estimate(sampling: dict[str, float]) -> None:
    shifted, plain = (AlignConfig.model_validate({"sampling": values}) for values in (sampling, {}))
    for config, told in ((shifted, True), (plain, False)):
        assert ("an estimate on shifted samples" in model_card(config, report(), JUDGEMENT, [SAMPLE], {})) is told


def test_figures_of_a_metric_that_is_no_longer_installed_are_shown_under_its_name() -> None:
    found = make_report(base={"shouting": 0.25, "gone": 1.0}, aligned={"shouting": 0.5})
    rows = [("shouting", "0.25", "0.50", "+0.25"), ("gone", "1.00", "–", "–")]
    assert [row for row in result_rows(found) if row not in result_rows(make_report())] == rows


def test_a_win_rate_that_could_not_be_had_is_a_dash_and_a_limit() -> None:
    without = report(win_rate_length_matched=None)
    assert ("prompts won, at like lengths", "–", "–", "–") in result_rows(without)
    assert "length may explain the wins" in model_card(AlignConfig(), without, JUDGEMENT, [SAMPLE], {})


def test_gates_show_value_bound_verdict_and_meaning() -> None:
    assert gates_table(JUDGEMENT).splitlines()[2:] == [
        "| win rate | 0.93 | ≥ 0.55 | passed | too few prompts got a better text |",
        "| kl per token | 0.31 | ≤ 0.2 | FAILED | the policy went too far |",
    ]


def test_a_control_character_is_shown_as_a_sign() -> None:
    """A byte-level model may write a NUL, which PostgreSQL refuses; line breaks and tabs are spaces."""
    assert in_markdown("a\x00b\tc\nd\x1be\x7f") == "a␀b c d␛e␡"


def test_texts_cannot_break_out_of_the_table() -> None:
    nasty = "a | b\nc <img src=x> ![i](http://x) `code` \\| **bold**"
    table = samples_table([SAMPLE.model_copy(update={"prompt": nasty, "base": nasty, "aligned": ""})], 5)
    assert columns(table) == {6}
    assert len(table.splitlines()) == 3
    assert "<img" not in table
    assert "![" not in table


def test_samples_are_cut_to_the_limit_and_long_texts_to_a_line() -> None:
    long = SAMPLE.model_copy(update={"base": "x" * 5_000})
    assert len(samples_table([long] * 3, 2).splitlines()) == 4
    assert len(samples_table([long], 1)) < 1_000
    assert "−1.00" in samples_table([SAMPLE], 1)


@pytest.mark.parametrize(("adapter", "told"), [("lora", True), ("none", False)])
def test_the_card_says_how_much_was_trained_by_an_adapter(adapter: str, told: bool) -> None:
    config = AlignConfig.model_validate({"dpo": {"adapter": adapter, "adapter_rank": 8}})
    counts = {"pairs": 5, "trainable_parameters": 4_884_480, "all_parameters": 139_399_488} if told else {"pairs": 5}
    card = model_card(config, report(), JUDGEMENT, [SAMPLE], {}, counts)
    assert ("| Adapter | LoRA, rank 8, 4,884,480 trainable parameters (3.5% of all); merged" in card) is told
    assert ("Adapter" in card) is told


def test_the_card_says_of_an_adapter_that_is_registered_apart_that_it_is() -> None:
    config = AlignConfig.model_validate({"dpo": {"adapter": "lora"}, "registry": {"adapter": "separate"}})
    card = model_card(config, report(), JUDGEMENT, [SAMPLE], {}, {"trainable_parameters": 1, "all_parameters": 50})
    assert "1 trainable parameters (2.0% of all); registered without its base's weights, whose content" in card
    assert "merged into the weights" not in card


def test_the_card_says_what_how_and_what_was_not_checked() -> None:
    config = AlignConfig.model_validate({"dpo": {"nll_weight": 0.2}, "base": {"model": "org/some_base"}})
    card = model_card(config, report(), JUDGEMENT, [SAMPLE] * 9, {"pairs": "abc123"})
    assert card.startswith(f"# {config.registry.model_name}\n\n{JUDGEMENT.sentence}\n")
    for text in ("org/some_base", "DPO, hinge, beta 0.5, NLL weight 0.2", "learning rate 0.0003", "| pairs | abc123 |"):
        assert text in card
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == [
        "## How it was made",
        "## Result",
        "## Gates",
        "## Samples",
        "## Limits: what was not checked",
        "## Lineage",
    ]
    assert "toxicity" in card
    assert card.count("| the film |") == 5


def test_a_list_says_what_the_table_says_where_there_is_no_room_for_one() -> None:
    lines = result_list(report()).splitlines()
    assert len(lines) == len(result_rows(report()))
    for line, (name, before, after, change) in zip(lines, result_rows(report()), strict=True):
        assert line.startswith(f"- {name}: ")
        assert all(figure in line for figure in (before, after, change) if figure != "–")
    gates = gates_list(JUDGEMENT).splitlines()
    assert ["**FAILED**" in line for line in gates] == [not gate.passed for gate in JUDGEMENT.gates]
    assert all(gate.why in line for line, gate in zip(gates, JUDGEMENT.gates, strict=True) if not gate.passed)
    assert SAMPLE.prompt in samples_list([SAMPLE], 1)
    assert samples_list([SAMPLE], 0) == ""


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ({}, "classifier, trained here from the data's labels"),
        ({"start": "some/backbone"}, "classifier, trained here from the data's labels, starting at some/backbone"),
        ({"kind": "function", "function": "my_rules.py:brief"}, "function, my_rules.py:brief"),
        ({"kind": "judge", "judge": {"url": "http://127.0.0.1/v1", "model": "grader"}}, "judge, grader"),
        (
            {
                "kind": "sum",
                "parts": [
                    {"name": "kind", "model": "some/model", "normalise": True, "weight": 2},
                    {"name": "brief", "kind": "function", "function": "my_rules.py"},
                ],
            },
            "sum of 2 × kind (classifier, some/model, over its SD); 1 × brief (function, my_rules.py)",
        ),
    ],
)
def test_the_card_says_what_the_reward_is(reward: dict[str, Any], told: str) -> None:
    card = model_card(build_config({"reward": reward}), make_report(), JUDGEMENT, [SAMPLE], {})
    assert f"| Reward | {told} |" in card


def test_several_rewards_stand_in_the_table_with_what_they_left_out() -> None:
    def result(name: str, **fields: Any) -> RewardResult:
        figures = {"prompts": 9, "base_mean": 0.5, "aligned_mean": 1.5, "gain": 1.0, "gain_ci": (0.75, 1.25)}
        return RewardResult(name=name, **(figures | fields))

    found = make_report(
        parts=(result("brief", weight=0.5),), gold=(result("second", unscored_base=3),), unscored_base=2
    )
    rows = {row[0]: row[1:] for row in result_rows(found)}
    assert rows["part brief, weight 0.5"] == ("+0.50", "+1.50", "+1.00 (+0.75 to +1.25)")
    assert rows["gold second, 3 samples without a score"] == ("+0.50", "+1.50", "+1.00 (+0.75 to +1.25)")
    assert rows["samples without a reward"] == ("2", "0", "–")


@pytest.mark.parametrize(
    ("engines", "told"),
    [
        (
            {"training": "endpoint", "evaluation": "local", "common_random_numbers": True},
            "The engine “endpoint” drew the training samples. "
            "The engine “local” drew both models' samples, with common random numbers.",
        ),
        (
            {"training": "", "evaluation": "vllm", "common_random_numbers": False},
            "The engine “vllm” drew both models' samples, without common random numbers, so that the intervals of "
            "differences are wider than with them.",
        ),
    ],
)
def test_engines_are_told_where_they_are_not_this_project_s_own(engines: dict[str, Any], told: str) -> None:
    assert result_table(make_report(engines=engines)).endswith(told)
    assert "engine" not in result_table(make_report())


def test_log_probs_that_are_rounded_are_told() -> None:
    told = "The log-probs of both models, and so KL and perplexity, were computed in bf16."
    assert result_table(make_report(precision="bf16")).endswith(told)
    assert "computed in" not in result_table(make_report())
