"""Addresses of servers and databases: made from paths and back, shown without passwords, and failures explained."""

import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SECRET = re.compile(r"\b(?:(https?://)[^\s/?#]*|((?!https?:)[\w+.-]+://)(?!/)[^\s@]*)@")  # user and password
_REASONS = {  # a pattern in the message of a failed request, and what it means
    r"Connection refused|ConnectionRefusedError": "connection refused; {start}",
    r"NameResolution|getaddrinfo|Name or service not known|Failed to resolve|gaierror|No address associated": (
        "no such host; {start}"
    ),
    r"timed? ?out": "no answer in time; {start}",
    r"CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; have {certificate} name the authority's file",
    r"WRONG_VERSION_NUMBER|SSL": "it does not speak TLS; try http:// instead of https://",
    r"\b401\b|UNAUTHENTICATED": "not signed in; set {sign_in}",
    r"\b407\b": "the proxy asks for a password; name it in the proxy's address",
    r"\b403\b|PERMISSION_DENIED": "not allowed; ask for access, or add this host to the server's --allowed-hosts",
    r"database is locked": "another process holds the database; wait for it, or run an MLflow server for both",
}


def shown(text: str) -> str:
    """A text with user and password removed from the addresses in it."""
    return _SECRET.sub(lambda found: found[1] or found[2], text)


def sqlite_uri(file: Path) -> str:
    """The address of a SQLite database. Raises ValueError if the path has a character that no such address can hold."""
    if wrong := unfit_signs(str(file)):
        raise ValueError(f"{file}: {wrong} cannot be in the address of a database")
    return f"sqlite:///{file}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite database's address; None for one in memory, and for other databases and servers."""
    scheme, _, rest = uri.partition(":///")
    name, _, query = rest.partition("?")
    if scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:") or "mode=memory" in query:
        return None
    return Path(unquote(urlsplit(name).path) if name.startswith("file:") and "uri=" in query else name)


def unfit_signs(path: str) -> str:
    """The characters of a path that a database's address cannot hold, as a message lists them; empty if there are none.

    A `?` begins the address's options, and what is not UTF-8 would name another file.
    """
    unfit = (sign for sign in path if sign == "?" or unicodedata.category(sign) in {"Cc", "Cs"})
    return ", ".join(dict.fromkeys(map(ascii, unfit)))


def flow_run_url(run: object, prefect: str = "") -> str:
    """A flow run's page, by its id, in the Prefect at this address, or in the one that the settings name."""
    if not prefect:
        from prefect.settings import PREFECT_UI_URL

        prefect = str(PREFECT_UI_URL.value())
    return f"{prefect}/runs/flow-run/{run}"


def scheme_of(url: str) -> str:
    """The scheme of an address that names a host, in lower case; empty if it is not such an address."""
    try:
        parts = urlsplit(url)
        fits = parts.hostname and parts.hostname.encode("idna") and (parts.port is None or parts.port > 0)
    except ValueError:
        return ""
    return parts.scheme if fits else ""


def reason(error: BaseException, *, start: str, sign_in: str, certificate: str) -> str:
    """Why a request failed and what to do, in one line: a known failure is explained, another one quoted."""
    text = shown(f"{type(error).__name__}: {' '.join(str(error).split())}")
    for pattern, meaning in _REASONS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return meaning.format(start=start, sign_in=sign_in, certificate=certificate)
    line = shown(str(error)).strip().partition("\n")[0].partition(" for url ")[0].strip() or type(error).__name__
    return line if len(line) <= 300 else f"{line[:299]}…"
