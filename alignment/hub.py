"""The Hugging Face hub where there is no network: what is in its cache is used at once, without minutes of retries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from alignment.errors import ModelError
from alignment.transient import causes

ANSWERS_WITHIN = 5.0  # seconds
NOT_CACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}
"""What the hub's library raises where it may look into its cache alone, and that lacks what is wanted."""

_lock = Lock()
_without = 0
"""How many are at work that found no network."""


@contextmanager
def cache_without_network(source: str | Path = "") -> Iterator[None]:
    """Let the hub's library look into its cache alone if the hub does not answer; else leave it as it is.

    Nothing is asked where `source` is a folder, or where the environment wants the cache alone anyway.
    """
    global _without
    from huggingface_hub import constants

    is_folder = bool(source) and Path(source).is_dir()
    with _lock:
        is_given = constants.HF_HUB_OFFLINE and not _without
    if is_folder or is_given or _answers(constants.ENDPOINT):
        yield
        return
    with _lock:
        _without += 1
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        with _lock:
            _without -= 1
            constants.HF_HUB_OFFLINE = _without > 0


def require_reached(error: Exception, field: str, name: str) -> None:
    """Raise ModelError where an error means that a model is neither in the cache nor to be had now, and nothing else.

    It may pass, unless the environment wants the cache alone.
    """
    from huggingface_hub import constants

    if not any(type(each).__name__ in NOT_CACHED for each in causes(error)):
        return
    with _lock:
        is_given = constants.HF_HUB_OFFLINE and not _without
    why, way_out = f"{constants.ENDPOINT} does not answer", "connect this machine (HF_ENDPOINT names a mirror)"
    if is_given:
        why, way_out = "HF_HUB_OFFLINE is set", "unset it"
    found = ModelError(
        f"{field} {name}: is no folder here, is not, or not whole, in the hub's cache ({constants.HF_HUB_CACHE}), and "
        f"{why}: {way_out}, or give the folder of `hf download {name} --local-dir FOLDER` from where there is a network"
    )
    found.transient = not is_given
    raise found from error


def _answers(address: str) -> bool:
    """Whether a server answers, whatever it says; through the environment's proxy, as the hub's library does."""
    from httpx import HTTPError, head

    try:
        head(address, timeout=ANSWERS_WITHIN)
    except HTTPError:
        return False
    return True
