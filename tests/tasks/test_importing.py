"""The garbage collector pauses while modules are imported, and is as it was afterwards."""

import gc

import pytest

from tasks.importing import collector_paused


def fail() -> None:
    with collector_paused():
        assert not gc.isenabled()
        raise ImportError


def test_the_collector_works_again_after_the_imports_also_after_one_that_failed() -> None:
    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
