"""The gates' benchmark: seeds in halves, classes by the truth, bounds chosen on one half, and counts on the other."""

import math
from pathlib import Path

import pytest

from alignment.config import GatesConfig
from benchmarks.gates import reporting, rows
from benchmarks.gates.criteria import ALL, BOUNDS, GATE, Bound, Choice, between, choose, chosen, criteria, todays
from benchmarks.gates.grid import DATA, HALVES, SEEDS, SETTINGS, Run, Setting, config_of, hash_of, runs
from benchmarks.gates.rows import Row
from benchmarks.gates.table import Count, count, lines, missed, wrong
from benchmarks.gates.truth import class_of, signals

READ = {
    "reward_gain": 0.5,
    "win_rate": 0.9,
    "perplexity_ratio": 1.0,
    "kl_per_token": 0.05,
    "reward_sd_ratio": 0.6,
    "entropy_change": 0.02,
}
"""What the gates read of a good run."""


def run(seed: int = 101, beta: float = 0.5, data: str = "grammar") -> Run:
    return Run("grammar" if data == "grammar" else "reviews", seed, Setting("hinge", beta, 3e-4))


def row(drop: float, seed: int = 101, beta: float = 0.5, **figures: float) -> Row:
    """A run on the grammar that lost `drop` of its sentences; `figures` of gates differ from a good run's."""
    read = {GATE + name: value for name, value in (READ | figures).items() if name in READ}
    rest = {name: value for name, value in figures.items() if name not in READ}
    truth = {"grammatical_before": 0.875, "grammatical_after": 0.875 - drop}
    return Row(run(seed, beta), read | {"reward_rise": 1.0, "entropy_rise": 0.1, "gold_gain_low": 0.1} | truth | rest)


# The runs


def test_there_are_at_least_sixty_runs_on_both_data_of_different_names():
    every = runs()
    assert len({each.name for each in every}) == len(every) >= 60
    assert {each.data for each in every} == set(DATA)


def test_no_seed_is_in_both_halves_and_each_setting_is_run_on_every_seed():
    assert not set(SEEDS["choose"]) & set(SEEDS["test"])
    for setting in SETTINGS:
        assert {each.seed for each in runs() if each.setting == setting} == {*SEEDS["choose"], *SEEDS["test"]}
    assert {each.seed for each in runs() if each.half == "test"} == set(SEEDS["test"])


def test_the_settings_cover_what_is_to_be_told_apart():
    assert {setting.loss for setting in SETTINGS} == {"hinge", "sigmoid", "ipo"}
    assert min(setting.beta for setting in SETTINGS) == 0.05
    assert max(setting.beta for setting in SETTINGS) == 1.0
    rates = {setting.learning_rate for setting in SETTINGS}
    assert (min(rates), max(rates)) == (5e-5, 1e-3)
    assert any(setting.nll_weight for setting in SETTINGS)
    assert {setting.stop for setting in SETTINGS} == {True, False}


def test_the_early_stop_is_off_where_it_would_hide_the_damage():
    kept, off = Setting("hinge", 0.5, 3e-4, stop=True), Setting("hinge", 0.5, 3e-4)
    assert config_of(Run("grammar", 101, kept), "").dpo.stop_chosen_drop == 4.0
    assert config_of(Run("grammar", 101, off), "").dpo.stop_chosen_drop == 0.0


def test_a_run_on_reviews_reads_the_file_that_is_given():
    config = config_of(Run("reviews", 201, SETTINGS[0]), "reviews.parquet")
    assert (config.data.path, config.seed, config.evaluation.judge) == ("reviews.parquet", 201, "none")


# The truth


@pytest.mark.parametrize(
    ("drop", "expected"),
    [(-0.02, "good"), (0.10, "good"), (0.11, "degraded"), (0.39, "degraded"), (0.41, "word salad")],
)
def test_on_the_grammar_the_class_is_by_the_drop_of_sentences_that_parse(drop: float, expected: str) -> None:
    assert class_of(row(drop)) == expected


@pytest.mark.parametrize(
    ("unseen", "told", "expected"),
    [
        (0.05, 0.9, "good"),
        (0.2, 0.9, "degraded"),
        (0.05, 0.97, "degraded"),
        (0.5, 0.9, "word salad"),
        (0.05, 1.0, "word salad"),
    ],
)
def test_on_reviews_the_class_is_the_worse_of_two_signals(unseen: float, told: float, expected: str) -> None:
    """Text that has shrunk to common words has only known word pairs, and nobody takes it for real."""
    figures = {"seen_before": 0.8, "seen_after": 0.8 * (1 - unseen), "told_after": told}
    assert class_of(Row(run(data="reviews"), figures)) == expected


