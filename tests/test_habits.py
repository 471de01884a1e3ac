"""What surrounds the code: continuous integration, types for whoever imports a package, and one version everywhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION: str = PROJECT["project"]["version"]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]


def test_the_workflow_calls_what_anybody_can_call() -> None:
    assert [step["run"] for job in JOBS.values() for step in job["steps"] if ".ci/" in step.get("run", "")] == [
        ".ci/run"
    ]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_workflow_may_only_read_and_ends_by_itself() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job and 0 < job["timeout-minutes"] <= 120 for job in JOBS.values())


def test_actions_are_pinned_by_their_major_version() -> None:
    used = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[\w-]+@v\d+", action)] == []


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_what_github_reads_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_the_hooks_fetch_nothing_and_call_what_make_check_calls() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    checks = re.search(r"(?m)^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"))
    assert checks is not None
    called = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in checks[1].splitlines()]
    assert [hook["entry"].removesuffix(" --force-exclude") for hook in hooks] == called


def test_the_rooms_are_found() -> None:
    assert {"alignment", "expectations", "flows", "tasks"} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_package_says_that_it_has_types_and_takes_that_along(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    data = PROJECT["tool"]["setuptools"]["package-data"]
    assert "py.typed" in [*data.get("*", []), *data.get(room, [])]


def test_there_is_one_version() -> None:
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert CITATION["version"] == VERSION
    assert VERSION in headings


def test_the_citation_has_what_its_format_asks_for() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert all(CITATION.get(key) for key in ("message", "title", "authors"))
    assert CITATION["license"] == PROJECT["project"]["license"]
    assert "doi" not in CITATION  # there is none to invent
