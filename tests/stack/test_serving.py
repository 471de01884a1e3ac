"""The command that a run prints, as it is printed: a real server answers prompts of every length."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from alignment.config import AlignConfig
from flows.cli.result import next_command
from tasks.home import home, tracking_uri
from tasks.registry import connection, models, runs
from tests.registered import register
from tests.stack.processes import process, quiet_ports, wait_until

pytestmark = pytest.mark.stack

WINDOW = 24
NAME = "it costs 5$ #1 & more 电影"


@pytest.fixture
def answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any
) -> Iterator[Callable[[str], httpx.Response]]:
    """`answer(prompt)` of a registered model, in a home and under a name that a shell would take apart."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "a home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(connection, "_place", None)
    tiny_gpt2(vocab_size=len(tiny_tokenizer), context=WINDOW).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    runs.configure(tracking_uri(), home() / "artifacts")
    run = runs.start_run(AlignConfig(), "a run")
    made = register(run, models.log_model(run, tmp_path / "model", AlignConfig(), "a film"), NAME, "challenger")
    result: Any = SimpleNamespace(model={"name": NAME, "uri": made.uri, "aliases": list(made.aliases)})
    [port] = quiet_ports(1)
    command = ["bash", "-c", next_command(result).replace("--port 5001", f"--port {port}")]
    log, where = tmp_path / "log", f"http://127.0.0.1:{port}"
    with (
        process(command, os.environ, log) as child,
        httpx.Client(base_url=where, timeout=60, trust_env=False) as client,
    ):

        def is_up() -> bool:
            try:
                return client.get("/ping").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(is_up, "mlflow models serve", child, log)
        yield lambda prompt: client.post("/invocations", json={"inputs": [prompt]})


def test_the_printed_command_serves_prompts_of_every_length(answer: Callable[[str], httpx.Response]) -> None:
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
