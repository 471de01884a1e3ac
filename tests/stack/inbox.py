"""A webhook on loopback that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.stack.machine import wait_for


@dataclass(frozen=True)
class Message:
    """A notification, and when it arrived."""

    title: str
    text: str
    link: str
    arrived: datetime


class Inbox:
    """The messages that have arrived, the oldest first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.messages: list[Message] = []

    def wait(self, title: str, within: float, since: str = "") -> Message:
        """Wait for a message with these words in its title, that arrived after a time in ISO format."""

        def found() -> list[Message]:
            return [each for each in self.messages if title in each.title and each.arrived.isoformat() > since]

        wait_for(lambda: bool(found()), within, f"the message {title!r} among {[each.title for each in self.messages]}")
        return found()[0]


@contextmanager
def inbox() -> Iterator[Inbox]:
    """An inbox that takes messages until the end of the block; its address ends in what nobody else is to know."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_json = self.headers["Content-Type"] == "application/json"
            if is_json:
                found.messages.append(Message(arrived=datetime.now(UTC), **content))
            self.send_response(204 if is_json else 415)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Inbox(f"http://127.0.0.1:{server.server_port}/a-secret-path")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
