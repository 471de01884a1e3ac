"""The gates: what passes, what does not, and the sentence that says so."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import GatesConfig
from alignment.errors import ConfigError
from alignment.judging.gates import gate, judge
from alignment.judging.report import EvalReport, GateResult
from alignment.kinds import GATES, Origin
from tests.reports import make_report

CONFIG = GatesConfig()
relaxed = settings(deadline=None)

GOOD: dict[str, Any] = {
    "reward_gain": 2.31,
    "reward_gain_ci": (2.10, 2.52),
    "reward_sd_ratio": 0.6,
    "win_rate": 0.95,
    "perplexity_ratio": 1.04,
    "length_change": 1.0,
}


def report(grammar_drop: float | None = None, **changes: Any) -> EvalReport:
    """The drop is from its own size to 0, so that no rounding is between the two."""
    aligned = None if grammar_drop is None else 0.0
    return make_report(base={"grammatical": grammar_drop}, aligned={"grammatical": aligned}, delta=GOOD | changes)


def drifted(**changes: float) -> EvalReport:
    return make_report(delta=GOOD, drift=changes)


def failed(judged: Any) -> list[str]:
    return [result.name for result in judged.gates if not result.passed]


def test_a_good_model_may_be_registered() -> None:
    judged = judge(report(), CONFIG)
    assert judged.verdict == "pass"
    assert judged.sentence == (
        "May be registered: reward +2.31 (95% CI 2.10 to 2.52) on held-out prompts, and the text stays as fluent as "
        "the base (perplexity ratio 1.04, KL 0.05 nats per token)."
    )


def test_word_salad_fails_although_its_reward_is_the_highest() -> None:
    """Learning rate 1e-3, beta 0.1, measured: every prompt won, entropy unmoved, perplexity x 8, KL 1.8 per token."""
    salad = report(
        reward_gain=3.4,
        reward_gain_ci=(3.3, 3.5),
        win_rate=1.0,
        win_rate_ci=(1.0, 1.0),
        perplexity_ratio=7.9,
        kl=72.0,
        kl_per_token=1.8,
        entropy_change=0.2,
    )
    judged = judge(salad, CONFIG)
    assert salad.delta.reward_gain > report().delta.reward_gain
    assert judged.verdict == "fail"
    assert failed(judged) == ["perplexity_ratio", "kl_per_token"]
    assert judged.sentence == (
        "Not registered: perplexity ratio 7.90 is outside 0.7..1.1 "
        "(the text is less fluent than the base's, whatever reward it earns), "
        "and KL per token 1.80 exceeds 0.2 "
        "(the policy went further from the base than its reward model can be trusted)."
    )


def test_the_gates_stand_in_order_and_grammar_only_where_it_is_judged() -> None:
    names = ["reward_gain", "win_rate", "perplexity_ratio", "kl_per_token", "reward_sd_ratio", "entropy_change"]
    assert [result.name for result in judge(report(), CONFIG).gates] == names
    assert [result.name for result in judge(report(grammar_drop=0.02), CONFIG).gates] == [*names, "grammatical_drop"]


@pytest.mark.parametrize(
    ("changes", "name", "passed"),
    [
        ({"reward_gain_ci": (0.0, 2.0)}, "reward_gain", False),  # strict: the interval must exclude the bound
        ({"reward_gain_ci": (1e-9, 2.0)}, "reward_gain", True),
        ({"reward_gain_ci": (-0.2, 2.0)}, "reward_gain", False),
        ({"win_rate": 0.55}, "win_rate", True),
        ({"win_rate": 0.549}, "win_rate", False),
        ({"perplexity_ratio": 1.1}, "perplexity_ratio", True),
        ({"perplexity_ratio": 1.101}, "perplexity_ratio", False),
        ({"perplexity_ratio": 0.7}, "perplexity_ratio", True),
        ({"perplexity_ratio": 0.69}, "perplexity_ratio", False),
        ({"kl_per_token": 0.2}, "kl_per_token", True),
        ({"kl_per_token": 0.201}, "kl_per_token", False),
        ({"kl_per_token": -0.01}, "kl_per_token", True),  # an estimate may fall below 0 by chance
        ({"reward_sd_ratio": 0.35}, "reward_sd_ratio", True),
        ({"reward_sd_ratio": 0.34}, "reward_sd_ratio", False),
        ({"entropy_change": 1.0}, "entropy_change", True),  # 1 nat of 5 is the bound of 20%
        ({"entropy_change": 1.01}, "entropy_change", False),
        ({"entropy_change": -1.01}, "entropy_change", False),
        ({"grammar_drop": 0.1}, "grammatical_drop", True),
        ({"grammar_drop": 0.11}, "grammatical_drop", False),
        ({"grammar_drop": -0.5}, "grammatical_drop", True),
    ],
)
def test_each_bound(changes: dict[str, Any], name: str, passed: bool) -> None:
    judged = judge(report(**changes), CONFIG)
    assert {result.name: result.passed for result in judged.gates}[name] is passed
    assert judged.verdict == ("pass" if passed else "fail")
    assert failed(judged) == ([] if passed else [name])


@pytest.mark.parametrize(
    ("aligned", "name"),
    [
        ({"seen_bigrams": 0.5, "realism_auc": 0.75}, None),  # on both bounds
        ({"seen_bigrams": 0.49, "realism_auc": 0.5}, "seen_bigrams_drop"),
        ({"seen_bigrams": 0.9, "realism_auc": 0.76}, "realism_rise"),
        ({"seen_bigrams": math.nan, "realism_auc": 0.5}, "seen_bigrams_drop"),
        ({"seen_bigrams": 0.9, "realism_auc": math.nan}, "realism_rise"),
    ],
)
def test_texts_beside_real_ones_have_gates_of_their_own(aligned: dict[str, float], name: str | None) -> None:
    config = GatesConfig(max_seen_bigrams_drop=0.25, max_realism_rise=0.25)
    compared = make_report(base={"seen_bigrams": 0.75, "realism_auc": 0.5}, aligned=aligned, delta=GOOD)
    assert failed(judge(compared, config)) == ([] if name is None else [name])
    assert {"seen_bigrams_drop", "realism_rise"} <= {result.name for result in judge(compared, config).gates}


def test_the_task_that_fell_most_decides() -> None:
    """From 0.5 to 0.4 is below a bound of 0.11, and not of 0.09; a task on which it became better does not make up."""
    fields = {"metric": "acc", "samples": 100, "base_error": 0.05, "aligned_error": None}
    tasks = [
        {"task": "better", "base": 0.5, "aligned": 0.9, **fields},
        {"task": "worse", "base": 0.5, "aligned": 0.4, **fields},
    ]
    found = EvalReport.model_validate(report().model_dump() | {"tasks": tasks})
    assert failed(judge(found, GatesConfig(max_task_drop=0.11))) == []
    judged = judge(found, GatesConfig(max_task_drop=0.09))
    assert failed(judged) == ["task_drop"]
    assert "acc on worse fell from 0.500 to 0.400" in judged.sentence


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("win_rate", "win_rate"),
        ("perplexity_ratio", "perplexity_ratio"),
        ("kl_per_token", "kl_per_token"),
        ("reward_sd_ratio", "reward_sd_ratio"),
        ("entropy_change", "entropy_change"),
        ("grammar_drop", "grammatical_drop"),
    ],
)
def test_a_value_that_is_not_finite_fails_its_gate(field: str, name: str, value: float) -> None:
    judged = judge(report(**{field: value}), CONFIG)
    assert failed(judged) == [name]
    assert "is not a finite number" in judged.sentence


def test_an_interval_that_is_not_finite_fails() -> None:
    assert failed(judge(report(reward_gain_ci=(math.nan, math.nan)), CONFIG)) == ["reward_gain"]
    assert failed(judge(report(reward_gain_ci=(math.inf, math.inf)), CONFIG)) == ["reward_gain"]


def test_a_base_that_writes_one_word_fails_the_entropy_gate() -> None:
    assert failed(judge(make_report(base={"entropy": 0.0}), CONFIG)) == ["entropy_change"]


def test_the_bounds_come_from_the_configuration() -> None:
    loose = GatesConfig(
        min_gain=-1,
        min_win_rate=0,
        max_perplexity_ratio=100,
        max_kl_per_token=100,
        min_reward_sd_ratio=0,
        max_entropy_change=10,
        max_grammar_drop=1,
    )
    bad = report(
        reward_gain_ci=(-0.5, 2), perplexity_ratio=8.0, kl_per_token=1.8, reward_sd_ratio=0.1, grammar_drop=0.7
    )
    assert judge(bad, loose).verdict == "pass"
    strict = GatesConfig(min_gain=2.2)
    assert failed(judge(report(), strict)) == ["reward_gain"]


class TestDrift:
    def test_its_gates_come_last_and_only_where_an_anchor_was_given(self) -> None:
        without, given = (judge(item, CONFIG) for item in (report(), drifted()))
        assert given.gates[:-3] == without.gates
        assert [gate.name for gate in given.gates[-3:]] == [
            "anchor_kl_per_token",
            "anchor_perplexity_ratio",
            "anchor_reward_sd_ratio",
        ]
        assert given.verdict == "pass"

    @pytest.mark.parametrize(
        ("changes", "name", "passed"),
        [
            ({"kl_per_token": 0.4}, "anchor_kl_per_token", True),
            ({"kl_per_token": 0.401}, "anchor_kl_per_token", False),
            ({"kl_per_token": -0.01}, "anchor_kl_per_token", True),
            ({"kl_per_token": math.inf}, "anchor_kl_per_token", False),
            ({"kl_per_token": math.nan}, "anchor_kl_per_token", False),
            ({"perplexity_ratio": 1.25}, "anchor_perplexity_ratio", True),
            ({"perplexity_ratio": 1.251}, "anchor_perplexity_ratio", False),
            ({"perplexity_ratio": math.inf}, "anchor_perplexity_ratio", False),
            ({"perplexity_ratio": math.nan}, "anchor_perplexity_ratio", False),
            ({"perplexity_ratio": 0.7}, "anchor_perplexity_ratio", True),
            ({"perplexity_ratio": 0.69}, "anchor_perplexity_ratio", False),
            ({"reward_sd_ratio": 0.2}, "anchor_reward_sd_ratio", True),
            ({"reward_sd_ratio": 0.19}, "anchor_reward_sd_ratio", False),
            ({"reward_sd_ratio": math.nan}, "anchor_reward_sd_ratio", False),
        ],
    )
    def test_each_bound(self, changes: dict[str, float], name: str, passed: bool) -> None:
        assert failed(judge(drifted(**changes), CONFIG)) == ([] if passed else [name])

    def test_a_base_that_is_far_is_not_the_aligned_model_s_fault(self) -> None:
        assert judge(drifted(base_kl_per_token=9.0, base_perplexity_ratio=9.0), CONFIG).verdict == "pass"

    def test_a_challenger_that_is_better_today_but_too_far_in_all_is_refused_in_words(self) -> None:
        judged = judge(drifted(kl_per_token=0.5), CONFIG)
        assert judged.sentence == (
            "Not registered: KL per token from the anchor 0.50 exceeds 0.4 "
            "(over all rounds the policy went too far from the first base)."
        )

    def test_the_bounds_come_from_the_configuration(self) -> None:
        far = drifted(kl_per_token=3.0, perplexity_ratio=8.0)
        loose = GatesConfig(max_anchor_kl_per_token=3, max_anchor_perplexity_ratio=8)
        assert judge(far, loose).verdict == "pass"
        assert failed(judge(far, CONFIG)) == ["anchor_kl_per_token", "anchor_perplexity_ratio"]


WORSE = [  # field, and the direction in which it gets no better
    ("reward_gain_ci", -1),
    ("win_rate", -1),
    ("kl_per_token", +1),
    ("reward_sd_ratio", -1),
    ("grammar_drop", +1),
]


@relaxed
@given(st.sampled_from(WORSE), st.floats(-3, 3), st.floats(0, 3))
def test_a_worse_value_never_turns_a_fail_into_a_pass(worse: tuple[str, int], value: float, step: float) -> None:
    field, direction = worse

    def verdict(number: float) -> str:
        changes: dict[str, Any] = {field: (number, 5.0) if field == "reward_gain_ci" else number}
        return judge(report(**changes), CONFIG).verdict

    assert not (verdict(value) == "fail" and verdict(value + direction * step) == "pass")


@relaxed
@given(st.floats(0.7, 1.1), st.floats(0, 3))
def test_perplexity_passes_between_its_bounds_and_nowhere_else(inside: float, beyond: float) -> None:
    assert judge(report(perplexity_ratio=inside), CONFIG).verdict == "pass"
    assert judge(report(perplexity_ratio=1.1000001 + beyond), CONFIG).verdict == "fail"
    assert judge(report(perplexity_ratio=0.6999999 - beyond), CONFIG).verdict == "fail"


@relaxed
@given(
    st.fixed_dictionaries(
        {
            field: st.floats(allow_nan=True, allow_infinity=True)
            for field in ("win_rate", "perplexity_ratio", "kl_per_token", "reward_sd_ratio", "entropy_change")
        }
    )
)
def test_the_verdict_is_a_pass_exactly_where_all_gates_pass(changes: dict[str, float]) -> None:
    judged = judge(report(**changes), CONFIG)
    assert (judged.verdict == "pass") == all(result.passed for result in judged.gates)
    assert judged.sentence.endswith(".")
    assert "\n" not in judged.sentence


class TestSentence:
    def test_a_value_just_over_its_bound_is_shown_with_the_digits_that_say_so(self) -> None:
        assert "KL per token 0.2004 exceeds 0.2 (" in judge(report(kl_per_token=0.20042), CONFIG).sentence

    def test_a_tiny_loss_is_not_shown_as_minus_zero(self) -> None:
        sentence = judge(report(reward_gain_ci=(-0.0004, 1.0)), CONFIG).sentence
        assert sentence == "Not registered: reward gain's lower bound -0.0004 is not above 0 (the gain may be chance)."

    def test_three_failures_are_one_sentence(self) -> None:
        sentence = judge(report(win_rate=0.5, kl_per_token=1.0, reward_sd_ratio=0.2), CONFIG).sentence
        assert "win rate 0.50 is below 0.55 (" in sentence
        assert sentence.count("), ") == 2
        assert sentence.count(", and ") == 1

    def test_too_low_a_perplexity_is_given_its_own_reason(self) -> None:
        assert "stock phrases" in judge(report(perplexity_ratio=0.4), CONFIG).sentence

    def test_the_level_of_the_interval_is_the_report_s(self) -> None:
        assert "(99% CI " in judge(report().model_copy(update={"confidence": 0.99}), CONFIG).sentence

    @relaxed
    @given(st.floats(0.2, 1e12, exclude_min=True))
    def test_the_figure_shown_breaks_the_bound_shown(self, value: float) -> None:
        sentence = judge(report(kl_per_token=value), CONFIG).sentence
        assert float(sentence.split("KL per token ")[1].split(" ")[0]) > 0.2


class TestRegistry:
    def test_one_decorator_line_adds_a_gate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(GATES, "_registered", dict(GATES.all()))
        monkeypatch.setattr(GATES, "_origins", GATES._origins | {"length": Origin(__name__)})

        @gate("length", "change of length")
        def _length(report: EvalReport, config: GatesConfig) -> tuple[float, float | None, float | None, str]:
            return report.delta.length_change, None, 0.5, "the texts drift long"

        assert judge(report(), CONFIG).sentence == (
            "Not registered: change of length 1.00 exceeds 0.5 (the texts drift long)."
        )

    def test_a_gate_whose_figure_is_not_in_the_report_fails_and_says_so(self) -> None:
        judged = judge(make_report(delta={"win_rate": None}), CONFIG)
        assert judged.sentence == (
            "Not registered: win rate is not a finite number (nan) (the report has no win_rate)."
        )
        [result] = [result for result in judged.gates if not result.passed]
        assert (result.name, result.bound) == ("win_rate", "finite")

    def test_a_name_is_taken_once(self) -> None:
        with pytest.raises(ConfigError, match="two gates are called 'win_rate'"):
            gate("win_rate", "win rate")(lambda report, config: None)


@pytest.mark.parametrize(
    ("low", "high", "strict", "bound"),
    [
        (0.55, None, False, ">= 0.55"),
        (None, 0.2, False, "<= 0.2"),
        (0.7, 1.25, False, "0.7..1.25"),
        (0, None, True, "> 0"),
    ],
)
def test_the_bound_as_people_write_it(low: float | None, high: float | None, strict: bool, bound: str) -> None:
    result = GateResult(name="x", value=1.0, low=low, high=high, passed=True, why="", strict=strict)
    assert result.bound == bound


class TestSamplesWithoutAScore:
    """They are left out of the gain, so a model whose bad texts cannot be scored must not win by that."""

    @pytest.mark.parametrize(
        ("base", "aligned", "passed"), [(0, 25, True), (0, 26, False), (30, 55, True), (60, 0, True)]
    )
    def test_more_of_them_than_the_base_has_are_refused(self, base: int, aligned: int, passed: bool) -> None:
        """Of 250 x 2 samples 25 are 5 points."""
        found = report().model_copy(
            update={"prompts": 250, "samples_per_prompt": 2, "unscored_base": base, "unscored_aligned": aligned}
        )
        judged = judge(found, CONFIG)
        assert failed(judged) == ([] if passed else ["unscored_rise"])
        assert ("Without a score, and so left out" in judged.sentence) == passed

    def test_where_all_are_scored_there_is_no_such_gate(self) -> None:
        assert "unscored_rise" not in [gate.name for gate in judge(report(), CONFIG).gates]