def test_what_was_not_measured_has_no_class():
    with pytest.raises(ValueError, match=r"grammar-101-hinge-b0\.5-lr0\.0003-s150: unparsed not measured"):
        class_of(Row(run(), {"seen_before": 0.9, "seen_after": 0.8}))
    with pytest.raises(ValueError, match="unseen and told not measured"):
        class_of(Row(run(data="reviews")))


# The criteria


def test_the_notebooks_criterion_passes_word_salad_whose_reward_and_entropy_rose():
    salad = row(0.6, kl_per_token=1.1, perplexity_ratio=3.0)
    found = {name: passes(salad) for name, passes in criteria(todays()).items()}
    assert found["reward and entropy rose (notebook)"]
    assert found["reward rose"]
    assert not found["gate kl_per_token alone"]
    assert not found["gate perplexity_ratio alone"]
    assert not found[ALL]
    assert found["gate reward_sd_ratio alone"]


def test_a_bound_itself_passes_and_a_strict_one_does_not():
    upper, strict = Bound("max_x", "x", upper=True), Bound("min_x", "x", upper=False, strict=True)
    assert upper.keeps(0.2, 0.2)
    assert not upper.keeps(0.21, 0.2)
    assert not strict.keeps(0.0, 0.0)
    assert strict.keeps(0.01, 0.0)
    assert not upper.keeps(math.nan, 0.2)


def test_every_bound_is_one_of_the_configurations_and_starts_as_it_is_there():
    assert todays() == {bound.field: getattr(GatesConfig(), bound.field) for bound in BOUNDS}


# Choosing bounds

KL = Bound("max_kl_per_token", "kl_per_token", upper=True)
SD = Bound("min_reward_sd_ratio", "reward_sd_ratio", upper=False)
CHOOSING = [
    row(0.0, kl_per_token=0.05, reward_sd_ratio=0.6),
    row(0.1, kl_per_token=0.15, reward_sd_ratio=0.4),
    row(0.2, kl_per_token=0.14, reward_sd_ratio=0.5),
    row(0.3, kl_per_token=0.25, reward_sd_ratio=0.2),
    row(0.5, kl_per_token=0.95, reward_sd_ratio=0.1),
]
"""Two good runs and three bad ones, the first of which no bound on the KL can refuse alone."""


def test_todays_bound_stays_where_it_tells_the_runs_apart_as_well():
    found = choose(KL, CHOOSING, today=0.2)
    assert found == Choice(0.2, last_within=0.15, first_beyond=0.25, refused=2, bad=3, good_refused=0)


@pytest.mark.parametrize("today", [0.10, 0.30])
def test_one_that_refuses_a_good_run_or_misses_a_bad_one_moves_to_the_middle_of_the_gap(today: float) -> None:
    assert choose(KL, CHOOSING, today).bound == pytest.approx((0.15 + 0.25) / 2)


def test_a_lower_bound_is_chosen_the_same_way_round():
    found = choose(SD, CHOOSING, today=0.45)
    assert found == Choice(0.3, last_within=0.4, first_beyond=0.2, refused=2, bad=3, good_refused=0)


def test_a_bound_does_not_hang_on_one_run_in_twenty():
    """Of 20 degraded runs one is at 0.13, close to the good ones, and the others begin at 0.20."""
    good = [row(0.0, kl_per_token=0.1, seed=number) for number in range(20)]
    degraded = [row(0.2, kl_per_token=0.20 + 0.01 * number, seed=number) for number in range(19)]
    found = choose(KL, [*good, row(0.2, kl_per_token=0.13), *degraded], today=1.0)
    assert (found.last_within, found.first_beyond, found.refused) == (0.13, 0.2, 19)
    salad = choose(KL, [*good, row(0.6, kl_per_token=0.13), *degraded], today=1.0)
    assert (salad.last_within, salad.first_beyond, salad.refused) == (0.1, 0.13, 20)
    one_far_off = choose(KL, [*good[1:], row(0.0, kl_per_token=0.25), *degraded], today=1.0)
    assert (one_far_off.last_within, one_far_off.first_beyond, one_far_off.good_refused) == (0.1, 0.2, 1)


def test_without_a_bad_run_nothing_is_gained_by_moving():
    good = CHOOSING[:2]
    assert choose(KL, good, today=0.2).bound == 0.2
    assert choose(KL, good, today=0.1).bound == 0.15


