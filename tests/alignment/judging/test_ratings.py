"""What people's ratings come to: one count a prompt, Wilson's interval, and scores that agree with them or not."""

import json

import pytest

from alignment.judging.ratings import Preferred, Rated, as_pairs, summarise, wilson


def rated(*votes: Preferred, gain: float = 1.0, messages: str = "", **figures: float) -> Rated:
    by = {f"person {number}": vote for number, vote in enumerate(votes)}
    return Rated("the film", messages, " was bad", " was good", {"reward_gain": gain, **figures}, by)


def test_wilsons_interval_is_the_score_interval() -> None:
    """scipy.stats.binomtest(7, 8).proportion_ci(0.95, method="wilson"), and the bounds at no success at all."""
    from scipy.stats import binomtest

    for successes, trials, level in ((7, 8, 0.95), (0, 5, 0.95), (30, 32, 0.9), (3, 3, 0.95)):
        expected = binomtest(successes, trials).proportion_ci(level, method="wilson")
        assert wilson(successes, trials, level) == pytest.approx((expected.low, expected.high), abs=1e-9)
    with pytest.raises(ValueError, match="0 trials"):
        wilson(0, 0, 0.95)


def test_a_prompt_counts_once_however_many_people_rated_it() -> None:
    """Two against one is a win, one against one is equal; two wins and one half of a tie in three prompts is 0.833."""
    found = summarise(
        [rated("aligned", "aligned", "base"), rated("aligned", "base"), rated("aligned"), rated()], unreadable=2
    )
    assert (found.offered, found.rated, found.unreadable) == (4, 3, 2)
    assert (found.aligned, found.base, found.equal) == (2, 0, 1)
    assert found.win_rate == pytest.approx(2.5 / 3)
    assert found.win_rate_ci == wilson(2.5, 3, 0.95)
    assert found.raters == ("person 0", "person 1", "person 2")


def test_a_score_agrees_where_it_prefers_the_same_text() -> None:
    """Equal texts and scores that prefer none do not count; a judge is counted where it gave a score."""
    found = summarise(
        [
            rated("aligned", gain=2.0, gold_x_gain=-1.0),
            rated("base", gain=0.5),
            rated("base", gain=-0.1, gold_x_gain=-1.0),
            rated("equal", gain=3.0),
            rated("aligned", gain=0.0),
        ]
    )
    reward, gold = found.agreement["reward"], found.agreement["gold_x"]
    assert (reward.prompts, reward.agreed, reward.rate) == (3, 2, pytest.approx(2 / 3))
    assert (gold.prompts, gold.agreed, gold.rate_ci) == (2, 1, wilson(1, 2, 0.95))


def test_nothing_rated_has_no_rate() -> None:
    found = summarise([rated(), rated()])
    assert (found.offered, found.rated, found.win_rate, found.win_rate_ci) == (2, 0, None, None)
    assert found.agreement["reward"].rate is None


def test_ratings_become_pairs_that_a_run_reads() -> None:
    """By the reader of given pairs: a text, and a chat whose sides are one message each."""
    from alignment.data.preferences import preference

    chat = json.dumps([{"role": "user", "content": "How was it?"}])
    found = list(as_pairs([rated("base", "base", "aligned"), rated("equal"), rated(), rated("aligned", messages=chat)]))
    assert len(found) == 2
    text, answer = (preference(json.loads(json.dumps(row))) for row in found)
    assert (text.prompt, text.chosen, text.rejected) == ("the film", " was bad", " was good")
    assert text.gap == pytest.approx(1 / 3)
    assert (answer.is_chat, answer.gap) == (True, 1.0)
    assert answer.chosen == [{"role": "assistant", "content": " was good"}]
