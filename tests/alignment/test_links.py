"""Copies that share their bytes on the disk, and copies that do not where the disk cannot, or content may change."""

import os
from pathlib import Path

import pytest

from alignment import links
from alignment.links import share


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a disk without references, as most have none."""
    monkeypatch.setattr(links, "FICLONE", 0)
    (tmp_path / "given").write_bytes(b"weights")
    return tmp_path / "given"


def test_a_link_is_the_same_file(file: Path, tmp_path: Path) -> None:
    share(file, tmp_path / "copy", link=True)
    assert (tmp_path / "copy").samefile(file)


def test_of_a_link_what_it_points_to_is_shared(file: Path, tmp_path: Path) -> None:
    """As files of the hub's cache are."""
    (tmp_path / "pointer").symlink_to(file)
    share(tmp_path / "pointer", tmp_path / "copy", link=True)
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").samefile(file)


def test_what_may_be_written_to_is_a_copy(file: Path, tmp_path: Path) -> None:
    share(file, tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"others")
    assert file.read_bytes() == b"weights"


def test_another_disk_gets_the_bytes(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    share(file, tmp_path / "copy", link=True)
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert not (tmp_path / "copy").samefile(file)


def test_a_file_that_is_there_is_not_written_over(file: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        share(file, tmp_path / "copy", link=True)
    assert (tmp_path / "copy").read_bytes() == b"mine"
