"""The command that a run prints, as it is printed: a real server answers prompts of every length, and chats."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from alignment.config import AlignConfig
from flows.cli.result import next_lines
from tasks.home import home, tracking_uri
from tasks.registry import connection, models, runs
from tests.registered import register
from tests.stack.processes import command_of, pids, process, quiet_ports, wait_until

pytestmark = pytest.mark.stack

WINDOW = 24
TEMPLATE = "{% for m in messages %}{{ m['content'] }}. {% endfor %}{% if add_generation_prompt %}: {% endif %}"
DIRECT = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
NAME = "it costs 5$ #1 & more 电影"


@dataclass(frozen=True)
class Served:
    """A model that is served: a client of it, the command's process, and what that printed."""

    client: httpx.Client
    child: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8")


Serve = Callable[..., Served]


@pytest.fixture
def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any
) -> Iterator[Serve]:
    """`serve(messages)`: a registered model, in a home and under a name that a shell would take apart.

    With `messages` it is a chat model.
    """
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "a home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(connection, "_place", None)
    running = ExitStack()

    def start(messages: Sequence[dict[str, str]] = ()) -> Served:
        tokenizer = deepcopy(tiny_tokenizer)
        tokenizer.chat_template = TEMPLATE if messages else None
        tiny_gpt2(vocab_size=len(tokenizer), context=WINDOW).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        runs.configure(tracking_uri(), home() / "artifacts")
        run = runs.start_run(AlignConfig(), "a run")
        uri = models.log_model(run, tmp_path / "model", AlignConfig(), "a film", messages=messages)
        made = register(run, uri, NAME, "challenger")
        result: Any = SimpleNamespace(version=made.uri, run_id=run, where="")
        [port] = quiet_ports(1)
        command = ["bash", "-c", f"{Path(sys.executable).parent}/{next_lines(result)['Serve it']} --port {port}"]
        log, where = tmp_path / "log", f"http://127.0.0.1:{port}"
        child = running.enter_context(process(command, os.environ, log))
        client = running.enter_context(httpx.Client(base_url=where, timeout=60, trust_env=False))

        def is_up() -> bool:
            try:
                return client.get("/ping").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_up, "plumbline serve", child, log)
        return Served(client, child, log)

    with running:
        yield start


def test_the_printed_command_serves_prompts_of_every_length(serve: Serve) -> None:
    client = serve().client

    def answer(prompt: str) -> httpx.Response:
        return client.post("/invocations", json={"inputs": [prompt]})

    for length in (0, 1, 8, 9, 17, WINDOW - 1):
        for _ in range(3):
            response = answer("a" * length)
            assert response.status_code == 200, response.text
            [text] = response.json()["predictions"]
            assert text.startswith("a" * length)
    for length in (WINDOW, 5 * WINDOW):
        response = answer("a" * length)
        assert response.status_code == 400
        assert f"is {length}, but `max_length` is set to {WINDOW}" in response.text


def test_the_printed_command_serves_chats(serve: Serve) -> None:
    question = [{"role": "user", "content": "a film"}]
    client = serve(question).client
    response = client.post("/invocations", json={"messages": question, "max_tokens": 4})
    assert response.status_code == 200, response.text
    [completion] = response.json()
    assert completion["usage"]["total_tokens"] <= WINDOW
    assert completion["choices"][0]["message"]["role"] == "assistant"


def test_it_says_which_version_it_serves_and_how_to_ask_and_ctrl_c_leaves_nothing_behind(serve: Serve) -> None:
    served = serve()
    wait_until(lambda: "Ctrl-C stops it" in served.said, "the line that asks", served.child, served.log)
    assert served.said.startswith(f"{NAME} version 1 (challenger), will be served on http://127.0.0.1:")
    port = str(served.client.base_url.port)
    asked = re.search(r"^curl .*?\n  -d .*?$", served.said, re.MULTILINE)
    assert asked is not None
    done = subprocess.run(["bash", "-c", asked[0]], capture_output=True, text=True, check=True, env=DIRECT)
    assert done.stdout.startswith('{"predictions": ["Once upon a time'), done.stdout
    servers = [pid for pid in pids() if port in command_of(pid)]
    assert len(servers) >= 2, "the command, MLflow and its server"
    served.child.terminate()  # ends as Ctrl-C does, which a test in the background would ignore
    assert served.child.wait(30) == 0
    assert not [pid for pid in pids() if port in command_of(pid)]
    assert served.said.rstrip().endswith("Stopped.")
