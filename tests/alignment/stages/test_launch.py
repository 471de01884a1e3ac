"""A stage in a process of its own: it makes the same, and its progress, errors and end are those of one here."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ConfigError, DataError, Interrupted, ProcessError
from alignment.stages import launch as launching
from alignment.stages.job import SCRATCH, Job
from alignment.stages.job_file import STOP, followed, read_error, read_job, write_error, write_job
from alignment.stages.launch import Worker, environment, launch
from alignment.stages.parts import fill
from alignment.stages.store import digest_folder
from alignment.stages.worker import LOCK, hold
from alignment.transient import is_transient
from tasks.pipeline import STAGES
from tests.alignment.chain import Chain, config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the end of a parent is told by Linux alone")

LONG = config(base={"steps": 1_000_000, "model": "train"}, data={"rows": 300})


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(name: str = "out", given: Any = None, **others: Any) -> Job:
        for folder in (name, f"work-{name}", "kept"):
            (tmp_path / folder).mkdir(exist_ok=True)
        folders = (tmp_path / name, tmp_path / f"work-{name}", tmp_path / "kept")
        return Job(given or config(), {}, *folders, read=STAGES["texts"].reads(given or config()), **others)

    return make


def processes_of(work: Path) -> list[int]:
    """The processes that compute in a folder."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(work / SCRATCH / "process").encode() in words:
            found.append(int(command.parent.name))
    return found


def children_of(parent: int) -> list[int]:
    """The workers that a process has started."""
    found = []
    for pid in Path(f"/proc/{parent}/task").glob("*/children"):
        found += [int(child) for child in pid.read_text().split()]
    return [child for child in found if b"alignment.stages.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)
    return found


def test_a_process_makes_what_this_one_makes(job: Callable[..., Job]) -> None:
    here, there = job("here"), job("there")
    counts = fill(STAGES["texts"], here)
    assert launch(STAGES["texts"], there) == counts
    assert digest_folder(there.out) == digest_folder(here.out)
    assert sorted(path.name for path in there.work.iterdir()) == [LOCK, SCRATCH]
    assert list(there.scratch.iterdir()) == [], "nothing is left of it"


def test_a_process_computes_one_job_after_the_other_until_one_fails(job: Callable[..., Job]) -> None:
    here, jobs = job("here"), [job(name) for name in ("one", "two")]
    counts = fill(STAGES["texts"], here)
    with Worker() as worker:
        for given in jobs:
            assert worker.compute(STAGES["texts"], given) == counts
            assert digest_folder(given.out) == digest_folder(here.out)
        assert len(children := children_of(os.getpid())) == 1
        with pytest.raises(DataError, match="changed"):
            worker.compute(STAGES["texts"], replace(job("three"), read="something else"))
        assert not children_of(os.getpid())
        assert worker.compute(STAGES["texts"], job("four")) == counts
        assert children_of(os.getpid()) != children, "another one"
    assert not children_of(os.getpid())


def test_a_process_that_died_between_two_jobs_is_replaced(job: Callable[..., Job]) -> None:
    with Worker() as worker:
        worker.compute(STAGES["texts"], job("one"))
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGKILL)
        until(lambda: worker._child is not None and worker._child.poll() is not None)
        assert worker.compute(STAGES["texts"], job("two"))


READS = """
import subprocess, sys
from alignment.stages.worker import taken_input
further = taken_input()
print(repr(sys.stdin.read()), subprocess.check_output(["cat"]), repr(further.readline()))
"""


def test_the_code_of_a_stage_does_not_read_the_jobs() -> None:
    found = subprocess.run([sys.executable, "-c", READS], input=b"job\n", capture_output=True, check=True, timeout=60)
    assert found.stdout.split() == [b"''", b"b''", b"'job\\n'"]


def test_a_job_comes_back_as_it_was_written(job: Callable[..., Job], tmp_path: Path) -> None:
    given = replace(job(), inputs={"base": tmp_path / "b"}, digests={"base": "d"}, part=(3, 5), parts=(tmp_path / "p",))
    write_job(tmp_path, STAGES["samples"], given)
    stage, found = read_job(tmp_path, progress=given.progress, on_row=given.on_row)
    assert (stage, found) == (STAGES["samples"], replace(given, read=json.loads(json.dumps(given.read))))


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("alignment.errors", "ConfigError")])
def test_a_job_names_a_stage_and_nothing_else(job: Callable[..., Job], tmp_path: Path, module: str, name: str) -> None:
    write_job(tmp_path, replace(STAGES["texts"], module=module, name=name), job())
    with pytest.raises(ValueError, match=rf"job\.json: {module}.* (holds|is) no stage"):
        read_job(tmp_path)


