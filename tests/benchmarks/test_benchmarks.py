"""The benchmarks compare like with like: both sides do the same work, at sizes where that takes a moment."""

import pytest

from benchmarks import sampling, training
from benchmarks.measure import Race, Side, gpt2, race

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own setting

VOCABULARY = 40


def test_a_race_takes_turns_after_a_round_to_warm_up() -> None:
    turns: list[str] = []

    def work(name: str) -> int:
        turns.append(name)
        return 1

    found = race(Side("A", lambda: work("A")), Side("B", lambda: work("B")), rounds=2)
    assert turns == ["A", "B"] * 3
    assert len(found.ours) == len(found.theirs) == 2


def test_the_ratio_is_taken_round_by_round() -> None:
    assert Race([4.0, 9.0], [2.0, 3.0], threads=1).ratios == [2.0, 3.0]


def test_both_samplers_draw_every_sample() -> None:
    """One token of 40 ends a sample, so that about 25 of 40 are drawn of each: (1 - (39/40)^40) * 40."""
    prompts = [[1 + (n + k) % 30 for k in range(sampling.PROMPT_TOKENS)] for n in range(4)]
    ours, theirs = sampling.sides(gpt2(1, 32, VOCABULARY, sampling.TOTAL_TOKENS), prompts)
    most = len(prompts) * sampling.SAMPLES * (sampling.TOTAL_TOKENS - sampling.PROMPT_TOKENS)
    for side in (ours, theirs):
        assert 0.5 * most < side.work() < 0.8 * most


def test_both_trainers_log_the_same_losses() -> None:
    """The order of the pairs, the schedule and the clipping are the same as well, or they would drift apart."""
    model, steps = gpt2(1, 32, VOCABULARY, training.PROMPT_TOKENS + training.LONGEST), 10
    losses: dict[str, list[float]] = {}
    pairs = training.make_pairs(model, VOCABULARY, 3 * training.BATCH)
    for side in training.sides(model, pairs, steps, losses):
        assert side.work() == steps * training.BATCH
    assert len(losses["TRL"]) == 2
    assert losses["Plumbline"] == pytest.approx(losses["TRL"], abs=1e-5)
    assert losses["Plumbline"][0] != losses["Plumbline"][1]
