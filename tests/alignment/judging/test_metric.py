"""A metric is declared once: report, tables, MLflow's names, `evaluate.Metric` and gates follow from that."""

from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from alignment.config import AlignConfig, EvaluationConfig, GatesConfig
from alignment.judging.card import gates_table, result_rows
from alignment.judging.comparison import compare, drift
from alignment.judging.formats import PERCENT, PLAIN, SIGNED, TENTHS, THOUSANDTHS, TIMES, Format
from alignment.judging.gates import Reading, gate, judge
from alignment.judging.hf_metrics import all_metrics
from alignment.judging.measured import Measured
from alignment.judging.metric import Both, Metric, metric
from alignment.judging.model_card import model_card
from alignment.judging.records import read_report
from alignment.judging.report import EvalReport
from alignment.kinds import GATES, METRICS, Origin
from tasks.registry import connection, records, runs
from tests.reports import make_report

CONFIG = EvaluationConfig(bootstrap=100)


@pytest.fixture
def open_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics and gates to which a test adds its own, as an installed package does."""
    for kinds in (METRICS, GATES):
        monkeypatch.setattr(kinds, "_registered", dict(kinds.all()))
        names = ("shouting", "louder", "anchor_shouting", "politeness") if kinds is METRICS else ("shouting",)
        monkeypatch.setattr(kinds, "_origins", kinds._origins | dict.fromkeys(names, Origin(__name__)))


def measured(texts: Sequence[str], **judged: Any) -> Measured:
    count = len(texts)
    return Measured(
        prompt_ids=[str(number // 2) for number in range(count)],
        completions=[[1, 2, 3]] * count,
        rewards=np.arange(count, dtype=float),
        base_logprobs=np.full(count, -2.0),
        policy_logprobs=np.full(count, -2.0),
        finished=np.full(count, True),
        texts=texts,
        judged={name: np.array(values) for name, values in judged.items()},
    )


BASE = measured(["no", "no", "no", "yes!"], politeness=[1.0, 1.0, 0.5, 0.5])
ALIGNED = measured(["no", "yes!", "yes!", "yes!"], politeness=[1.0, 1.0, 1.0, 1.0])


def compared() -> EvalReport:
    found = compare(BASE, ALIGNED, metrics=all_metrics(), winners_mean=0.0, config=CONFIG, seed=0)
    return found.model_copy(update={"drift": drift(BASE, BASE, ALIGNED)})


@pytest.fixture
def own(open_kinds: None) -> None:
    """One metric of each sort, and a gate for the first."""

    @metric("shouting", label="texts that shout", unit="of all", format=PERCENT, better="lower", change="ratio")
    def shouting(texts: Sequence[str]) -> float:
        """Fraction of texts with an exclamation mark."""
        return sum("!" in text for text in texts) / len(texts)

    @metric("louder", label="texts that became louder", of="both", format=THOUSANDTHS)
    def louder(both: Both) -> tuple[float, tuple[float, float]]:
        """Fraction of texts that shout now and did not."""
        pairs = zip(both.base.texts, both.aligned.texts, strict=True)
        return float(np.mean(["!" in new and "!" not in old for old, new in pairs])), (0.25, both.config.confidence)

    @metric("anchor_shouting", label="shouting over the anchor's", of="anchor", format=TIMES, change="")
    def anchor_shouting(anchor: Measured, model: Measured) -> float:
        """Texts that shout over those of the anchor that do."""
        return sum("!" in text for text in model.texts) / sum("!" in text for text in anchor.texts)

    @metric("politeness", label="politeness", better="higher")
    def politeness(politeness: Sequence[float]) -> float:
        """Mean figure of a judge."""
        return float(np.mean(politeness))

    @gate("shouting", "fraction of texts that shout")
    def quiet(report: EvalReport, config: GatesConfig) -> Reading:
        return report.aligned.shouting, None, 0.5, "the texts shout"


@pytest.mark.usefixtures("own")
def test_own_metrics_are_in_the_report_under_their_names_and_survive_json() -> None:
    report = compared()
    assert (report.base.shouting, report.aligned.shouting, report.delta.shouting_ratio) == (0.25, 0.75, 3.0)
    assert (report.delta.louder, report.delta.interval("louder")) == (0.5, (0.25, 0.95))
    assert report.drift is not None
    assert (report.drift.base_shouting, report.drift.shouting) == (1.0, 3.0)
    assert (report.base.politeness, report.aligned.politeness, report.delta.politeness_change) == (0.75, 1.0, 0.25)
    assert read_report(report.model_dump_json()) == report


@pytest.mark.usefixtures("own")
def test_own_metrics_are_rows_of_every_table() -> None:
    report = compared()
    judgement = judge(report, GatesConfig())
    rows = [
        ("texts that shout (of all)", "25.0%", "75.0%", "×3.00"),
        ("texts that became louder", "–", "0.500", "0.250 to 0.950"),
        ("shouting over the anchor's", "×1.00", "×3.00", "–"),
        ("politeness", "0.75", "1.00", "+0.25"),
    ]
    assert [row for row in result_rows(report) if row in rows] == rows
    card = model_card(AlignConfig(), report, judgement, [], {})
    assert all(f"| {' | '.join(row)} |" in card for row in rows)
    shown = terminal(report)
    assert all(cell in shown for row in rows for cell in row)


def terminal(report: EvalReport) -> str:
    from flows.cli.terminal import result_table

    console = Console(file=StringIO(), width=200)
    console.print(result_table(report))
    found: str = console.file.getvalue()  # type: ignore[attr-defined]
    return found


@pytest.mark.usefixtures("own")
def test_an_own_gate_judges_last_and_is_in_the_verdict() -> None:
    report = make_report(base={"shouting": 0.25}, aligned={"shouting": 0.75})
    judgement = judge(report, GatesConfig())
    assert judgement.sentence == "Not registered: fraction of texts that shout 0.75 exceeds 0.5 (the texts shout)."
    assert judgement.gates[-1].name == "shouting"
    assert "| shouting | 0.75 | ≤ 0.5 | FAILED | the texts shout |" in gates_table(judgement)
    assert judge(make_report(aligned={"shouting": 0.5}), GatesConfig()).verdict == "pass"
    without = judge(make_report(), GatesConfig())
    assert "(the report has no shouting)" in without.sentence, "a record from before the metric was installed"


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    before = connection._place
    runs.configure(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    yield runs.start_run(AlignConfig(), "a run")
    connection._place = before


@pytest.mark.usefixtures("own")
def test_own_metrics_and_gates_are_logged_under_their_names(mlflow: str) -> None:
    report = compared()
    records.log_evaluation(mlflow, report, judge(report, GatesConfig()))
    found = connection.client().get_run(mlflow).data.metrics
    assert {name: found[name] for name in found if "shouting" in name or "louder" in name} == {
        "base/shouting": 0.25,
        "aligned/shouting": 0.75,
        "delta/shouting_ratio": 3.0,
        "delta/louder": 0.5,
        "delta/louder_low": 0.25,
        "delta/louder_high": 0.95,
        "drift/base_shouting": 1.0,
        "drift/shouting": 3.0,
        "gate/shouting": 0.0,
    }


@pytest.mark.usefixtures("own")
def test_own_metrics_of_columns_are_evaluate_metrics() -> None:
    found = all_metrics()
    assert {"shouting", "politeness"} <= found.keys()
    assert {"louder", "anchor_shouting"} & found.keys() == set()
    assert found["shouting"].compute(texts=["no", "yes!"]) == {"shouting": 0.5}
    assert found["shouting"].description == (
        "shouting: Fraction of texts with an exclamation mark. The lower, the better."
    )


@pytest.mark.usefixtures("own")
def test_a_metric_of_a_figure_that_the_judge_does_not_give_is_not_there() -> None:
    base, aligned = measured(["no", "yes!"] * 2), measured(["yes!"] * 4)
    report = compare(base, aligned, metrics=all_metrics(), winners_mean=0.0, config=CONFIG, seed=0)
    assert report.base.get("politeness") is None
    assert "politeness" not in {row[0] for row in result_rows(report)}


def test_the_names_in_mlflow_and_in_json_are_those_of_schema_1(mlflow: str) -> None:
    """Boards and scripts read them; names may come, and none may go."""
    text = (Path(__file__).parents[2] / "fixtures" / "schema_1" / "report.json").read_text(encoding="utf-8")
    columns = {"grammatical": [1.0, 0.5, 1.0, 0.5], "gold_sentiment": [1.0, 0.5, 1.0, 0.5]}
    sides = measured(["a"] * 4, **columns), measured(["b"] * 4, **columns)
    report = compare(*sides, metrics=all_metrics(), winners_mean=0.0, config=CONFIG, seed=0)
    report = report.model_copy(update={"drift": drift(sides[0], *sides)})
    old = read_report(text)
    for part in ("base", "aligned", "delta"):
        assert set(getattr(report, part).names()) >= set(getattr(old, part).names()), part
    drifted = {"base_kl_per_token", "kl_per_token", "base_perplexity_ratio", "perplexity_ratio"}
    drifted |= {"anchor_reward_mean", "reward_gain", "reward_sd_ratio"}
    assert report.drift is not None
    assert drifted <= set(report.drift.names())
    records.log_evaluation(mlflow, report, judge(report, GatesConfig()))
    logged = connection.client().get_run(mlflow).data.metrics
    assert {f"drift/{name}" for name in drifted} <= logged.keys()
    assert {"delta/reward_gain_low", "delta/win_rate_high", "delta/grammar_drop", "delta/kl"} <= logged.keys()


def test_every_built_in_metric_has_a_label_and_says_what_it_is() -> None:
    for name, found in METRICS.all().items():
        assert isinstance(found, Metric)
        assert found.name == name
        assert found.label
        assert str(found.compute.__doc__).endswith("."), name
        assert not found.title.endswith("()")


def test_which_way_is_better_is_said_where_it_can_be() -> None:
    better = {name: found.better for name, found in METRICS.all().items() if found.better}
    assert better["reward_gain"] == better["win_rate"] == better["grammatical"] == "higher"
    assert better["repetition"] == better["grammar_drop"] == "lower"
    assert "perplexity" not in better, "text that is too easy to foresee is no better"


@pytest.mark.parametrize(
    ("format", "value", "change"),
    [
        (PLAIN, "0.50", "−0.25"),
        (SIGNED, "+0.50", "−0.25"),
        (PERCENT, "50.0%", "−25.0 points"),
        (TIMES, "×0.50", "−0.25"),
        (TENTHS, "0.5", "−0.2"),
        (THOUSANDTHS, "0.500", "−0.250"),
    ],
)
def test_a_format_writes_values_and_changes(format: Format, value: str, change: str) -> None:
    assert (format.value(0.5), format.change(-0.25)) == (value, change)


def test_a_change_that_is_written_as_zero_has_no_sign() -> None:
    assert [each.change(-1e-9) for each in (PLAIN, PERCENT, TENTHS, THOUSANDTHS)] == [
        "0.00",
        "0.0 points",
        "0.0",
        "0.000",
    ]
