"""What the stack's tests share, and what they measured, printed at the end of the session."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.stack.browser import open_page, sign_in, start_chromium
from tests.stack.cluster import SERVERS, stack_on
from tests.stack.machine import Machine
from tests.stack.reviews import Reviews, make_reviews

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROWS: list[tuple[str, float, str]] = []


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """Note a figure: what happened, the seconds until it was noticed or over, and what was computed again."""
    servers = next((name for name in SERVERS if name in request.node.name), "")
    return lambda what, seconds, lost: ROWS.append((f"{what}, {servers}" if servers else what, seconds, lost))


@pytest.fixture(scope="session", params=SERVERS)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One stack of each kind for all tests that click in it."""
    with stack_on(request.param, tmp_path_factory.mktemp("browser")) as found:
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
def page(chromium: "Browser", stack: Machine) -> Iterator["Page"]:
    """A page of somebody who has signed in."""
    with open_page(chromium, stack) as empty:
        sign_in(empty, stack)
        yield empty


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what shares the two stacks last: the second one is up until the end."""
    items.sort(key=lambda item: "stack" in getattr(getattr(item, "callspec", None), "params", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("measured")
        for what, seconds, lost in ROWS:
            terminalreporter.write_line(f"{what:<60} {seconds:7.1f} s   {lost}")
