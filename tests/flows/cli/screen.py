"""What a console of a given width shows, and what must hold of it: no line runs over, and every word stays whole."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

WIDTHS = pytest.mark.parametrize("width", [80, 200])


def screen(show: Callable[[Console], None], width: int) -> str:
    """What `show` prints to a console without a terminal."""
    console = Console(width=width, file=io.StringIO(), emoji=False, highlight=False)
    show(console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert not [line for line in text.splitlines() if len(line) > width and not _ends_in_a_long_word(line, width)]
    return text


def rows(text: str, width: int) -> int:
    """The lines of the terminal that it takes."""
    return sum(max(1, -(-len(line) // width)) for line in text.splitlines())


def _ends_in_a_long_word(line: str, width: int) -> bool:
    """Such as an address, which is there to be copied."""
    return len(line.split()[-1]) > width - 12


def require_words(text: str, *sources: str) -> None:
    """Every word of the sources is in the text, whole."""
    shown = set(text.split())
    assert not [word for source in sources for word in source.split() if word not in shown]
