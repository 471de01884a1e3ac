"""From Python, without the command line: a flow takes a configuration, and the user's own home stays as it was."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORT = """
import importlib, pathlib
for room in ("tasks", "flows"):
    for path in sorted(pathlib.Path({root!r}, room).glob("*.py")):
        importlib.import_module(room + "." + path.stem)
"""

ALIGN = """
from flows.align import align
from alignment.config import build_config
from tests.flows.small import SMALL

config = build_config(SMALL | {"dpo": {"steps": 2, "warmup_steps": 0, "log_every": 1}})
if __name__ == "__main__":
    result = align(config)
    print("gates", len(result.judgement.gates))
"""

TELEMETRY = """
import datasets, huggingface_hub.constants
from mlflow.telemetry.utils import is_telemetry_disabled
from prefect.settings import get_current_settings
settings = get_current_settings()
assert not settings.server.analytics_enabled
assert str(settings.home) == {home!r} + "/prefect", settings.home
assert is_telemetry_disabled()
assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
assert huggingface_hub.constants.HF_HUB_CACHE.startswith({home!r})
assert str(datasets.config.HF_DATASETS_CACHE).startswith({home!r})
"""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """An empty HOME and an empty working directory."""
    home, work = tmp_path / "user", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    return home, work


@pytest.fixture
def python(places: tuple[Path, Path]) -> Callable[..., str]:
    """`python(script)` -> what it printed, in an environment that names no folder but those two."""
    home, work = places

    def run(script: str) -> str:
        (work / "script.py").write_text(script, encoding="utf-8")
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, work / "script.py"], env=environment, cwd=work, capture_output=True, text=True, timeout=600
        )
        (work / "script.py").unlink()
        assert done.returncode == 0, done.stderr[-3_000:]
        return done.stdout

    return run


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "__pycache__" not in path.parts]


def test_importing_makes_nothing_anywhere_and_telemetry_is_off(
    python: Callable[..., str], places: tuple[Path, Path]
) -> None:
    home, work = places
    python(IMPORT.format(root=str(ROOT)) + TELEMETRY.format(home=str(work / ".plumbline")))
    assert files(home) == []
    assert files(work) == []


def test_a_flow_takes_a_configuration_and_leaves_the_users_home_alone(
    python: Callable[..., str], places: tuple[Path, Path]
) -> None:
    home, work = places
    assert "gates 6\n" in python(
        ALIGN + "    " + TELEMETRY.format(home=str(work / ".plumbline")).replace("\n", "\n    ")
    )
    assert files(home) == []
    assert [path.name for path in work.iterdir()] == [".plumbline"]
    assert (work / ".plumbline" / "mlflow.db").exists()