@pytest.mark.parametrize(
    ("error", "kind", "told", "passes"),
    [
        (DataError("data.path x: no such file; give another"), DataError, "data.path x: no such file", False),
        (ConfigError("seed = -1: raise it"), ConfigError, "seed = -1: raise it", False),
        (OSError(28, "No space left on device", "/disk"), OSError, "No space left on device: '/disk'", False),
        (ConnectionResetError(104, "Connection reset by peer"), ConnectionResetError, "reset by peer", True),
        (ZeroDivisionError("division by zero"), ProcessError, "texts: ZeroDivisionError: division by zero", False),
    ],
)
def test_an_error_crosses_as_what_it_is(
    tmp_path: Path, error: Exception, kind: type[Exception], told: str, passes: bool
) -> None:
    write_error(tmp_path, error, 0)
    found = read_error(tmp_path, "texts")
    assert type(found) is kind
    assert told in str(found)
    assert is_transient(found) is passes
    assert "in the process of texts" in found.__notes__[0]


def test_of_a_group_the_first_error_is_told(tmp_path: Path) -> None:
    write_error(tmp_path, RuntimeError("Connection closed by peer"), 0, at=200.0)
    write_error(tmp_path, DataError("the first"), 1, at=100.0)
    assert str(read_error(tmp_path, "policy")) == "the first"


def test_an_error_of_the_stage_is_raised_here(job: Callable[..., Job]) -> None:
    given = replace(job(), read="something else")
    with pytest.raises(DataError, match="changed"):
        launch(STAGES["texts"], given)


@pytest.fixture
def training(job: Callable[..., Job]) -> tuple[Job, list[tuple[int, int]]]:
    """A training that would take hours, and its reports."""
    texts = job("texts", LONG)
    fill(STAGES["texts"], texts)
    reports: list[tuple[int, int]] = []
    return replace(job("base", LONG), inputs={"texts": texts.out}, progress=lambda *at: reports.append(at)), reports


def test_a_stop_reaches_the_process_and_it_keeps_a_checkpoint(
    training: tuple[Job, list[tuple[int, int]]], caplog: pytest.LogCaptureFixture
) -> None:
    given, reports = training

    def wanted() -> None:
        if reports:
            raise Interrupted("the run was asked to stop")

    with caplog.at_level(logging.INFO), pytest.raises(Interrupted):
        launch(STAGES["base"], given, devices=["0"], wanted=wanted)
    assert reports[-1][1] == 1_000_000
    assert list(given.work.glob("checkpoint-*/model.safetensors"))
    assert not any(given.out.iterdir())
    assert (given.scratch / "process" / STOP).exists()


def test_a_process_that_is_killed_is_one_line(training: tuple[Job, list[tuple[int, int]]]) -> None:
    given, reports = training

    def wanted() -> None:
        if reports:
            for pid in processes_of(given.work):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(
        ProcessError, match=r"base: its process was ended by SIGKILL, as the kernel does where .*memory"
    ):
        launch(STAGES["base"], given, wanted=wanted)


PARENT = """
import sys
from pathlib import Path
from alignment.stages.job_file import read_job
from alignment.stages.launch import launch
stage, job = read_job(Path(sys.argv[1]))
launch(stage, job)
"""


