"""How times are written for people: to a tenth of a second where it was measured, else in whole seconds or minutes."""

import pytest

from alignment.judging.formats import about, duration


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (14.31, "14.3 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (185, "3 min 5 s"),
        (180.2, "3 min"),
        (3_599.6, "1 h"),
        (7_800, "2 h 10 min"),
    ],
)
def test_a_time_that_was_measured(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (89, "1 min"),
        (3_569, "59 min"),
        (3_570.1, "1 h"),
        (4_800, "1 h 20 min"),
    ],
)
def test_a_time_in_whole_seconds_or_minutes(seconds: float, told: str) -> None:
    assert about(seconds) == told
