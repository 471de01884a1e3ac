"""The benchmarks compare like with like: both sides do the same work, at sizes where that takes a moment."""

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from alignment.rows import ACCEPTED, REFERENCED
from benchmarks import flow, generate, gpu, models, scale, score, stages, tables, train, validate
from benchmarks.measure import Row, Side, Spent, in_process, machine, race, run

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own setting

FIELDS = {"what", "against", "ours", "theirs", "ratio", "target"}


@pytest.fixture(autouse=True)
def heard_again() -> Iterator[None]:
    """A benchmark lets only its table be printed."""
    yield
    logging.disable(logging.NOTSET)


def tiny() -> Any:
    return models.gpt2(1, 32, 2, 60)


def well_formed(rows: list[Row], target: str | None) -> bool:
    return all(row.ours and row.theirs and row.ratio and row.target == target for row in rows)


# How it is measured


class Turns:
    """Sides that do what they are told at once, on a clock that each turn moves by its own number of seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[str] = []

    def side(self, name: str, *seconds: float) -> Side:
        left = list(seconds)

        def work(_: None) -> float:
            self.taken.append(name)
            self.now += left.pop(0)
            return 12.0

        return Side(name, work)


def test_sides_take_turns_and_a_peer_goes_on_with_its_best_setting() -> None:
    """Per second 12/3 against 12/6 in the first round, and 12/2 against 12/8 in the second: twice and four times."""
    turns = Turns()
    peer = [turns.side("slow", 9), turns.side("fast", 8, 6, 8)]
    [row] = race("w", "u", turns.side("ours", 1, 3, 2), {"peer": peer}, rounds=2, clock=lambda: turns.now)
    assert turns.taken == ["ours", "slow", "fast", "ours", "fast", "ours", "fast"]
    assert row == Row("w", "peer, fast", 5.0, 1.75, 3.0, None, "u", 2.0, 4.0, 2)


def test_a_process_of_its_own_is_measured() -> None:
    """The function makes what is measured: here a class of tuples, and so an empty one."""
    spent = in_process("collections:namedtuple", typename="Empty", field_names=[])
    assert spent.result == []
    assert 0 <= spent.wall < 1
    assert spent.peak >= spent.before > 1
    with pytest.raises(RuntimeError, match="no_such_function"):
        in_process("collections:no_such_function")


def test_the_file_holds_the_machine_and_the_rows_and_becomes_a_table(tmp_path: Path, capsys: Any) -> None:
    rows = [Row("a", "b", 12.0, 4.0, 3.0, "2", "u", 2.5, 3.5), Row("c", "d", None, note="no GPU")]
    run("Title.", lambda _: iter(rows), arguments=["--json", str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert found["rows"] == [asdict(row) for row in rows]
    assert set(found["rows"][0]) >= FIELDS
    about = found["machine"]
    assert set(about) == set(machine(1))
    assert set(about["versions"]) == {"torch", "transformers", "trl", "prefect", "mlflow", "great-expectations"}
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    written = list(tables.table(tmp_path / "x.json"))
    assert "| a, u | b | 12 | 4 | 3 | 2.5–3.5 | 2 |" in written
    assert "| c | d | no GPU |  |  |  |  |" in written


# What is measured


def test_both_trainers_log_the_same_losses() -> None:
    """The order of the pairs, the schedule and the clipping are the same as well, or they would drift apart."""
    case = train.Case("tiny", tiny, 4, 3, longest=20, targets={train.WITH_REFERENCE: "4", train.PRECOMPUTED: "4"})
    rows = list(train.compare(case, rounds=1))
    assert [row.against for row in rows] == [train.WITH_REFERENCE, train.PRECOMPUTED]
    assert well_formed(rows, "4")
    for row in rows:
        apart = row.note.removeprefix("the logged losses differ by at most ").split()[0]
        assert float(apart) < 1e-5


def test_all_samplers_draw_every_token() -> None:
    """Each side holds that by itself."""
    case = generate.Case("tiny", tiny, 8, 4, (4, 8), {generate.PIPELINE: "9", generate.GENERATE: "9"}, new_tokens=5)
    rows = generate.compare(case, rounds=1)
    assert [row.against.split(",")[0] for row in rows] == [generate.PIPELINE, generate.GENERATE]
    assert well_formed(rows, "9")


def test_both_classifiers_give_the_same_logits() -> None:
    case = score.Case("tiny", 1, 32, 2, 100, 12, 4, 30)
    assert well_formed(score.compare(case, rounds=1), score.TARGET)
    from alignment.models import Loaded
    from alignment.rewards.classifier import score_texts

    model, tokenizer = models.distilbert(1, 32, 2, 100), models.tokenizer(100, begins=True)
    texts = models.texts(100, 6, 4, 30)
    peer = score.pipeline(model, tokenizer, texts, 2)
    assert peer.work(None) == len(texts)
    ids = tokenizer(texts[0], return_tensors="pt")
    assert ids["input_ids"][0, [0, -1]].tolist() == [1, 2]
    expected = model(**ids).logits[0, 1].item()
    assert score_texts(Loaded(model, tokenizer), texts, column=1)[0] == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of 20 prompts, and those of the run that warms up."""
    found = tmp_path_factory.mktemp("stages")
    stages.prepare(str(found), "policy", [20])()
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Great Expectations' import
@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("samples", {"samples": 80}),
        ("scores", {"scored": 80, "unscored": 0}),
        ("pairs", {"built": 20, "ties": 0}),
        ("validation", {"pairs": 20, "accepted": 20}),
        ("reference", {"from_sampling": 0, "scored": 20}),
        ("policy", {"pairs": 20, "steps": 1}),
    ],
)
def test_a_stage_does_its_work_on_the_synthetic_tables(root: Path, name: str, counted: dict[str, int]) -> None:
    found = stages.run(root, name, 20)
    assert {key: found[key] for key in counted} == counted


