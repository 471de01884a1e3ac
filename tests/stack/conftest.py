"""What the stack's tests share, and what they measured, printed at the end of the session."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.stack.browser import open_page, start_chromium
from tests.stack.machine import Machine, machine
from tests.stack.reviews import Reviews, make_reviews

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROWS: list[tuple[str, float, str]] = []


@pytest.fixture(scope="session")
def figures() -> Callable[[str, float, str], None]:
    """Note a figure: what happened, the seconds until it was noticed or over, and what was computed again."""
    return lambda what, seconds, lost: ROWS.append((what, seconds, lost))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One stack for all tests that click in it."""
    with machine(tmp_path_factory.mktemp("browser") / "home") as found:
        yield found


@pytest.fixture(scope="session")
def reviews(stack: Machine) -> Reviews:
    """A model that is registered on this stack."""
    return make_reviews(stack)


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    with start_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    with open_page(chromium) as empty:
        yield empty


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("measured")
        for what, seconds, lost in ROWS:
            terminalreporter.write_line(f"{what:<40} {seconds:7.1f} s   {lost}")