def test_the_process_dies_with_who_waits_for_it_and_the_next_one_waits_for_that(
    training: tuple[Job, list[tuple[int, int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, reports = training
    write_job(tmp_path, STAGES["base"], given)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment((), 1))
    child = until(lambda: processes_of(given.work))[0]
    until((given.scratch / "process" / "events.jsonl").exists)
    parent.kill()
    parent.wait()
    until(lambda: not Path(f"/proc/{child}").exists(), 10)

    holder = subprocess.Popen(["flock", "--shared", str(given.work / LOCK), "sleep", "60"])
    waits = []

    def wanted() -> None:
        waits.append(holder.poll())
        if len(waits) == 3:
            holder.kill()
            subprocess.run(["pkill", "-P", str(holder.pid)], check=False)
        if reports:
            raise Interrupted("enough")

    until(lambda: holder.poll() is None and _is_held(given.work / LOCK), 10)
    with pytest.raises(Interrupted):
        launch(STAGES["base"], given, wanted=wanted)
    assert waits[:3] == [None] * 3, "an orphan still wrote"


@pytest.mark.full
def test_a_group_of_processes_makes_the_stage_and_ends_as_one(
    training: tuple[Job, list[tuple[int, int]]], job: Callable[..., Job]
) -> None:
    """The first alone writes; one that is killed ends all, and is named; what was kept is gone on from, by one."""
    given, reports = training
    short = config(base={"steps": 5, "model": "train"}, data={"rows": 300})
    whole = replace(job("whole", short), inputs=given.inputs)
    assert launch(STAGES["base"], whole, processes=2)["steps"] == 5
    assert (whole.out / "model" / "model.safetensors").exists()
    assert sorted(path.name for path in whole.work.iterdir()) == [LOCK, SCRATCH]
    assert list(whole.scratch.iterdir()) == []

    def kill() -> None:
        ranks = [pid for pid in processes_of(given.work) if b"--rank" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        of_second = [pid for pid in ranks if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
        if reports and of_second:
            os.kill(of_second[0], signal.SIGKILL)

    with pytest.raises(ProcessError, match=r"process 2 of 2 was ended by SIGKILL"):
        launch(STAGES["base"], given, processes=2, wanted=kill)
    assert processes_of(given.work) == []
    assert not any(given.out.iterdir())

    reports.clear()

    def stop() -> None:
        if reports:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        launch(STAGES["base"], given, processes=2, wanted=stop)
    (kept,) = given.work.glob("checkpoint-*")
    reports.clear()
    with pytest.raises(Interrupted):
        launch(STAGES["base"], given, wanted=stop)
    assert reports[0][0] > int(kept.name.split("-")[1]), "one process goes on from what two have kept"


def _is_held(path: Path) -> bool:
    return subprocess.run(["flock", "--nonblock", str(path), "true"], check=False).returncode == 1


def test_a_shared_disk_without_locks_keeps_nobody_from_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who computes a stage is known by the store there, which has leases."""

    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with launching._alone(tmp_path, pytest.fail), hold(tmp_path):
        assert (tmp_path / LOCK).exists()


WARNS = """
import logging, sys, warnings
from pathlib import Path
from alignment.stages.job_file import Events
from alignment.stages.worker import logs_told
with logs_told(Events(Path(sys.argv[1])), logging.INFO):
    warnings.warn("a column is odd")
    logging.getLogger("alignment.data").info("read")
    logging.getLogger("another").warning("nobody's")
logging.getLogger("alignment.data").info("of another job")
"""


def test_what_a_process_logs_and_warns_of_is_told(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WARNS, str(tmp_path)], env=environment((), 1), check=True)
    warned, read = next(followed(tmp_path))
    assert (warned[:3], read) == (["log", "py.warnings", 30], ["log", "alignment.data", 20, "read"])
    assert "UserWarning: a column is odd" in warned[3]


def test_a_process_sees_its_devices_and_no_password_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "PLUMBLINE_WEBHOOK_SECRET", "WORLD_SIZE", "HF_TOKEN"):
        monkeypatch.setenv(name, "x")
    found = environment(("2", "3"), 1)
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert [name for name in found if found[name] == "x"] == ["HF_TOKEN"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert environment((), 4)["OMP_NUM_THREADS"] == "2", "processes of a CPU share its cores"


def test_the_whole_way_of_samples_in_processes(chain: Chain, tmp_path: Path) -> None:
    """A part of a stage with a model: the same rows as here."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "out").mkdir()
    stage = STAGES["samples"]
    given = Job(
        chain.config,
        {name: chain.folders[name] for name in stage.needs(chain.config)},
        tmp_path / "out",
        work,
        tmp_path / "kept",
        digests=dict.fromkeys(stage.needs(chain.config), ""),
        part=(0, 5),
    )
    launch(stage, given, devices=["0"])
    assert digest_folder(tmp_path / "out") == digest_folder(chain.root / "samples 0")
