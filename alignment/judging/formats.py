"""How figures are written for people: a value, a change of it, and a time."""

from collections.abc import Callable
from typing import NamedTuple

NONE = "–"


class Format(NamedTuple):
    """How the values of one figure are written, and how the difference of two of them is."""

    value: Callable[[float], str]
    change: Callable[[float], str]


def plain(value: float, digits: int = 2) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; without one where it is written as 0."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def times(ratio: float) -> str:
    """A ratio, as in ×1.25."""
    return f"×{ratio:.2f}"


def percent(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.1f}%"


def points(difference: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{signed(100 * difference, 1)} points"


def duration(seconds: float) -> str:
    """A time that was measured, as in `14.3 s`, `3 min 5 s` or `2 h 10 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return _joined((minutes, "min"), (rest, "s")) if minutes < 60 else about(seconds)


def about(seconds: float) -> str:
    """A time in whole seconds or minutes, as in `40 s`, `3 min` or `1 h 20 min`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return _joined((hours, "h"), (minutes, "min"))


def _joined(*parts: tuple[int, str]) -> str:
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


PLAIN = Format(plain, signed)
SIGNED = Format(signed, signed)
PERCENT = Format(percent, points)
TIMES = Format(times, signed)
TENTHS = Format(lambda value: plain(value, 1), lambda value: signed(value, 1))
THOUSANDTHS = Format(lambda value: plain(value, 3), lambda value: signed(value, 3))
