"""The page of a run in a browser without a network: read, searched, printed, on wide and narrow screens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alignment.judging.page import compare_page, report_page
from tests.alignment.judging.test_page import EVIL, make_run, row
from tests.stack.browser import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.stack

ROWS = [
    *(row(number, base=f"film {number} was dull", aligned=f"film {number} {'joy ' * number}") for number in range(24)),
    row(24, prompt="film 24", base="film 24 was fine", base_reward=3.0, aligned=f"film 24 {EVIL}", aligned_reward=-2.0),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    run = make_run(samples=ROWS)
    (folder / "report.html").write_text(report_page(run), "utf-8")
    (folder / "compare.html").write_text(compare_page(run, make_run(id="f" * 32, samples=ROWS)), "utf-8")
    return folder


@pytest.fixture(params=["light", "dark"])
def offline(request: pytest.FixtureRequest, chromium: "Browser") -> Iterator["Page"]:
    """A page that reaches nothing; whatever its console says, or would have been loaded, is a failure."""
    context = chromium.new_context(viewport={"width": 1_400, "height": 900}, color_scheme=request.param, offline=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    said: list[str] = []

    def note(address: str) -> None:
        if not address.startswith(("file:", "data:")):
            said.append(address)

    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda asked: note(asked.url))
    yield page
    context.close()
    assert said == []


def shown(page: "Page") -> list[str]:
    """The prompts of the samples that are seen, in their order."""
    found: list[str] = page.locator(".sample:visible .prompt").all_inner_texts()
    return found


def test_samples_are_ordered_and_searched(offline: "Page", pages: Path) -> None:
    offline.goto((pages / "report.html").as_uri())
    assert shown(offline) == [f"film {number}" for number in range(10)]
    assert offline.locator("#found").inner_text() == "10 of 25 shown"
    first = {}
    for order in ("largest gain", "largest loss", "longest", "most changed", "as recorded"):
        offline.locator("#order").select_option(label=order)
        first[order] = shown(offline)[0]
    assert first["largest gain"] == "film 23"
    assert first["largest loss"] == "film 24"
    assert first["as recorded"] == "film 0"
    assert first["longest"] == "film 23"
    offline.locator("#find").fill("JOY film 23")
    assert shown(offline) == ["film 23"]
    assert offline.locator("#found").inner_text() == "1 of 25 fit, 1 shown"
    offline.locator("#find").fill("onerror alert")
    assert shown(offline) == ["film 24"], "a text of a model is a text"
    offline.locator("#find").fill("")
    offline.locator("#more").click()
    assert len(shown(offline)) == 25
    assert offline.locator("#more").is_hidden()


def test_curves_are_read_by_pointer_and_by_keys(offline: "Page", pages: Path) -> None:
    offline.goto((pages / "report.html").as_uri())
    chart = offline.locator(".chart", has=offline.locator("b", has_text=re.compile("^Loss$"))).first
    key = chart.locator(".key")
    assert key.inner_text().split() == ["step", "2", "loss", "0.5"]
    chart.locator("svg").scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    assert box is not None
    offline.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + box["height"] / 2)
    assert key.inner_text().split() == ["step", "1", "loss", "0.7"]
    chart.locator("svg").focus()
    offline.keyboard.press("End")
    assert key.inner_text().split() == ["step", "2", "loss", "0.5"]
    offline.keyboard.press("ArrowLeft")
    assert key.inner_text().split() == ["step", "1", "loss", "0.7"]


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize("width", [400, 1_400])
def test_nothing_runs_over_the_edge(offline: "Page", pages: Path, name: str, width: int) -> None:
    offline.set_viewport_size({"width": width, "height": 900})
    offline.goto((pages / f"{name}.html").as_uri())
    assert offline.evaluate("document.documentElement.scrollWidth") == width
    assert offline.evaluate("getComputedStyle(document.body).fontFamily").startswith("system-ui")


def test_text_can_be_told_from_its_ground(offline: "Page", pages: Path) -> None:
    """WCAG's contrast of 4.5 to 1, of every colour of text on the ground behind it."""
    offline.goto((pages / "report.html").as_uri())
    script = """() => {
      const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const light = (colour) => parts(colour).slice(0, 3)
        .map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
      const ground = (element) => {
        for (; element; element = element.parentElement) {
          const found = parts(getComputedStyle(element).backgroundColor);
          if (found.length < 4 || found[3] === 1) return getComputedStyle(element).backgroundColor;
        }
        return "rgb(255, 255, 255)";
      };
      const worst = {};
      for (const element of document.querySelectorAll("main *, header *, footer *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility() || element.closest("svg")) continue;
        const [one, two] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (two + 0.05);
        if (ratio < 4.5) worst[`${element.tagName} ${element.className}`] = ratio;
      }
      return worst;
    }"""
    assert offline.evaluate(script) == {}


def test_on_paper_there_are_all_rows_and_no_controls(offline: "Page", pages: Path) -> None:
    offline.goto((pages / "report.html").as_uri())
    offline.emulate_media(media="print")
    assert len(shown(offline)) == 25
    for control in ("#tools", "#more", ".contents"):
        assert offline.locator(control).is_hidden()
    pdf = offline.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4


def test_without_its_script_everything_is_there(chromium: "Browser", pages: Path) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((pages / "report.html").as_uri())
    assert len(shown(page)) == 25
    assert page.locator("#tools").is_hidden()
    assert page.locator("polyline").count() == 2
    context.close()