def test_synthetic_prompts_differ_and_their_texts_are_their_tokens(root: Path) -> None:
    rows = ACCEPTED.read(root / "20" / "validation")
    assert len({row["prompt"] for row in rows}) == len({row["pair_id"] for row in rows}) == 20
    for row in rows:
        assert row["prompt"] == " ".join(f"w{token}" for token in row["prompt_ids"])
        assert row["chosen"] == " ".join(f"w{token}" for token in [*row["prompt_ids"], *row["chosen_ids"]])
    assert REFERENCED.count(root / "20" / "reference") == 20


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Great Expectations' import
def test_the_plain_expectations_judge_the_same_pairs(root: Path) -> None:
    assert validate.plain(str(root), 20)() == {"pairs": 20}


# What the commands yield


def asked(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(only="", rounds=2, threads=1, **changes)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """No process is started: a stage takes a second and 100 MB for each 1,000 prompts, anything else 2 s and 300 MB."""
    started: list[dict[str, Any]] = []

    def in_process(function: str, **given: Any) -> Spent:
        started.append({"function": function, **given})
        size = given["count"] / 1_000 if function == "benchmarks.stages:stage" else 3
        return Spent(size, size, 100 * size, 50, {"pairs": 7})

    monkeypatch.setattr(scale, "in_process", in_process)
    monkeypatch.setattr(validate, "in_process", in_process)
    return started


def test_growth_is_told_for_each_stage_and_size(processes: list[dict[str, Any]]) -> None:
    rows = list(scale.measure(asked(pairs=0, size=1.0)))
    assert {row.what.split(",")[0] for row in rows} == set(scale.PROMPTS)
    assert [(row.what, row.unit, row.ratio, row.target) for row in rows[4:6]] == [
        ("samples, 8 times the work", "CPU-s", 8, "≤ 8.4"),
        ("samples, 8 times the work", "MB", 8, "≤ 1.15"),
    ]
    assert all(row.ours and row.theirs for row in rows)


def test_many_pairs_go_through_three_stages(processes: list[dict[str, Any]]) -> None:
    rows = list(scale.measure(asked(pairs=2_000, size=1.0)))
    assert [(row.what, row.ours, row.unit) for row in rows[:2]] == [
        ("pairs, 2,000 prompts", 2.0, "CPU-s"),
        ("pairs, 2,000 prompts", 200.0, "MB"),
    ]
    assert len(rows) == 6
    assert rows[0].note == "7 pairs"


def test_validation_is_told_by_the_pair_and_beside_plain_expectations(processes: list[dict[str, Any]]) -> None:
    """A tenth, then all, then the peer in three seconds."""
    rows = list(validate.measure(asked(pairs=10_000)))
    assert [(row.ours, row.theirs, row.ratio, row.unit) for row in rows] == [
        (1_000.0, None, None, "CPU-µs"),
        (1_000.0, None, None, "CPU-µs"),
        (10.0, 3.0, 0.3, "CPU-s"),
        (1_000.0, 300.0, 0.3, "MB"),
    ]


def test_a_run_is_told_cold_by_stage_and_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def plumbline(home: Path, flags: Any, **settings: str) -> flow.Taken:
        taken.append(settings.get("PREFECT_API_URL", ""))
        cached = ["texts", "base"] if len(taken) > 1 else []
        return flow.Taken(3.0, 4.0, {"seconds": {"texts": 1.0, "base": 2.0}, "cached": cached})

    monkeypatch.setattr(flow, "plumbline", plumbline)
    monkeypatch.setattr(flow, "server", lambda _: nullcontext("http://here"))
    rows = list(flow.measure(asked()))
    assert taken == ["", "", "", "http://here", "http://here"]
    assert [(row.what, row.ours, row.unit) for row in rows[:4]] == [
        ("cold", 3.0, "CPU-s"),
        ("cold", 4.0, "s"),
        ("cold, texts", 1.0, "s"),
        ("cold, base", 2.0, "s"),
    ]
    assert [row.target for row in rows if row.target] == ["≤ 90 CPU-s", "≤ 12 CPU-s", "≤ 12 s", "≤ 3 CPU-s"]


def test_a_run_that_computes_again_says_so() -> None:
    taken = flow.Taken(1.0, 1.0, {"seconds": {"texts": 1.0, "base": 2.0}, "cached": ["texts"]})
    assert {row.note for row in flow.rows("again", [taken])} == {
        "not cached, since the code was edited meanwhile: base"
    }
    assert {row.note for row in flow.rows("cold", [taken])} == {""}


def test_without_a_card_each_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    rows = list(gpu.measure(asked(samples=8, steps=1)))
    assert len(rows) == 12
    assert all(row.ours is None and row.note == "no GPU" for row in rows)


def test_the_parameters_that_multiply_are_counted() -> None:
    """A tied table is the output layer too, and positions are only looked up: the rest is 12 E^2 + 13 E, and 2 E."""
    width, vocabulary = 32, 60
    assert gpu.weights(tiny()) == 12 * width**2 + 13 * width + 2 * width + vocabulary * width
    assert gpu.cache_bytes(tiny()) == 2 * 2 * width


@pytest.mark.parametrize("benchmark", [train, generate])
def test_a_case_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch, benchmark: Any) -> None:
    monkeypatch.setattr(benchmark, "compare", lambda case, rounds: [(case.name, rounds)])
    assert list(benchmark.measure(argparse.Namespace(only="GPT-2", rounds=9))) == [("GPT-2 small", 2)]
