"""The embedded default, start to end, with its real sizes: minutes, so it has a marker of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.full

NEGATIVE_CONTROL = ("--dpo.learning-rate", "1e-3", "--dpo.beta", "0.1", "--dpo.stop-chosen-drop", "0")


def plumbline(home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command in a process of its own; returns its exit code and its JSON."""
    out = home / "out.json"
    out.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("plumbline")), "run", "--json", str(out), *arguments],
        env=environment | {"PLUMBLINE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.exists(), done.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return done.returncode, found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_earns_its_registration(home: Path, seed: int) -> None:
    code, found = plumbline(home, "--seed", str(seed))

    delta = found["delta"]
    assert code == 0
    assert found["model"]["aliases"] == ["challenger"]
    assert delta["reward_gain_in_sd"] >= 1.0
    assert delta["reward_gain_ci"][0] > 0
    assert delta["win_rate"] >= 0.85
    assert 0.7 <= delta["perplexity_ratio"] <= 1.10
    assert delta["kl_per_token"] <= 0.20
    assert delta["grammar_drop"] <= 0.10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quickest_preset_passes_every_gate(home: Path, seed: int) -> None:
    code, found = plumbline(home, "--config", "tiny", "--seed", str(seed))

    assert code == 0
    assert all(gate["passed"] for gate in found["gates"])


def test_a_second_run_finds_everything_and_registers_nothing_new(home: Path) -> None:
    code, first = plumbline(home)
    again, second = plumbline(home)

    assert (code, again) == (0, 0)
    assert set(second["seconds"]) == set(second["cached"])
    assert second["model"] == first["model"]


def test_word_salad_has_the_larger_reward_and_is_refused_by_the_fluency_gates(home: Path) -> None:
    _, sane = plumbline(home)
    code, salad = plumbline(home, *NEGATIVE_CONTROL)

    refused = {gate["name"] for gate in salad["gates"] if not gate["passed"]}
    assert code == 3
    assert salad["model"] is None
    assert salad["delta"]["reward_gain"] > sane["delta"]["reward_gain"]
    assert {"perplexity_ratio", "kl_per_token", "grammatical_drop"} <= refused
