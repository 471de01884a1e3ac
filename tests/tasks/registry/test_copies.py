"""This home's copies of registered models: what is pruned, and what stays."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tasks import keeping
from tasks.home import home
from tasks.registry import copies

pytestmark = pytest.mark.usefixtures("local")

MODELS = ("named-1234/1-ab", "m-0123")


@pytest.fixture
def made() -> Path:
    """Two copies, of a version and of a logged model, and a download under way, all from long ago."""
    folder = home() / "models"
    for name in (*MODELS, "named-1234/.2-cd-draft"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        (folder / name / "model.safetensors").write_bytes(b"0" * 98)
        os.utime(folder / name, (0, 0))
    return folder


def left(folder: Path) -> set[str]:
    return {str(file.parent.relative_to(folder)) for file in folder.rglob("config.json")}


def prune(days: int, *, dry_run: bool = False) -> list[str]:
    return [each.name for each in keeping.prune(timedelta(days=days), dry_run=dry_run).copies]


def test_old_ones_are_deleted_with_what_they_hold(made: Path) -> None:
    found = keeping.prune(timedelta(days=1), dry_run=True)
    assert [(each.name, each.size) for each in found.copies] == [("m-0123", 100), ("named-1234/1-ab", 100)]
    assert found.size == 200
    assert left(made) == {*MODELS, "named-1234/.2-cd-draft"}
    assert prune(1) == ["m-0123", "named-1234/1-ab"]
    assert left(made) == {"named-1234/.2-cd-draft"}


def test_links_to_files_of_mlflow_hold_nothing(made: Path, tmp_path: Path) -> None:
    os.link(made / "m-0123" / "model.safetensors", tmp_path / "logged")
    assert keeping.prune(timedelta(days=1), dry_run=True).size == 102


def test_what_a_process_uses_stays_and_what_was_used_lately_too(made: Path) -> None:
    copies.note_use(made / "m-0123", made)
    assert prune(0) == ["named-1234/1-ab"]
    for mark in (made / ".used").iterdir():
        mark.unlink()
    assert prune(1) == []
    assert prune(0) == ["m-0123"]


def test_what_a_process_asks_for_while_others_are_deleted_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., list[copies.Copy]] = copies.unused

    def unused(*given: object) -> list[copies.Copy]:
        old = found(*given)
        copies.note_use(made / "m-0123", made)
        return old

    monkeypatch.setattr(copies, "unused", unused)
    assert prune(1) == ["named-1234/1-ab"]
    assert left(made) >= {"m-0123"}
