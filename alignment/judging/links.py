"""Which texts are links: an address may come from a record that anybody wrote, or be the command that serves a page."""

from urllib.parse import urlsplit


def is_link(text: str) -> bool:
    """Whether a text is the address of a page, which nothing but http and https is."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and not any(sign.isspace() for sign in text)
