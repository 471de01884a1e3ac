"""The command that serves a registered model over HTTP: serve."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from alignment.errors import StackError
from flows.cli.console import make_console, quieten, say
from flows.cli.models import Model
from flows.cli.stack import PORT

if TYPE_CHECKING:
    from tasks.registry.versions import RegisteredVersion

STARTS_WITHIN = 600.0  # seconds; a large model is downloaded from MLflow first
STOPS_WITHIN = 10.0
PROMPT, GREETING = "Once upon a time", "Hello"  # where the record of a version has none


def serve(
    model: Model,
    /,
    *,
    port: Annotated[
        int, Parameter(help="Port on 127.0.0.1; if it cannot be used, or is 0, a free one is chosen", validator=PORT)
    ] = 5001,
    debug: Annotated[bool, Parameter(help="Show the traceback of an error", negative=(), show_default=False)] = False,
) -> int:
    """Serve a registered model over HTTP on this machine until Ctrl-C, by MLflow's own model server."""
    quieten(debug)
    from flows.library import registry

    console = make_console()
    with registry():
        from flows.stack.processes import LOOPBACK, free_port, wait_for_answer
        from tasks.home import home, tracking_uri
        from tasks.registry import models, naming, versions
        from tasks.registry.recorded import describe

        version = versions.resolve(naming.find_registered(model))
        models.require_base(version.source)
        where = f"http://{LOOPBACK}:{(chosen := free_port(port))}"
        say(console, f"[bold]{escape(describe(version))}[/], will be served on {where}")
        if told := other_port(port, chosen):
            say(console, told)
        say(console, "MLflow's model server starts, which takes a moment …")
        log = home() / "serve" / f"{chosen}.log"
        with (
            serving(command(version.uri, chosen), {"MLFLOW_TRACKING_URI": tracking_uri()}, log) as process,
            suppress(KeyboardInterrupt),
        ):
            wait_for_answer(process, "MLflow's model server", f"{where}/ping", log, STARTS_WITHIN)
            console.print(
                f"It answers:\n\n{curl(where, request(version))}\n", soft_wrap=True, markup=False
            )  # to be copied
            say(console, f"Ctrl-C stops it. Its log: {escape(str(log))}")
            code = process.wait()
            raise StackError(f"MLflow's model server ended by itself with code {code}; see {log}")
    say(console, "Stopped.")
    return 0


def other_port(wanted: int, chosen: int) -> str:
    """That another port than the wanted one was chosen; empty where it was not, and for 0, which wants any."""
    return "" if wanted in (0, chosen) else f"Port {wanted} cannot be used; took {chosen}."


def command(uri: str, port: int) -> list[str]:
    """What starts MLflow's server for one version; the version's number, so that no alias moves it meanwhile."""
    return [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri, "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


@contextmanager
def serving(command: list[str], environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A server of ours while the block lasts; then it and every process that it started are ended."""
    from flows.stack.processes import start
    from tasks.proxies import spare_loopback

    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    # MLflow starts uvicorn by its name, so the environment has to be on the path
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, **environment, "PATH": path, "PYTHONUNBUFFERED": "1"}
    spare_loopback(env)
    process = start(command, env, log)
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process that leads a group, and its children: asked first, killed if they do not within a while."""
    for number, within in ((signal.SIGTERM, STOPS_WITHIN), (signal.SIGKILL, STOPS_WITHIN)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        ends = time.monotonic() + within
        while time.monotonic() < ends:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def request(version: "RegisteredVersion") -> dict[str, Any]:
    """A request that the version answers: a chat where it was trained on chats, else a text to go on with.

    It is the first prompt of the record, and a chat's answer is at most as long as in training.
    """
    from tasks.registry import models, recorded, serving

    config, first = recorded.first_sample(version.run_id)
    if not models.takes_messages(version.source):
        return {"inputs": [first.prompt if first is not None and first.prompt.strip() else PROMPT]}
    asked = first.shown[0] if first is not None and first.messages else GREETING
    return {"messages": [{"role": "user", "content": asked}], "max_tokens": serving.new_tokens(config)}


def curl(where: str, body: dict[str, Any]) -> str:
    """A shell command that asks the server."""
    text = dumps(body, ensure_ascii=False)
    return f"curl {where}/invocations -H 'Content-Type: application/json' \\\n  -d {quote(text)}"
