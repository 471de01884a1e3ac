"""A small server that speaks an OpenAI-compatible endpoint's protocol, with faults on order; it counts its calls."""

import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = tuple[int, dict[str, str], str]  # status, headers, body

SERVER_ERROR: Fault = (500, {}, '{"error": {"message": "the engine died"}}')
BUSY: Fault = (429, {"retry-after": "0.05"}, '{"error": {"message": "slow down"}}')
PAGE: Fault = (200, {"content-type": "text/html"}, "<html><body>Gateway</body></html>")
REFUSED: Fault = (400, {}, '{"error": {"message": "the text is too long"}}')
UNKNOWN: Fault = (404, {}, '{"detail": "Not Found"}')
SLOW: Fault = (0, {}, "slow")  # gives no answer in time
CUT: Fault = (0, {}, "cut")  # closes the connection
TENTH = (SERVER_ERROR, BUSY, PAGE, SLOW, CUT)


def grade(question: str) -> str:
    """An answer that depends on the question alone: a score from 1 to 10."""
    return f"It is what it is.\nScore: {zlib.crc32(question.encode()) % 10 + 1}"


def a_tenth(call: int, question: str) -> Fault | None:
    """Every tenth call fails, each time in another way."""
    return TENTH[call // 10 % len(TENTH)] if call % 10 == 3 else None


@dataclass
class Endpoint:
    """What the server does with a call, and what it has seen.

    `fault` gets the number of the call, from 0, and the question; None has it answered, by `answer`. After
    `hold_after` answers it takes further calls and does not answer them, until `held` is set.
    """

    answer: Callable[[str], str] = grade
    fault: Callable[[int, str], Fault | None] = lambda call, question: None
    hold_after: int | None = None
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 7, "completion_tokens": 3})
    finish: str = "stop"
    calls: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    url: str = ""
    most_at_once: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: dict[str, Any], key: str) -> Fault:
        """Answer one call, or fail as asked to."""
        question = request["messages"][-1]["content"]
        with self._lock:
            call = self.calls
            self.calls += 1
            self.requests.append(request)
            self.keys.add(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            fault = self.fault(call, question)
            if fault is not None:
                return fault
            with self._lock:
                held = self.hold_after is not None and self.answered.total() >= self.hold_after
                if not held:
                    self.answered[question] += 1
            if held:
                self.released.wait(60)
                return CUT
            text = self.answer(question)
        finally:
            with self._lock:
                self._at_once -= 1
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        found = {"choices": [choice | {"finish_reason": self.finish}]} | ({"usage": self.usage} if self.usage else {})
        return 200, {}, json.dumps(found)


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint at an address of this machine, `endpoint.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known = self.path == "/v1/chat/completions"
            status, headers, said = endpoint.take(body, self.headers["authorization"]) if known else UNKNOWN
            if said == "slow":
                endpoint.released.wait(6)
            if not status:
                self.close_connection = True
                return
            data = said.replace("{key}", self.headers["authorization"]).encode()
            self.send_response(status)
            for name, value in (
                {"content-type": "application/json", "content-length": str(len(data))} | headers
            ).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients leave, when they are killed."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "never came true"
        time.sleep(0.02)
