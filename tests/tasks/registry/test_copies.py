"""This home's copies of registered models, and drafts of models: what is pruned, and what stays."""

import os
import time
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
    for name in (*MODELS, "named-1234/.2-cd-0123abcd"):
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
    assert [(each.name, each.size) for each in found.copies] == [
        ("models/m-0123", 100),
        ("models/named-1234/1-ab", 100),
    ]
    assert found.size == 200
    assert left(made) == {*MODELS, "named-1234/.2-cd-0123abcd"}
    assert prune(1) == ["models/m-0123", "models/named-1234/1-ab"]
    assert left(made) == {"named-1234/.2-cd-0123abcd"}


def test_links_to_files_of_mlflow_hold_nothing(made: Path, tmp_path: Path) -> None:
    os.link(made / "m-0123" / "model.safetensors", tmp_path / "logged")
    assert keeping.prune(timedelta(days=1), dry_run=True).size == 102


def test_what_a_process_uses_stays_and_what_was_used_lately_too(made: Path) -> None:
    copies.note_use(made / "m-0123", made)
    assert prune(0) == ["models/named-1234/1-ab"]
    for mark in (made / ".used").iterdir():
        mark.unlink()
    assert prune(1) == []
    assert prune(0) == ["models/m-0123"]


def test_what_a_process_asks_for_while_others_are_deleted_stays(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., list[copies.Copy]] = copies.unused

    def unused(*given: object) -> list[copies.Copy]:
        old = found(*given)
        copies.note_use(made / "m-0123", made)
        return old

    monkeypatch.setattr(copies, "unused", unused)
    assert prune(1) == ["models/named-1234/1-ab"]
    assert left(made) >= {"m-0123"}


def test_what_the_disk_does_not_let_go_is_told_in_a_line_and_the_others_go(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a home that several users share."""
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == "m-0123":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    assert prune(1) == ["models/named-1234/1-ab"]
    assert left(made) == {"m-0123", "named-1234/.2-cd-0123abcd"}
    assert caplog.messages == [
        f"store prune: {made / 'm-0123'} cannot be deleted (Permission denied) and is kept; whoever made it may "
        "delete it"
    ]


def test_what_could_be_renamed_but_not_deleted_stays_whole(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, _: path != made / "m-0123")
    assert prune(1) == ["models/named-1234/1-ab"]
    assert left(made) >= {"m-0123"}


def test_what_another_prune_deletes_meanwhile_is_not_counted(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., list[copies.Copy]] = copies.unused

    def unused(*given: object) -> list[copies.Copy]:
        old = found(*given)
        (made / "m-0123").rename(made / "gone")
        return old

    monkeypatch.setattr(copies, "unused", unused)
    assert prune(1) == ["models/named-1234/1-ab"]


def test_a_copy_that_goes_while_it_is_looked_at_is_none(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lstat = os.lstat

    def gone(path: str) -> os.stat_result:
        if str(path).startswith(str(made / "m-0123")):
            raise FileNotFoundError
        return lstat(path)

    monkeypatch.setattr("os.lstat", gone)
    assert [each.name for each in keeping.prune(timedelta(days=1), dry_run=True).copies] == ["models/named-1234/1-ab"]


DRAFTS = (
    *(
        "models/.download-k3f_9a2c",
        "models/.merging-k3f_9a2c",
        "models/.m-0123-0123abcd",
        f"models/.deleted-{'0a' * 16}",
    ),
    *("models/named-1234/.2-cd-0123abcd", "models/named-1234/.download-k3f_9a2c", "bases/.0a1b-0123abcd"),
    ".model-k3f_9a2c",
)
OTHERS = ("models/.used", "models/.cache", "bases/0a1b", ".models")


def draft(name: str, hours: float) -> None:
    """A folder with 98 bytes in it, to whose file somebody has written so long ago."""
    folder, then = home() / name, time.time() - hours * 3_600
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"0" * 98)
    os.utime(folder / "model" / "model.safetensors", (then, then))
    for each in (folder / "model", folder):
        os.utime(each, (0, 0))


def test_drafts_that_nobody_has_written_to_for_a_day_are_deleted() -> None:
    for name in (*DRAFTS, *OTHERS):
        draft(name, 25)
    would = keeping.prune(timedelta(0), dry_run=True)
    assert (would.unfinished, would.unfinished_size, would.copies) == (len(DRAFTS), 98 * len(DRAFTS), ())
    assert all((home() / name).exists() for name in DRAFTS)
    assert keeping.prune(timedelta(0), dry_run=False) == would
    assert [name for name in (*DRAFTS, *OTHERS) if (home() / name).exists()] == list(OTHERS)


@pytest.mark.parametrize(("hours", "days"), [(23, 0), (25, 2)])
def test_a_draft_that_is_written_to_or_younger_than_is_asked_for_stays(hours: float, days: int) -> None:
    draft(DRAFTS[0], hours)
    assert keeping.prune(timedelta(days=days), dry_run=False).unfinished == 0
    assert (home() / DRAFTS[0]).exists()


def test_a_draft_that_the_disk_does_not_let_go_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draft(DRAFTS[0], 25)

    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refused)
    assert keeping.prune(timedelta(0), dry_run=False).unfinished == 0
    assert caplog.messages == [
        f"store prune: {home() / DRAFTS[0]} cannot be deleted (Permission denied) and is kept; whoever made it may "
        "delete it"
    ]
