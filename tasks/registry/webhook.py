"""Checks a message of MLflow's webhook: signature, age, whether it was handled before, and which model it is about."""

import base64
import hashlib
import hmac
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from alignment.aliases import CHAMPION
from alignment.errors import ConfigError
from alignment.stages.store import write_json
from tasks.home import home

SIGNATURE = "X-MLflow-Signature"
DELIVERY = "X-MLflow-Delivery-Id"
TIMESTAMP = "X-MLflow-Timestamp"

WINDOW = 300.0  # seconds that a message may be old, or ahead of this clock
MAX_BODY = 64 * 1024  # bytes
MIN_SECRET = 16  # characters
SECRET_VARIABLE = "PLUMBLINE_WEBHOOK_SECRET"  # noqa: S105 - a name


class Refused(Exception):
    """A message that is not acted on, with the HTTP status of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        """Refuse with an HTTP status and a reason that quotes nothing of the message."""
        super().__init__(reason)
        self.status = status


def read_secret() -> bytes:
    """The secret that MLflow signs with: `PLUMBLINE_WEBHOOK_SECRET`, else the file `stack/secret/webhook` of this home.

    Raises ConfigError if there is none, it is too short, or others may read the file.
    """
    file = home() / "stack" / "secret" / "webhook"
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret:
        try:
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                raise ConfigError(f"webhook secret {file}: others may read it; chmod 600 it, and change the secret")
            secret = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                f"webhook secret {file}: {error.strerror or error}; write it there with mode 600, or set "
                f"{SECRET_VARIABLE}, and give MLflow's webhook the same one"
            ) from error
    if len(secret) < MIN_SECRET:
        raise ConfigError(f"webhook secret: {len(secret)} characters; take a random one of at least {MIN_SECRET}")
    return secret.encode()


def sign(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """MLflow's signature: `v1,` and the base64 HMAC-SHA256 of `{delivery}.{timestamp}.{body}`."""
    content = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> tuple[str, float]:
    """The delivery's id and time in seconds since 1970. Raises Refused (401) unless MLflow signed it just now."""
    signature, delivery, timestamp = (headers.get(name, "") for name in (SIGNATURE, DELIVERY, TIMESTAMP))
    if not (signature and delivery and timestamp):
        raise Refused(401, "not signed")
    if not hmac.compare_digest(sign(secret, delivery, timestamp, body).encode(), signature.encode()):
        raise Refused(401, "signed with another secret, or changed in transit")
    if not timestamp.isascii() or not timestamp.isdecimal() or abs(now - int(timestamp)) > WINDOW:
        raise Refused(401, f"its time is more than {WINDOW:.0f} s off this clock")
    return delivery, float(timestamp)


def subject(body: bytes) -> str | None:
    """The model whose champion was set, or None if the message is about something else.

    Raises Refused (400) if it is not an event of MLflow's.
    """
    try:
        message = json.loads(body)
        about = (message["entity"], message["action"])
        data = message["data"]
        is_champion = about == ("model_version_alias", "created") and data["alias"] == CHAMPION
        return str(data["name"]) if is_champion else None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "not an event of MLflow's") from error


class Deliveries:
    """The ids of the messages that were acted on, kept in a file for as long as their timestamps would be accepted."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        """Keep them in `file`, which the first one creates."""
        self.file = file
        self.now = now

    def refuse_known(self, delivery: str) -> None:
        """Raise Refused (409) if the message was acted on before."""
        if delivery in self._read():
            raise Refused(409, "acted on before")

    def remember(self, delivery: str, timestamp: float) -> None:
        """Note that a message was acted on, and drop those whose timestamps are too old by now."""
        kept = {name: at for name, at in self._read().items() if at + WINDOW >= self.now()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, kept | {delivery: timestamp})

    def _read(self) -> dict[str, float]:
        try:
            found: dict[str, float] = json.loads(self.file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # acting twice does no harm: what counts is the registry's state
            return {}
        return found
