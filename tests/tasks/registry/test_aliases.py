"""What a promotion and a rollback make of the aliases, whatever they were before."""

import pytest

from tasks.registry.aliases import Aliases


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Aliases(challenger="1"), Aliases(champion="1", recorded="1")),
        (Aliases("1", None, "2", "1"), Aliases("2", "1", None, "2")),
        (Aliases("1", "0", "3", "1"), Aliases("2", "1", "3", "2")),
        (Aliases("1", "2", None, "1"), Aliases("2", "1", None, "2")),
        (Aliases(None, "1", "2", "1"), Aliases("2", "1", None, "2")),
        (Aliases("1", None, "2", None), Aliases("2", "1", None, "2")),
        (Aliases("2", None, "2", "1"), Aliases("2", "1", None, "2")),
        (Aliases("2", "0", "2", "1"), Aliases("2", "1", None, "2")),
        (Aliases("2", "1", "2", "1"), Aliases("2", "1", None, "2")),
        (Aliases("2", "1", None, "1"), Aliases("2", "1", None, "2")),
        (Aliases("2", None, None, None), Aliases("2", None, None, "2")),
    ],
    ids=[
        "the-first",
        "the-next",
        "another-is-challenger",
        "the-previous-one-again",
        "the-alias-was-deleted",
        "a-champion-from-before",
        "by-hand",
        "died-after-champion",
        "died-after-previous",
        "died-before-the-record",
        "by-hand-and-the-first",
    ],
)
def test_a_promotion_makes_version_2_champion_whatever_the_aliases_were(before: Aliases, after: Aliases) -> None:
    version = after.champion or ""
    assert before.after_promotion(version) == after
    assert after.after_promotion(version) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Aliases("2", "1", "3", "2"), Aliases("1", "2", "3", "1")),
        (Aliases("1", "2", "3", "1"), Aliases("2", "1", "3", "2")),
        (Aliases("1", "1", None, "2"), Aliases("1", "2", None, "1")),
        (Aliases("2", None, None, "2"), Aliases("2", None, None, "2")),
        (Aliases(None, "1", None, "2"), Aliases("1", None, None, "1")),
    ],
    ids=["back", "and-forth", "died-after-champion", "nothing-to-go-back-to", "no-champion"],
)
def test_a_rollback_exchanges_champion_and_previous(before: Aliases, after: Aliases) -> None:
    assert before.after_rollback() == after
