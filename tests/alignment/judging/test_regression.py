"""Tasks of lm-eval: what a file may hold, and what a model reaches, against a plain forward pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import ConfigError, StageError
from alignment.judging import regression
from alignment.judging.regression import read_tasks

ROWS: list[dict[str, Any]] = [
    {"question": f"film {n}", "choices": ["good", "bad", "long"], "answer": n % 3} for n in range(12)
]


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., str]:
    """A task of multiple choice in a file, with its data beside it; `changes` lie over its fields."""

    def write(**changes: Any) -> str:
        text = "".join(f"{json.dumps(row)}\n" for row in ROWS)
        (tmp_path / "facts.jsonl").write_text(text, encoding="utf-8")
        fields = {
            "task": "film_facts",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": "facts.jsonl"},
            "output_type": "multiple_choice",
            "test_split": "train",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}],
        } | changes
        path = tmp_path / "facts.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}), "utf-8")
        return str(path)

    return write


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where lm-eval is installed: what a file may hold does not rest on it."""
    monkeypatch.setattr(regression, "find_spec", lambda _: object())


@pytest.mark.usefixtures("installed")
def test_a_task_is_known_by_its_name_or_its_content(task: Callable[..., str], tmp_path: Path) -> None:
    """Its source changes with the data and the file, and not with where they stand."""
    by_name, before = read_tasks(["hellaswag", task()])
    assert (by_name.name, by_name.definition, by_name.source) == ("hellaswag", None, {"name": "hellaswag"})
    assert before.name == "film_facts"
    assert before.definition is not None
    assert before.definition["dataset_kwargs"] == {"data_files": {"train": str(tmp_path / "facts.jsonl")}}
    (tmp_path / "facts.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    (after,) = read_tasks([str(tmp_path / "facts.yaml")])
    assert after.source["file"] == before.source["file"]
    assert after.source["data"] != before.source["data"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"process_docs": "utils.clean"}, "process_docs may not stand in it"),
        ({"custom_dataset": "x"}, "custom_dataset may not stand in it"),
        ({"include": "other.yaml"}, "include may not stand in it"),
        ({"dataset_path": "someone/their-data"}, "dataset_path is one of json"),
        ({"dataset_kwargs": {"data_files": "x.jsonl", "trust_remote_code": True}}, "and nothing else"),
        ({"dataset_kwargs": {"data_files": "https://x/y.jsonl"}}, "names a local file"),
        ({"dataset_kwargs": {"data_files": "gone.jsonl"}}, "gone.jsonl: No such file"),
        ({"metric_list": [{"metric": "./metric.py"}]}, "metric_list names metrics of acc"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "without further fields"),
        (
            {"generation_kwargs": {"custom_generate": "x/y", "trust_remote_code": True}},
            "custom_generate, trust_remote_co",
        ),
        ({"generation_kwargs": "greedy"}, "'greedy' may not stand in generation_kwargs"),
        ({"metric_list": None}, "metric_list names metrics of acc"),
        ({"task": None}, "no task"),
    ],
)
def test_a_file_that_could_run_code_is_refused(task: Callable[..., str], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        read_tasks([task(**changes)])
    assert "facts.yaml" in str(refused.value)


@pytest.mark.usefixtures("installed")
def test_a_function_in_a_file_is_refused_and_not_imported(task: Callable[..., str], tmp_path: Path) -> None:
    path = Path(task())
    path.write_text(path.read_text("utf-8") + "doc_to_text: !function spy.run\n", encoding="utf-8")
    (tmp_path / "spy.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    with pytest.raises(ConfigError, match="!function, which run code, are refused"):
        read_tasks([str(path)])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["../elsewhere/task"], "neither the name of a task nor a file"),
        (["gone.yaml"], "gone.yaml: No such file"),
        (["one", "one"], "one is named twice"),
    ],
)
def test_what_names_no_task_is_refused(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_tasks(given)


def test_without_the_package_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "find_spec", lambda _: None)
    assert read_tasks([]) == []
    with pytest.raises(ConfigError, match="extra `tasks`"):
        read_tasks(["hellaswag"])


def test_what_counts_is_a_metric_of_which_more_is_better() -> None:
    found = {
        "results": {
            "a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.7},
            "b": {"ppl,none": 9.0},
        },
        "higher_is_better": {"a": {"acc": True, "acc_norm": True}, "b": {"ppl": False}},
        "n-samples": {"a": {"original": 20, "effective": 10}},
    }
    assert regression._score("a", found) == regression.Score("acc", 0.5, 0.1, 10)
    for name in ("b", "a group without a figure"):
        with pytest.raises(StageError, match="no metric of which more is better"):
            regression._score(name, found)


@pytest.mark.filterwarnings("ignore")  # of lm-eval about its own code
def test_a_model_reaches_what_a_plain_forward_pass_finds(task: Callable[..., str], base: Any) -> None:
    """The choice whose tokens are the likeliest after the question and a blank, each summed by hand."""
    pytest.importorskip("lm_eval")
    import torch

    def likelihood(question: str, choice: str) -> float:
        prompt, whole = (base.tokenizer(text)["input_ids"] for text in (question, f"{question} {choice}"))
        with torch.inference_mode():
            logprobs = base.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return float(sum(logprobs[place - 1, whole[place]] for place in range(len(prompt), len(whole))))

    def best(row: dict[str, Any]) -> int:
        sums = [likelihood(row["question"], choice) for choice in row["choices"]]
        return sums.index(max(sums))

    right = [best(row) == row["answer"] for row in ROWS]
    seen: list[tuple[int, int]] = []
    found = regression.measure(base, read_tasks([task()]), 0, 0, lambda *done: seen.append(done))
    assert found["film_facts"].value == pytest.approx(sum(right) / len(ROWS))
    assert (found["film_facts"].metric, found["film_facts"].samples, seen) == ("acc", 12, [(1, 1)])
    few = regression.measure(base, read_tasks([task()]), 5, 0, lambda *_: None)
    assert few["film_facts"].value == pytest.approx(sum(right[:5]) / 5)


@pytest.mark.filterwarnings("ignore")
def test_a_template_reaches_data_alone(task: Callable[..., str], base: Any) -> None:
    pytest.importorskip("lm_eval")
    from jinja2.exceptions import SecurityError

    template = "{{ question.__class__.__mro__ }}"
    with pytest.raises(SecurityError):
        regression.measure(base, read_tasks([task(doc_to_text=template)]), 0, 0, lambda *_: None)


@pytest.mark.filterwarnings("ignore")
def test_the_stage_measures_both_models_and_the_report_has_them(
    task: Callable[..., str], base_folder: Path, tmp_path: Path
) -> None:
    """The same model on both sides: no task drops."""
    pytest.importorskip("lm_eval")
    from alignment.config import build_config
    from alignment.stages import report
    from alignment.stages.job import Job
    from alignment.stages.regression import regression as stage

    config = build_config({"evaluation": {"tasks": [task()], "task_rows": 6}})
    model = tmp_path / "model's stage"
    model.mkdir()
    (model / "model").symlink_to(base_folder)
    out = tmp_path / "out"
    out.mkdir()
    assert stage.body(Job(config, {"base": model, "policy": model}, out, tmp_path, tmp_path)) == {
        "tasks": 1,
        "samples": 6,
    }
    (found,) = report._tasks(Job(config, {"regression": out}, tmp_path, tmp_path, tmp_path))
    assert (found.task, found.metric, found.samples, found.drop) == ("film_facts", "acc", 6, 0.0)
    assert stage.when(config)
    assert not stage.when(build_config({}))
