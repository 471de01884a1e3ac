"""The environment's proxies: loopback is excepted from them, and one that no client can use is refused at once."""

from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from alignment.errors import ConfigError
from tasks.addresses import scheme_of, shown

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
EXCEPTIONS = ("NO_PROXY", "no_proxy")  # if both are set, clients differ in which they read
SOCKS = ("socks5", "socks5h")


def spare_loopback(environ: MutableMapping[str, str]) -> None:
    """Add loopback to the exceptions if a proxy is set, since the run's own servers listen there."""
    if not _named(environ):
        return
    names = [name for name in EXCEPTIONS if name in environ] or EXCEPTIONS
    for name in names:
        environ[name] = _with_loopback(environ.get(name, ""))


def require_usable(environ: Mapping[str, str]) -> None:
    """Raise ConfigError if a proxy is set that the clients of Prefect and of the Hugging Face hub cannot use."""
    if any("*" in environ.get(name, "").split(",") for name in EXCEPTIONS):
        return
    for name, value in _named(environ).items():
        scheme = scheme_of(value if "://" in value else f"http://{value}")
        way_out = "name another proxy, or set NO_PROXY=* to go without"
        if scheme in SOCKS and find_spec("socksio") is None:
            raise ConfigError(f"{name} {shown(value)}: a SOCKS proxy needs `pip install 'httpx[socks]'`; {way_out}")
        if scheme not in ("http", "https", *SOCKS):
            raise ConfigError(f"{name} {shown(value)}: not an address like http://host:port; {way_out}")


def is_behind_proxy(url: str) -> bool:
    """Whether a request to this address goes through a proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.netloc.rpartition("@")[2])


def _named(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.lower() in PROXIES and value}


def _with_loopback(exceptions: str) -> str:
    if exceptions.strip() == "*":
        return exceptions
    there = [part.strip() for part in exceptions.split(",")]
    return ",".join(filter(None, (exceptions, *(host for host in LOOPBACK if host not in there))))
