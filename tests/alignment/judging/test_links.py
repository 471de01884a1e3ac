"""An address of a page is a link; a command and what a browser would run are not."""

import pytest

from alignment.judging.links import is_link


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("http://127.0.0.1:5000/#/x", True),
        ("https://host/a?b=c", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("mlflow ui --backend-store-uri sqlite:///x, then http://127.0.0.1:5000/#/x", False),
        ("http://host/a b", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_only_pages_are_links(text: str, link: bool) -> None:
    assert is_link(text) is link
