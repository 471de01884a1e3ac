"""A small server that draws from a model of its own and speaks vLLM's and SGLang's protocols, with faults on order."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from alignment.models import Loaded

Fault = tuple[int, dict[str, str], str]  # status, headers, body

SLOW: Fault = (0, {}, "slow")  # sends a byte from time to time, and never ends
CUT: Fault = (0, {}, "cut")  # closes the connection

Change = Callable[[dict[str, Any]], Any]


@dataclass
class Server:
    """What it serves and how; `fault` gets the number of the request, from 0, `change` each answer as it is.

    After `hold_after` samples it takes further requests and does not answer them before it is closed.
    """

    loaded: Loaded
    fault: Callable[[int], Fault | None] = lambda call: None
    change: Change = lambda answer: answer
    context: int = 40
    hold_after: int | None = None
    about: dict[str, Any] = field(
        default_factory=lambda: {
            "/v1/models": {"data": [{"id": "tiny", "object": "model"}]},
            "/version": {"version": "0.33.0"},
            "/server_info": {"version": "0.5.23", "model_path": "tiny"},
        }
    )
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    looks: int = 0
    samples: int = 0
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        """vLLM's answer."""
        if asked["model"] != "tiny":
            raise LookupError(f"The model `{asked['model']}` does not exist.")
        ids, tokens = asked["prompt"], asked["max_tokens"]
        self._require_room(ids, tokens)
        choice: dict[str, Any] = {"index": 0, "text": ""}
        if asked.get("prompt_logprobs") is not None:
            found = zip(ids, self.score(ids), strict=True)
            choice["prompt_logprobs"] = [each and {str(token): {"logprob": each}} for token, each in found]
        drawn, logprobs, reason = self.draw(ids, tokens, asked)
        if asked.get("return_token_ids"):
            choice["token_ids"] = drawn
        if asked.get("logprobs") is not None:
            choice["logprobs"] = {"token_logprobs": logprobs}
        return {"object": "text_completion", "choices": [choice | {"finish_reason": reason}]}

    def generate(self, asked: dict[str, Any]) -> dict[str, Any]:
        """SGLang's answer."""
        ids, settings = asked["input_ids"], asked["sampling_params"]
        self._require_room(ids, settings["max_new_tokens"])
        settings = settings | {"seed": settings.get("sampling_seed", 0)}
        drawn, logprobs, reason = self.draw(ids, settings["max_new_tokens"], settings)
        meta: dict[str, Any] = {"finish_reason": {"type": reason}}
        if asked["return_logprob"]:
            meta["output_token_logprobs"] = [[each, token, None] for token, each in zip(drawn, logprobs, strict=True)]
            if asked.get("logprob_start_len") == 0:
                found = zip(ids, self.score(ids), strict=True)
                meta["input_token_logprobs"] = [[each, token, None] for token, each in found]
        return {"text": "", "output_ids": drawn, "meta_info": meta}

    def score(self, ids: Sequence[int]) -> list[float | None]:
        """The log-prob of each token, None for the first."""
        logprobs = self._logits(ids).log_softmax(-1)
        return [None, *(float(logprobs[place, token]) for place, token in enumerate(ids[1:]))]

    def draw(self, prompt: list[int], tokens: int, asked: dict[str, Any]) -> tuple[list[int], list[float], str]:
        """One sample by the textbook loop: what was drawn, its log-probs at temperature 1, and why it ended."""
        random = torch.Generator().manual_seed(asked.get("seed", 0))
        ids: list[int] = []
        logprobs: list[float] = []
        for _ in range(tokens):
            logits = self._logits([*prompt, *ids])[-1]
            weights = (logits / asked.get("temperature", 1.0)).softmax(-1)
            if 0 < asked.get("top_k", 0) < len(weights):
                weights[weights < weights.topk(asked["top_k"]).values[-1]] = 0
            token = int(torch.multinomial(weights, 1, generator=random))
            ids.append(token)
            logprobs.append(float(logits.log_softmax(-1)[token]))
            if token in asked.get("stop_token_ids", ()):
                return ids, logprobs, "stop"
            if any(stop in self.loaded.texts([ids])[0] for stop in asked.get("stop", ())):
                return ids, logprobs, "stop"
        return ids, logprobs, "length"

    @torch.inference_mode()
    def _logits(self, ids: Sequence[int]) -> Any:
        return self.loaded.model(torch.tensor([list(ids)])).logits[0].float()

    def _require_room(self, ids: list[int], tokens: int) -> None:
        assert ids
        assert all(type(each) is int for each in ids)
        if tokens < 1 or len(ids) + tokens > self.context:
            raise ValueError(f"maximum context length is {self.context} tokens")

    def take(self, path: str, asked: dict[str, Any]) -> Fault:
        """Answer one request, or fail as asked to."""
        with self._lock:
            call = len(self.requests)
            self.requests.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if (fault := self.fault(call)) is not None:
                return fault
            answering = {"/v1/completions": self.completions, "/generate": self.generate}.get(path)
            if answering is None:
                return 404, {}, '{"detail": "Not Found"}'
            with self._lock:
                scored = asked.get("prompt_logprobs") is not None or asked.get("logprob_start_len") == 0
                held = self.hold_after is not None and not scored and self.samples >= self.hold_after
                self.samples += not scored and not held
            if held:
                self.closed.wait(60)
                return CUT
            return 200, {}, json.dumps(self.change(answering(asked)))
        except LookupError as error:
            return 404, {}, json.dumps({"error": {"message": str(error)}})
        except ValueError as error:
            return 400, {}, json.dumps({"error": {"message": str(error)}})
        finally:
            with self._lock:
                self.at_once -= 1


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server at an address of this machine, `server.url`, which ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.looks += 1
            server.keys.add(self.headers["authorization"])
            found = server.about.get(self.path)
            self._answer((404, {}, "{}") if found is None else (200, {}, json.dumps(found)))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.keys.add(self.headers["authorization"])
            self._answer(server.take(self.path, asked))

        def _answer(self, fault: Fault) -> None:
            status, headers, said = fault
            if not status:
                self.close_connection = True
                if said == "slow":
                    self.send_response(200)
                    self.end_headers()
                    while not server.closed.wait(0.05):
                        self.wfile.write(b" ")
                return
            data = said.replace("{key}", self.headers["authorization"] or "").encode()
            self.send_response(status)
            for name, value in ({"content-length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    class Threads(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients leave."""

    threads = Threads(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=threads.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{threads.server_port}/v1"
    try:
        yield server
    finally:
        server.closed.set()
        threads.shutdown()
        threads.server_close()
        thread.join()
