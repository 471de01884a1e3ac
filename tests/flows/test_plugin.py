"""Another package brings a kind of each sort, and the whole flow runs through them: no file of this project changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.config import merge
from tests.flows.small import OPEN_GATES, SMALL

ROOT = Path(__file__).parents[2]
CHOSEN: dict[str, Any] = {
    "data": {"rows": 400},
    "base": {"steps": 30},
    "reward": {"kind": "brevity", "brevity": {"words": 6}},
    "sampling": {"engine": "stepwise", "total_tokens": 24},
    "pairs": {"strategy": "best_vs_second"},
    "validation": {"few_exclamations": {"most": 0}, "min_chars": 1},
    "dpo": {"loss": "exponential", "steps": 4},
    "evaluation": {"judge": "none"},
    "gates": OPEN_GATES | {"exclamations": {"most": 0.4}},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of `examples/plugin`, installed into a folder of its own."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "examples" / "plugin", source, ignore=shutil.ignore_patterns("__pycache__", "build"))
    offline = ("--offline", "--no-deps", "--no-build-isolation")
    command = (sys.executable, "-m", "uv", "pip", "install", "--quiet", *offline, "--target", str(target), str(source))
    subprocess.run(command, check=True)
    return target


def plumbline(installed: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    from prefect.settings import PREFECT_API_URL

    env = {
        **os.environ,
        "PLUMBLINE_HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT))),
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "COLUMNS": "200",
    }
    env.pop("MLFLOW_TRACKING_URI", None)
    command = (sys.executable, "-c", "from flows.cli.commands import main; main()", *words)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)


def test_one_of_each_kind_from_another_package(installed: Path, at_home: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(merge(SMALL, CHOSEN)), encoding="utf-8")
    ran = plumbline(
        installed, at_home, "run", "--config", str(config), "--json", str(tmp_path / "result.json"), "--full"
    )
    assert ran.returncode in (0, 3), ran.stdout + ran.stderr
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))

    def manifest(stage: str) -> dict[str, Any]:
        (file,) = (at_home / "store" / stage).glob("*/manifest.json")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    assert manifest("reward")["counts"] == {"needed": 0}
    for stage, kind in (
        ("samples", "engines.stepwise"),
        ("scores", "rewards.brevity"),
        ("pairs", "strategies.best_vs_second"),
        ("validation", "expectations.few_exclamations"),
        ("policy", "losses.exponential"),
        ("after", "engines.stepwise"),
        ("report", "metrics.exclamations"),
    ):
        found = manifest(stage)["inputs"]["kinds"][kind]
        assert (found["package"], found["version"]) == ("plumbline-example", "0.1.0"), stage
    checks = json.loads(next((at_home / "store" / "validation").glob("*/checks.json")).read_text(encoding="utf-8"))
    assert "few_exclamations" in {check["name"] for check in checks["checks"]}
    assert "exclamations" in {gate["name"] for gate in result["gates"]}
    assert "texts that shout" in ran.stdout


def test_the_choices_and_the_fields_of_a_package_are_flags(installed: Path, at_home: Path) -> None:
    told = " ".join(plumbline(installed, at_home, "run", "--help", "all").stdout.split())
    assert "[one of sigmoid, hinge, ipo, robust, distill, exponential; default hinge]" in told
    assert "--reward.brevity.words" in told
    assert "Words that a text should have" in told


def test_a_name_that_nobody_brings_is_refused_with_the_list(installed: Path, at_home: Path) -> None:
    told = plumbline(installed, at_home, "plan", "--dpo.loss", "os:system")
    assert told.returncode == 2
    assert (
        "input should be 'sigmoid', 'hinge', 'ipo', 'robust', 'distill' or 'exponential'" in told.stdout + told.stderr
    )


def test_an_edit_of_the_package_moves_the_keys_of_the_stages_that_use_it(installed: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(installed, edited)
    file = edited / "plumbline_example" / "loss.py"
    file.write_text(file.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    command = (
        "import json; from alignment.config import build_config; from alignment.kinds import LOSSES; "
        "from alignment.stages.code import kind_version; "
        "print(json.dumps([kind_version(LOSSES, name) for name in ('exponential', 'hinge')]))"
    )

    def versions(folder: Path) -> Any:
        env = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
        return json.loads(
            subprocess.run((sys.executable, "-c", command), env=env, capture_output=True, check=True).stdout
        )

    one, two = versions(installed), versions(edited)
    assert one[0] != two[0]
    assert one[1] == two[1]
