"""The summary that a run ends with: the verdict, why, the few figures and what comes next, on one screen."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.config import GatesConfig
from alignment.judging.gates import judge
from flows.cli.result import advice, runnable, show
from flows.cli.result import summary as result_as_json
from tests.flows.cli.screen import WIDTHS, require_words, rows, screen
from tests.reports import DRIFT, make_report

LINES = 24
VERSION = {"name": "my film", "version": "3", "uri": "models:/my film/3", "aliases": ["challenger"]}
BASE = "models:/my film/2"
WHERE = "http://127.0.0.1:5000/#/experiments/1/runs/dae5cddca6054ca998efd36e0d456930?workflowType=machine_learning"


class Result:
    """What a summary reads of a run's result."""

    def __init__(self, gates: GatesConfig, **report: Any) -> None:
        self.report = make_report(drift=DRIFT, **report)
        self.judgement = judge(self.report, gates)
        self.model = VERSION if self.judgement.verdict == "pass" else None
        self.version = VERSION["uri"] if self.model else None
        self.registered = "my film version 3 (challenger)" if self.model else ""
        self.run_id, self.where, self.folders = "dae5cddca6054ca998efd36e0d456930", WHERE, dict[str, str]()


HOPELESS = GatesConfig(
    min_gain=100,
    min_win_rate=1,
    max_perplexity_ratio=1,
    max_kl_per_token=0.01,
    min_reward_sd_ratio=10,
    max_entropy_change=0.001,
    max_anchor_kl_per_token=0.01,
    max_anchor_perplexity_ratio=1,
    min_anchor_reward_sd_ratio=10,
)


def summary(result: Any, width: int = 80) -> str:
    return screen(lambda console: show(result, console), width)


@WIDTHS
def test_a_run_that_passed_ends_with_one_screen(width: int) -> None:
    result = Result(GatesConfig())
    text = summary(result, width)
    assert rows(text, width) < LINES, "a line is left for the prompt"
    require_words(text, result.judgement.sentence, WHERE, result.registered)
    assert "Gates       9 gates passed." in text
    for title, value in (("reward gain", "+1.50 (+1.40 to +1.60)"), ("prompts won", "93.0% (90.0% to 96.0%)")):
        assert any(line.split() == [*title.split(), *value.split()] for line in text.splitlines())
    assert "plumbline report 'models:/my film/3'" in text
    assert "plumbline generate 'models:/my film/3' 'a prompt'" in text
    assert "plumbline serve 'models:/my film/3'" in text


@WIDTHS
def test_a_refused_run_says_which_gates_refused_it_and_why_on_one_screen(width: int) -> None:
    text = summary(Result(GatesConfig(max_kl_per_token=0.01, max_perplexity_ratio=1)), width)
    assert rows(text, width) < LINES
    flat = " ".join(text.split())
    assert "Refused Not registered: 2 of 9 gates refused it, 7 passed." in flat
    why = "the policy went further from the base than its reward model can be trusted"
    assert f"KL per token 0.05 exceeds 0.01 ({why})" in flat
    assert "plumbline report dae5cddca6054ca998efd36e0d456930" in flat
    assert "Next try a lower --dpo.learning-rate or a higher --dpo.beta" in flat
    assert "generate" not in flat


def test_where_every_gate_refused_it_the_last_ones_are_named_alone_and_it_still_fits() -> None:
    text = summary(Result(HOPELESS))
    assert rows(text, 80) < LINES
    flat = " ".join(text.split())
    assert "9 of 9 gates refused it, 0 passed" in flat
    assert "Also reward_sd_ratio, entropy_change, anchor_kl_per_token, anchor_perplexity_ratio," in flat


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        (GatesConfig(min_gain=100), "more --prompts.count"),
        (GatesConfig(min_win_rate=1, max_kl_per_token=0.01), "a lower --dpo.learning-rate"),
    ],
    ids=["too-little", "too-far"],
)
def test_the_advice_after_a_refusal_depends_on_the_gates(gates: GatesConfig, told: str) -> None:
    assert told in advice(judge(make_report(), gates))


@WIDTHS
def test_a_promotion_asks_on_one_screen_with_the_figures_in_sight(width: int) -> None:
    from flows.cli.registry import show_candidate
    from tasks.registry.candidates import Candidate

    report = make_report()
    judgement = judge(report, GatesConfig())
    candidate = Candidate(
        name="my film",
        version="3",
        champion="2",
        refusal="",
        where=WHERE,
        report=report,
        judgement=judgement,
        base=BASE,
    )
    text = screen(lambda console: show_candidate(candidate, console), width)
    assert rows(text, width) < LINES - 3, "lines are left for the two questions"
    require_words(text, judgement.sentence, WHERE, "my film version 3 as champion? It would replace version 2.")
    assert "reward gain                       +1.50 (+1.40 to +1.60)" in text
    assert "plumbline report 'models:/my film/3'" in text


def test_a_figure_that_is_not_finite_is_a_text_in_json() -> None:
    result = Result(GatesConfig(), delta={"kl_per_token": float("nan")})
    for name, value in {"experiment": "films", "pairs": {}, "seconds": 1.0, "cached": []}.items():
        setattr(result, name, value)
    told = json.loads(json.dumps(result_as_json(result)), parse_constant=pytest.fail)  # type: ignore[arg-type]
    assert told["delta"]["kl_per_token"] == "NaN"
    assert {gate["name"]: gate["value"] for gate in told["gates"]}["kl_per_token"] == "NaN"


def test_a_command_can_be_pasted_where_the_environment_is_not_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, link = "plumbline report models:/films/3", "http://127.0.0.1:5000/#/runs"
    assert runnable(command) == command
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    folder = Path(sys.executable).parent
    assert runnable(command) == f"{folder / command}"
    monkeypatch.chdir(folder.parent)
    assert runnable(command) == f"{folder.name}/{command}"
    assert runnable(link) == link
