"""The pictures in docs/: each is used, small enough, taken by a test, and of this version."""

import re

import pytest

from tests.stack.pictures import DOCS, NOTE, ROOT, SHOWS, changed, digest, files, noted
from tests.test_habits import VERSION

PICTURES = sorted(path.stem for path in DOCS.glob("*.png"))
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BYTES = 300_000
TOUR = 8


def used() -> set[str]:
    """The pictures that some page shows."""
    return {name for page in PAGES for name in re.findall(r"([\w-]+)\.png", page.read_text("utf-8"))}


def test_each_picture_is_shown_somewhere_and_taken_by_a_test() -> None:
    assert set(PICTURES) == used(), "a picture that no page shows is removed, or shown"
    assert set(PICTURES) == set(SHOWS)
    assert set(PICTURES) == set(noted()), "make pictures takes them and notes it"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_shows_code_that_is_there(name: str) -> None:
    assert (DOCS / f"{name}.png").stat().st_size <= BYTES
    assert files(name), SHOWS[name]


def test_the_pictures_were_taken_at_this_version() -> None:
    """A version is changed once, at a release: that is when pictures have to be as young as the code."""
    old = {name: each["version"] for name, each in noted().items() if each["version"] != VERSION}
    code = ", ".join(changed()) or "none"
    assert not old, f"run `make pictures`: not of {VERSION}; the code that they show has changed since for: {code}"


def test_a_picture_is_the_one_that_was_noted() -> None:
    other = [name for name, each in noted().items() if each["picture"] != digest([DOCS / f"{name}.png"])]
    assert not other, f"run `make pictures`: {NOTE.name} does not describe these"


def test_the_tour_has_its_pictures_and_a_few_sentences_each() -> None:
    sections = (DOCS / "tour.md").read_text("utf-8").split("\n## ")[1:]
    assert len(sections) == TOUR
    for section in sections:
        title, _, body = section.partition("\n")
        assert len(re.findall(r"!\[[^\]]+\]\([\w-]+\.png\)", body)) == 1, title
        text = re.sub(r"!\[[^\]]+\]\([^)]+\)", "", body)
        assert 2 <= len(re.findall(r"[.:](?:\s|$)", text)) <= 6, title
