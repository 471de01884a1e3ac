"""The pictures of the documentation: where each is used, what code it shows, and a note of when it was taken."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.test_habits import VERSION

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTE = DOCS / "pictures.json"

FORM = ("flows/form*.py", "flows/start_from.py", "alignment/config/*.py", "prefect.yaml")
RUN = ("flows/align.py", "tasks/run_page.py", "tasks/following.py", "tasks/showing.py", "tasks/checks.py")
VERDICT = ("alignment/judging/headline.py", "alignment/judging/card.py", "alignment/judging/metrics/*.py")
REGISTRY = ("tasks/registry/*.py",)
APPROVAL = ("flows/promote.py", "tasks/approvals.py", "tasks/registry/candidates.py")
SHOWS: dict[str, tuple[str, ...]] = {
    "prefect-first-steps": ("flows/stack/first_steps.py",),
    "prefect-form": FORM,
    "prefect-refused": FORM,
    "prefect-run": RUN,
    "prefect-progress": RUN,
    "prefect-result": (*RUN, *VERDICT),
    "prefect-retrain": ("flows/retrain.py", "prefect.yaml"),
    "prefect-approval": (*APPROVAL, *VERDICT),
    "mlflow-run": REGISTRY,
    "mlflow-champion": REGISTRY,
    "mlflow-promoted": REGISTRY,
    "mlflow-reverted": REGISTRY,
    "report": ("alignment/judging/page.py", "alignment/judging/templates/*", *VERDICT),
}
"""Each picture, and the files whose change it would show."""


def note(name: str, folder: Path = DOCS) -> None:
    """Note that a picture was taken now: at which version, of which code, and what it looks like."""
    path = folder / NOTE.name
    noted = json.loads(path.read_text("utf-8")) if path.exists() else {}
    noted[name] = {"version": VERSION, "shows": digest(files(name)), "picture": digest([folder / f"{name}.png"])}
    text = json.dumps(dict(sorted(noted.items())), indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")


def noted() -> dict[str, Any]:
    """What is noted of each picture."""
    found: dict[str, Any] = json.loads(NOTE.read_text("utf-8"))
    return found


def changed() -> Iterator[str]:
    """The pictures whose code is not what it was when they were taken."""
    for name, each in noted().items():
        if name in SHOWS and each["shows"] != digest(files(name)):
            yield name


def files(name: str) -> list[Path]:
    """The files that a picture shows."""
    return sorted({path for pattern in SHOWS[name] for path in ROOT.glob(pattern) if path.is_file()})


def digest(paths: list[Path]) -> str:
    """A short hash of what files hold."""
    made = hashlib.sha256()
    for path in paths:
        made.update(path.read_bytes())
    return made.hexdigest()[:16]