def test_a_second_bound_is_asked_for_what_the_first_lets_pass():
    """On the KL alone 0.2 would move to between 0.05 and 0.12; the perplexity refuses that run already."""
    seen = [
        row(0.0, kl_per_token=0.05, perplexity_ratio=1.0),
        row(0.2, kl_per_token=0.12, perplexity_ratio=1.4),
        row(0.2, kl_per_token=0.25, perplexity_ratio=0.9),
    ]
    assert choose(KL, seen, today=0.2).bound == pytest.approx(0.08)
    found = chosen(seen, todays() | {"max_perplexity_ratio": 1.25, "max_kl_per_token": 0.2})
    assert [found[name].bound for name in ("max_perplexity_ratio", "max_kl_per_token")] == [1.25, 0.2]
    assert found["max_kl_per_token"].bad == 1


def test_a_chosen_bound_has_no_more_decimals_than_it_needs():
    assert between(1.1254, 1.1823) == 1.15
    assert between(0.1111, 0.1119) == 0.1115


def test_without_a_good_run_nothing_can_be_chosen():
    with pytest.raises(ValueError, match="max_kl_per_token: none of 2 runs is good"):
        choose(KL, CHOOSING[3:], today=0.2)


# The table


def test_counts_are_of_refusals_of_bad_runs_and_passes_of_good_ones():
    found = count(CHOOSING, lambda each: each.get(f"{GATE}kl_per_token") <= 0.2)
    assert found == {"good": Count(2, 2), "degraded": Count(1, 2), "word salad": Count(1, 1)}
    assert wrong(CHOOSING, lambda each: each.get(f"{GATE}kl_per_token") <= 0.2) == [CHOOSING[2]]


def test_wilsons_interval():
    """Of 9 in 10 by the formula: (0.9 + 0.19207 -+ 1.95996 sqrt(0.009 + 0.0096037)) / 1.38415."""
    assert Count(9, 10).interval == pytest.approx((0.59585, 0.98213), abs=1e-4)
    assert Count(10, 10).interval == pytest.approx((0.72247, 1.0), abs=1e-4)
    assert all(math.isnan(end) for end in Count(0, 0).interval)


def test_a_row_of_the_table_has_counts_and_intervals():
    table = list(lines({"all gates": count(CHOOSING, lambda _: False)}))
    assert table[-1] == "| all gates | 1/1 100% (21–100) | 2/2 100% (34–100) | 0/2 0% (0–66) |"


def test_a_target_is_missed_by_a_single_word_salad():
    assert missed({"good": Count(20, 20), "degraded": Count(19, 20), "word salad": Count(10, 10)}) == []
    assert missed({"good": Count(20, 20), "degraded": Count(20, 20), "word salad": Count(29, 30)}) == [
        "word salad: 29/30 97% (83–99) right, target 100%"
    ]


# The records


def test_rows_are_read_as_they_were_written_and_one_run_has_one_row(tmp_path: Path) -> None:
    path = tmp_path / "results" / "gates.parquet"
    assert rows.read(path) == []
    figures = {"seen_before": 0.6, "seen_after": 0.5, "told_after": 0.9}
    on_reviews = Row(run(202, data="reviews"), figures, hash_of(run(202, data="reviews")))
    for each in (row(0.3), on_reviews, row(0.2)):
        rows.add(each, path)
    assert rows.read(path) == [row(0.2), on_reviews]
    assert signals(on_reviews) == pytest.approx({"unseen": 1 / 6, "told": 0.9})
    assert [each.name for each in path.parent.iterdir()] == ["gates.parquet"]
    assert rows.current(rows.read(path)) == [on_reviews], "the other one does not say of which settings it is"
    assert len({hash_of(each) for each in runs()}) == len(runs())


def test_the_report_chooses_on_one_half_and_says_which_runs_of_the_other_it_gets_wrong():
    """The bound on the KL is 0.20; the unseen half has a degraded run below it, that nothing else refuses."""
    unseen = [row(0.05, seed=201), row(0.3, seed=201, beta=0.1, kl_per_token=0.19)]
    told = "\n".join(reporting.text([*CHOOSING, *unseen]))
    assert "choose, grammar: 2 good, 2 degraded, 1 word salad" in told
    assert "test, grammar: 1 good, 1 degraded, 0 word salad" in told
    assert "Targets missed: degraded: 0/1" in told
    assert "passed though grammar-201-hinge-b0.1-lr0.0003-s150: degraded (unparsed 0.300)" in told
    found = reporting.as_json([*CHOOSING, *unseen])
    assert found["counts"]["test"][ALL]["degraded"]["right"] == 0
    assert {each["half"] for each in found["runs"]} == set(HALVES)
