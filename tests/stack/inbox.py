"""A webhook on loopback that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.stack.machine import wait_for


class Inbox:
    """The messages that have arrived, the oldest first."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.url = ""

    def titled(self, part: str) -> list[dict[str, Any]]:
        """The messages with these words in their title."""
        return [message for message in self.messages if part in message["title"]]

    def wait(self, part: str, within: float = 60.0) -> tuple[dict[str, Any], float]:
        """Wait for a message with these words in its title; returns it, and the seconds until it came."""
        seconds = wait_for(lambda: bool(self.titled(part)), within, f"a message of {part!r}", every=0.05)
        return self.titled(part)[-1], seconds


@contextmanager
def inbox(port: int = 0) -> Iterator[Inbox]:
    """An inbox that takes messages until the end of the block."""
    found = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            found.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/a-secret-path"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
