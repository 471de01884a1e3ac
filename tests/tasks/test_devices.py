"""Which devices there are, and that two stages never hold one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import pytest

from alignment.errors import ConfigError, Interrupted
from tasks import devices as of_host
from tasks.devices import bound, devices, require_devices

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(of_host, "LOOK_EVERY", 0.01)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver's tool, which lists two devices."""
    tool = tmp_path / "nvidia-smi"
    listed = "GPU 0: A (UUID: GPU-1a-2b)\n  MIG 1g.10gb Device 0: (UUID: MIG-3c)\nGPU 1: A (UUID: GPU-4d)\n"
    tool.write_text(f"#!/bin/sh\nprintf '{listed}'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    of_host._listed.cache_clear()
    yield
    of_host._listed.cache_clear()


@pytest.mark.parametrize(
    ("visible", "names"),
    [("", ()), ("-1", ()), ("0", ("0",)), ("2,3", ("2", "3")), ("GPU-a, GPU-b", ("GPU-a", "GPU-b"))],
)
@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "PLUMBLINE_DEVICES"])
def test_devices_are_those_that_the_environment_names(
    variable: str, visible: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, visible)
    assert devices() == names


def test_a_device_that_is_named_twice_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that held it for its first process would wait for itself."""
    monkeypatch.setenv("PLUMBLINE_DEVICES", "0, 0,1")
    assert devices() == ("0", "1")


@pytest.mark.parametrize("ours", [None, ""])
def test_devices_are_counted_by_the_driver_where_the_environment_says_nothing(
    ours: str | None, driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if ours is not None:
        monkeypatch.setenv("PLUMBLINE_DEVICES", ours)
    assert devices() == ("0", "1")


def wanted() -> None:
    """A run that nobody has asked to stop."""


def test_each_stage_holds_a_device_of_its_own() -> None:
    with ExitStack() as held:
        found = [held.enter_context(bound(1, ("0", "1", "2"), wanted, pytest.fail)).names for _ in range(3)]
    assert found == [("0",), ("1",), ("2",)]


def test_who_finds_all_taken_waits_and_says_so_once_until_one_is_free() -> None:
    told: list[str] = []
    waits, got = Event(), list[tuple[str, ...]]()

    def wait(who: str) -> None:
        told.append(who)
        waits.set()

    def other() -> None:
        with bound(1, ("0",), wanted, wait, lambda: told.append("goes on")) as found:
            got.append(found.names)

    with bound(1, ("0",), wanted, pytest.fail):
        thread = Thread(target=other)
        thread.start()
        assert waits.wait(10)
        assert got == []
    thread.join(10)
    assert (got, told) == ([("0",)], ["other stages hold the devices of this host (0)", "goes on"])


def test_a_device_is_one_under_each_of_its_names(driver: None) -> None:
    def taken() -> None:
        raise Interrupted("looked")

    with (
        bound(1, ("0",), wanted, pytest.fail),
        pytest.raises(Interrupted),
        bound(1, ("GPU-1a-2b",), taken, lambda _: None),
    ):
        pytest.fail("it is the same device")


RUN = """
import os, sys, time
from pathlib import Path
from tasks.devices import bound, devices
with bound(1, devices(), lambda: None, lambda _: None) as held:
    at_work = Path(sys.argv[1]) / held.names[0]
    at_work.touch(exist_ok=False)
    time.sleep(0.1)
    at_work.unlink()
    print(held.names[0])
"""


def test_twelve_runs_share_four_devices_and_never_one(tmp_path: Path) -> None:
    """Each is a process of its own; a file that is there already would be another one's on the same device."""
    given = os.environ | {"PLUMBLINE_DEVICES": "0,1,2,3", "TMPDIR": str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=given, cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(12)
    ]
    told = [run.communicate()[0].decode().strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 12
    assert set(told) <= {"0", "1", "2", "3"}


def test_a_run_that_is_killed_leaves_its_device_to_others(tmp_path: Path) -> None:
    given = os.environ | {"PLUMBLINE_DEVICES": "0", "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN.replace("0.1", "600"), str(tmp_path)], env=given, cwd=ROOT, stdout=subprocess.PIPE
    )
    looks = []

    def look() -> None:
        looks.append(run.poll())
        run.kill()

    while not (tmp_path / "0").exists():
        assert run.poll() is None
        time.sleep(0.01)
    with bound(1, ("0",), look, lambda _: None) as held:
        assert held.names == ("0",)
    run.communicate()
    assert looks[0] is None, "it was at work on it"


def test_who_wants_several_holds_none_while_it_waits() -> None:
    def still_free() -> None:
        with bound(1, ("1",), wanted, pytest.fail):
            raise Interrupted("looked")

    with (
        bound(1, ("0",), wanted, pytest.fail),
        pytest.raises(Interrupted),
        bound(2, ("0", "1"), still_free, lambda _: None),
    ):
        pytest.fail("two of them are not free")


def test_more_processes_than_devices_are_refused_and_a_cpu_takes_any_number() -> None:
    with pytest.raises(ConfigError, match=r"policy: dpo\.processes = 4 takes as many devices, and this host has 2"):
        require_devices("policy", 4, ("0", "1"))
    require_devices("policy", 4, ())
