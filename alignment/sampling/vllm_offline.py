"""The engine `vllm`: vLLM without a server, as a child process by an interpreter of another environment.

It fits none that has this project's libraries. What runs there is `vllm_child.py`; its requests and answers are files.
It was tried with a stand-in for vLLM that has the same interface, and on no card.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from alignment.config import SamplingConfig
from alignment.endpoints import SHOWN
from alignment.errors import ConfigError, EndpointError
from alignment.passed_on import passed_on
from alignment.sampling.engine import Completion, Request, engine, engine_version
from alignment.sampling.kept import Drawn, KeptDraws
from alignment.sampling.outside import Answers, Remembered, require_same_weights, seed, texts_to_compare

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

PYTHON = "PLUMBLINE_VLLM_PYTHON"
"""Names an interpreter, and so code: it is no field of a configuration, which a form could fill in."""
CHILD = Path(__file__).with_name("vllm_child.py")
NAME = "sampling.engine vllm"
LOOK_EVERY = 0.2
"""Seconds between two looks at what the child has written."""
GRACE = 10.0
"""Seconds for which a child may end by itself when it is asked to."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else the order of the work, and so its rounding, is left to chance
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # the model is a folder
}
DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16"}


@engine("vllm", common_random_numbers=False, keeps=True)
def vllm(
    loaded: "Loaded",
    requests: Sequence[Request],
    config: SamplingConfig,
    progress: Callable[[int, int], None] | None = None,
    kept: Path | None = None,
) -> list[Completion]:
    """Samples of the model's own folder, by vLLM; what it drew before a crash is in `kept`, and not drawn again.

    While it runs, the model that is loaded here waits in the machine's memory. Raises ModelError where vLLM gives other
    log-probs than that model, EndpointError where it fails, and ConfigError without an interpreter for it.
    """
    python, who = interpreter(), dict(version(config)) | {"dtype": DTYPES[config.precision]}
    bodies = [_body(each, loaded.conventions.ends, config) for each in requests]
    answers = Answers(requests, bodies, KeptDraws(kept, who), loaded=loaded, stop=config.stop, name=NAME)
    missing = answers.missing
    done = len(requests) - len(missing)

    def report() -> None:
        if progress is not None:
            progress(done, len(requests))

    if missing:
        texts = texts_to_compare(loaded)
        with tempfile.TemporaryDirectory(prefix="plumbline-vllm-") as folder, _aside(loaded.model):
            work = {
                "model": str(_folder(loaded, Path(folder))),
                "dtype": who["dtype"],
                "context": max(config.total_tokens, *(len(ids) + 1 for ids in texts)),
                "gpu_memory": config.vllm.gpu_memory,
                "score": texts,
                "draw": [bodies[place] for place in missing],
            }
            for line in _answers(python, work, Path(folder), (kept or Path(folder)) / "vllm.log", report):
                if "scores" in line:
                    _compare(loaded, line["scores"], config.vllm.max_difference)
                    continue
                for place, found in zip(missing[line["first"] :], line["drawn"], strict=False):
                    answers.take(place, Drawn(*found))
                    done += 1
    report()
    return answers.completions()


@engine_version("vllm")
def version(config: SamplingConfig) -> Mapping[str, Any]:  # noqa: ARG001 - no field decides it
    """The version of vLLM in that environment. Raises ConfigError where there is none."""
    return {"version": _installed(interpreter())}


def interpreter() -> Path:
    """The interpreter that the environment names. Raises ConfigError where it names none that can be run."""
    said = os.environ.get(PYTHON, "").strip()
    if not said:
        raise ConfigError(
            f"{NAME}: needs the environment variable {PYTHON}, with the path of the interpreter of an environment that "
            "has vllm, such as /opt/vllm/bin/python; or set sampling.engine to local or endpoint"
        )
    found = Path(said)
    if not (found.is_absolute() and found.is_file() and os.access(found, os.X_OK)):
        raise ConfigError(f"{PYTHON} = {said}: is not the whole path of an interpreter that can be run; name another")
    return found


@Remembered[Path, str]
def _installed(python: Path) -> str:
    asked = "import importlib.metadata as m; print(m.version('vllm'))"
    try:
        done = subprocess.run(  # noqa: S603 - named by whoever may start programs here
            [python, "-I", "-c", asked], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{PYTHON} = {python}: cannot be run ({error}); name another") from error
    if done.returncode or not done.stdout.strip():
        raise ConfigError(
            f"{PYTHON} = {python}: its environment has no vllm ({_last(done.stderr)}); install vllm there, or name the "
            "interpreter of one that has it"
        )
    return done.stdout.strip()


def _body(asked: Request, ends: Sequence[int], config: SamplingConfig) -> dict[str, Any]:
    """The request of one sample: its prompt, and vLLM's `SamplingParams`. Only the end tokens given end a text."""
    return {
        "prompt": list(asked.prompt),
        "settings": {
            "max_tokens": len(asked.uniforms),
            "seed": seed(asked),
            "temperature": config.temperature,
            "top_k": config.top_k,
            "top_p": config.top_p,
            "ignore_eos": True,
            "stop_token_ids": list(ends),
            "stop": list(config.stop),
        },
    }


def _compare(loaded: "Loaded", scores: list[list[float | None]], most: float) -> None:
    require_same_weights(loaded, lambda _: scores, most, NAME, "sampling.vllm.max_difference")


def _folder(loaded: "Loaded", free: Path) -> Path:
    """The folder that the model was loaded from; one that was not is written to a `free` one."""
    from alignment import models

    found = Path(loaded.model.name_or_path or "/nowhere")
    if (found / "config.json").is_file() and next(found.glob("*.safetensors"), None):
        return found.resolve()
    models.save(loaded, free / "model")
    return free / "model"


@contextmanager
def _aside(model: Any) -> Iterator[None]:
    """Have a model wait in the machine's memory while another process needs the GPU's."""
    import torch

    device = next(model.parameters()).device
    if device.type != "cuda" or getattr(model, "is_quantized", False):  # which may not be moved, and is small
        yield
        return
    model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        model.to(device)


def _answers(
    python: Path, work: Mapping[str, Any], folder: Path, log: Path, look: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """What a child writes, line by line as it comes; `look` is called again and again, and may raise to end it.

    Raises EndpointError where it fails, with the last that it said.
    """
    asked, answers = folder / "requests.json", folder / "answers.jsonl"
    asked.write_text(json.dumps(work), encoding="utf-8")
    answers.touch()
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - named by whoever may start programs here
            [python, "-I", CHILD, asked, answers],
            cwd=folder,
            env=passed_on() | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield from _lines(process, answers, look)
    finally:
        _end(process)
    if process.returncode:
        raise EndpointError(
            f"{NAME}: ended with exit code {process.returncode} ({_last(log.read_text(errors='replace'))}); {log} has "
            "more; where it is the memory, lower sampling.vllm.gpu_memory or sampling.total_tokens"
        )


def _lines(process: "subprocess.Popen[bytes]", answers: Path, look: Callable[[], None]) -> Iterator[dict[str, Any]]:
    rest = ""
    with answers.open(encoding="utf-8") as written:
        while True:
            ended = process.poll() is not None  # before what is read, so that nothing stays unread
            *lines, rest = (rest + written.read()).split("\n")
            for line in lines:
                yield json.loads(line)
            look()
            if ended:
                return
            sleep(LOOK_EVERY)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a child that still runs, and whatever it has started."""
    if process.poll() is not None:
        return
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
        return


def _last(said: str) -> str:
    """The last line of a log, which is what an exception says."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:SHOWN] if lines else "it said nothing"
