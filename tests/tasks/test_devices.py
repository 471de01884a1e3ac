"""Which devices there are, and that two stages never hold one."""

from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import pytest

from alignment.errors import ConfigError, Interrupted
from tasks import devices as of_host
from tasks.devices import bound, devices, require_devices


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(of_host, "LOOK_EVERY", 0.01)


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


def test_devices_are_counted_by_the_driver_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    of_host._listed.cache_clear()
    try:
        assert devices() == ("0", "1")
    finally:
        of_host._listed.cache_clear()


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
        with bound(1, ("0",), wanted, wait) as found:
            got.append(found.names)

    with bound(1, ("0",), wanted, pytest.fail):
        thread = Thread(target=other)
        thread.start()
        assert waits.wait(10)
        assert got == []
    thread.join(10)
    assert (got, told) == ([("0",)], ["all devices of this host are in use (0)"])


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
