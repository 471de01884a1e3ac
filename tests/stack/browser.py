"""A browser for the stack's tests: Debian's Chromium, what a person does in Prefect's and MLflow's pages, pictures."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.stack.machine import Machine
from tests.stack.pictures import note

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds; the pages share their cores with the runs
WIDTH, HEIGHT = 1_200, 900
PICTURES = os.environ.get("PLUMBLINE_PICTURES", "")
"""A folder for pictures of the pages; with it, the tests run the embedded default as it is, not a shrunken one."""


@contextmanager
def start_chromium() -> Iterator["Browser"]:
    """Debian's Chromium with an empty profile; fails where it is missing, and says how to get it."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM.exists(), f"{CHROMIUM} is missing: apt-get install --no-install-recommends chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: "Browser", stack: Machine) -> Iterator["Page"]:
    """An empty page that reaches this machine alone, and answers where MLflow asks who is there."""
    options: dict[str, Any] = {}
    if stack.passwords is not None:
        user, password = stack.passwords.mlflow
        options["http_credentials"] = {"username": user, "password": password, "origin": stack.mlflow}
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", locale="en-GB", timezone_id="UTC", **options
    )
    context.route(lambda url: urlsplit(url).hostname != "127.0.0.1", refuse)
    context.set_default_timeout(PATIENCE)
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    try:
        yield context.new_page()
    finally:
        context.close()


def refuse(route: "Route") -> None:
    """Stop a request."""
    route.abort()


class Clicks:
    """A person's clicks on a page, counted, and the seconds since the first page was opened."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.count = 0
        self._began = time.monotonic()

    def click(self, what: "Locator") -> None:
        """One more click."""
        what.click()
        self.count += 1

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def sign_in(page: "Page", stack: Machine) -> None:
    """Type Prefect's password where its page asks for one."""
    if stack.passwords is None:
        return
    page.goto(f"{stack.prefect}/login")
    page.locator("input[type='password']").fill(stack.passwords.prefect)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url(lambda url: "/login" not in url)


def picture(page: "Page", name: str, *, of: "Locator | None" = None, height: int = HEIGHT, after: float = 2.0) -> None:
    """Keep a picture of the page or of a part of it, `after` some seconds for charts, where pictures are wanted."""
    if not PICTURES:
        return
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(1_000 * after)
    (of or page).screenshot(path=Path(PICTURES) / f"{name}.png")
    note(name, Path(PICTURES))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def field(form: "Locator | Page", title: str) -> "Locator":
    """A field, or a group of fields, of a form of Prefect's, with its label and its description."""
    return form.locator(
        f"xpath=//span[contains(@class, 'schema-form-property__label')][starts-with(normalize-space(), '{title} (')]"
        "/ancestor::div[contains(concat(' ', @class, ' '), ' schema-form-property ')][1]"
    )


def choose(page: "Page", chosen: "Locator", value: str) -> None:
    """Choose a value in a field with a list of them.

    Its arrows open it; a click on its text opens it and closes it again.
    """
    chosen.locator(".p-select-button__icon").click()
    page.locator(".p-select-option", has_text=value).click()


def fill_as_json(page: "Page", values: str) -> None:
    """Give all parameters of a run's form as JSON, then go back to its fields."""
    menu = page.locator("xpath=//h3[contains(., 'Parameters')]/..").get_by_role("button")
    menu.click()
    page.get_by_text("Use JSON input").click()
    page.locator("textarea.p-code-input__textarea").fill(values)
    menu.click()
    page.get_by_text("Use form input").click()


def move_alias(page: "Page", alias: str) -> None:
    """Give an alias to the version on MLflow's page, by the edit button beside Aliases."""
    page.locator("button[title='Add aliases'], button[title='Edit aliases']").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").fill(alias)
    dialog.get_by_role("combobox").press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    dialog.wait_for(state="hidden")
