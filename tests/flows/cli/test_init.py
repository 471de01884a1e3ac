"""`plumbline init`: five questions or flags, one file that runs, and nothing overwritten."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.init import default_name
from flows.settings import load_config

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def init(plumbline: Call) -> Call:
    return lambda *words: plumbline("init", *words)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """A terminal in which these lines are typed; returns what is left of them."""
    left = list(lines)
    monkeypatch.setattr("builtins.input", lambda _="": left.pop(0))
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    return left


def test_the_defaults_are_a_run_of_the_grammar(init: Call, plumbline: Call) -> None:
    found = init("--yes")
    assert (found.code, found.err) == (0, "")
    assert "plumbline run --config my-model.yaml" in found.out
    assert load_config("my-model.yaml").data.path == "grammar"
    assert plumbline("plan", "--config", "my-model.yaml").code == 0


def test_five_answers_in_a_terminal(init: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"a film {n},{n % 5 + 1}\n" for n in range(60))
    Path("reviews.csv").write_text(f"review,stars\n{rows}", encoding="utf-8")
    left = typed(monkeypatch, "train", "reviews.csv", "", "", "cpu", "")
    found = init()
    assert (found.code, left) == (0, []), found.err
    config = load_config("reviews-aligned.yaml")
    assert (config.data.text_column, config.data.label_column, config.data.positive_label) == ("review", "stars", "5")
    assert (config.reward.model, config.registry.model_name) == ("train", "reviews-aligned")


def test_flags_answer_for_scripts(init: Call) -> None:
    Path("p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    flags = ("--model", "my/model-Instruct", "--data", "p.jsonl", "--reward", "none", "--size", "gpu", "--name", "mine")
    assert init("mine.yaml", *flags).code == 0
    config = load_config("mine.yaml")
    assert (config.pairs.source, config.reward.kind, config.dpo.adapter) == ("given", "none", "lora")


def test_a_hub_name_needs_what_it_holds(init: Call) -> None:
    flags = ("--yes", "--model", "m/x", "--data", "org/chats", "--holds", "chats", "--reward", "judge")
    assert init("h.yaml", *flags, "--judge-model", "j").code == 0
    assert load_config("h.yaml").data.text_column == "messages"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "there is no terminal to ask in"),
        (("--yes", "there.yaml"), "there.yaml: is there already"),
        (("--yes", "nowhere/x.yaml"), "nowhere/x.yaml: No such file or directory"),
        (("--yes", "--data", "missing.csv"), "no such file"),
        (("--yes", "--reward", "none"), "`none` goes with pairs alone"),
        (("--yes", "--size", "tpu"), "--size"),
    ],
)
def test_nothing_is_written_or_overwritten_where_something_is_wrong(
    init: Call, words: tuple[str, ...], told: str
) -> None:
    Path("there.yaml").write_text("seed: 7", encoding="utf-8")
    found = init(*words)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert told in found.err
    assert [path.name for path in Path().iterdir()] == ["there.yaml"]
    assert load_config("there.yaml").seed == 7


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("grammar", "my-model"),
        ("a/My Reviews.csv", "my-reviews-aligned"),
        ("org/data", "data-aligned"),
        ("电.csv", "my-aligned"),
    ],
)
def test_a_name_is_made_of_the_data(data: str, name: str) -> None:
    assert default_name(data) == name


def test_a_function_that_its_file_does_not_have_is_refused_before_anything_is_written(init: Call) -> None:
    Path("rules.py").write_text("def brief(): ...\n", encoding="utf-8")
    flags = ("--model", "train", "--data", "grammar", "--size", "cpu", "--name", "mine")
    found = init("mine.yaml", *flags, "--reward", "rules.py:short")
    assert found.code == 2
    assert "rules.py has no `short`; write FILE.py:NAME with one of brief" in found.err
    assert not Path("mine.yaml").exists()
    assert init("mine.yaml", *flags, "--reward", "rules.py:brief").code == 0


def test_a_plan_refuses_it_too(plumbline: Call) -> None:
    Path("rules.py").write_text("def brief(): ...\n", encoding="utf-8")
    found = plumbline("plan", "--reward.kind", "function", "--reward.function", "rules.py:short")
    assert found.code == 2
    assert "rules.py has no `short`" in found.err
