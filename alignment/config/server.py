"""The address of a model server, and the name of the variable that holds its key, as fields of the configuration."""

from urllib.parse import urlsplit

EXAMPLE = "http://127.0.0.1:8000/v1"
KEY_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*_API_KEY$"
OF_THE_RUN = ("PREFECT_API_KEY",)
"""Keys that are not sent to a server that a form names, although their variables end so."""


def usable_address(url: str, field: str, key_field: str) -> str:
    """The address without a slash at its end. Raises ValueError where it is none, or would be kept with a secret."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{field}: {url.rpartition('@')[2]} is not an address like {EXAMPLE}")
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            f"{field}: an address with a password or a query in it would be kept with the run; name the variable with "
            f"the key in {key_field}"
        )
    return url.rstrip("/")


def usable_variable(name: str, field: str) -> str:
    """The name of the variable. Raises ValueError where it holds a key that is for another server."""
    if name in OF_THE_RUN:
        raise ValueError(f"{field} = {name}: that key is for a server of the run; take another")
    return name
