"""`plumbline` as a notebook uses it: plan, align, look at the result, then list, load, ask and export the version."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plumbline
from alignment.errors import ConfigError, ModelError
from flows.align import AlignResult
from tests.flows.small import OPEN_GATES, SMALL

CONFIG = plumbline.build_config(SMALL | {"gates": OPEN_GATES, "registry": {"model_name": "python"}})
_results: dict[Path, AlignResult] = {}


@pytest.fixture(autouse=True)
def _place(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' Prefect server, and MLflow as it was before."""
    from prefect.settings import PREFECT_API_URL

    from tasks.registry import connection

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    for name in ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = connection._place
    yield
    connection._place = before


@pytest.fixture
def result(at_home: Path) -> AlignResult:
    """A run that passed, computed once for the module."""
    if at_home not in _results:
        _results[at_home] = plumbline.align(CONFIG, quiet=True)
    return _results[at_home]


@pytest.fixture
def folder(tmp_path: Path, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    tiny_gpt2(vocab_size=len(tiny_tokenizer)).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.full
def test_a_run_prints_a_line_a_stage_and_a_second_one_computes_nothing(
    result: AlignResult, capsys: pytest.CaptureFixture[str]
) -> None:
    again = plumbline.align(CONFIG)
    out = capsys.readouterr().out
    assert set(again.cached) == set(again.seconds)
    assert [line.split()[2] for line in out.splitlines() if line.split()[1:2] == ["cached"]] == again.cached
    assert plumbline.plan(CONFIG).cached
    assert not plumbline.plan(plumbline.build_config(SMALL | {"seed": 1})).cached


@pytest.mark.full
def test_a_result_has_what_a_reader_asks_for(result: AlignResult) -> None:
    assert result.verdict == "pass"
    assert result.version == "models:/python/1"
    assert result.figures["reward_gain"] == result.report.delta.reward_gain
    assert result.figures["reward_gain_ci"] == result.report.delta.reward_gain_ci
    assert {path.name for path in Path(result.folders["report"]).iterdir()} >= {"report.json", "manifest.json"}
    assert repr(result) == f"AlignResult(verdict='pass', version='models:/python/1', run_id='{result.run_id}')"
    shown = result._repr_markdown_()
    assert result.judgement.sentence in shown
    assert "| reward gain |" in shown


def test_a_plan_is_a_table() -> None:
    planned = plumbline.plan(CONFIG)
    assert repr(planned) == str(planned)
    lines = str(planned).splitlines()
    assert lines[0].split() == ["stage", "key", "state", "memory", "counts"]
    assert [line.split()[0] for line in lines[1:-1]] == [stage.name for stage in planned.stages]
    assert lines[-1].startswith("memory: ")
    assert planned._repr_markdown_().splitlines()[2].startswith("| texts |")


@pytest.mark.full
def test_the_pictures_of_a_run_are_shown_and_saved(result: AlignResult, tmp_path: Path) -> None:
    found = plumbline.plots(result)
    assert set(found) == {"rewards", "gaps", "training", "gates"}
    assert repr(found["rewards"]) == "Picture(name='rewards')"
    assert found["rewards"]._repr_png_().startswith(b"\x89PNG")
    found["rewards"].save(tmp_path / "rewards.png")
    assert (tmp_path / "rewards.png").read_bytes() == found["rewards"].png


@pytest.mark.full
def test_the_version_is_listed_with_its_gain(result: AlignResult) -> None:
    (found,) = plumbline.models("python")
    assert (found.uri, found.verdict, found.aliases) == (result.version, "pass", ("challenger",))
    assert found.reward_gain == pytest.approx(result.report.delta.reward_gain)
    assert found.reward_gain_ci == pytest.approx(result.report.delta.reward_gain_ci)
    with pytest.raises(ModelError, match="there are python"):
        plumbline.models("nothing")


@pytest.mark.parametrize("name", ["python", "python@challenger", "models:/python/1"])
@pytest.mark.full
def test_a_version_is_loaded_and_asked(result: AlignResult, name: str) -> None:
    loaded = plumbline.load(name)
    assert loaded.name == name
    assert loaded.model.generation_config.do_sample  # it writes as in training
    asked: dict[str, Any] = {"seed": 3, "max_new_tokens": 8}
    first, second = plumbline.generate(loaded, ["the film was", "the plot"], **asked)
    assert [first] == plumbline.generate(name, "the film was", **asked)
    assert [second] == plumbline.generate(loaded, ["the plot"], seed=4, max_new_tokens=8)


@pytest.mark.full
def test_an_exported_version_is_an_ordinary_folder(result: AlignResult, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("new/export", "empty"):
        made = plumbline.export("python", tmp_path / folder)
        assert made == tmp_path / folder
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in made.iterdir()}
    with_gguf = plumbline.export("python", tmp_path / "gguf", gguf=True)
    assert (with_gguf / "gguf-f16.gguf").read_bytes().startswith(b"GGUF")
    asked: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8}
    assert plumbline.generate(str(made), ["the film"], **asked) == plumbline.generate("python", ["the film"], **asked)
    with pytest.raises(plumbline.InputError, match="not an empty folder; name a new one"):
        plumbline.export("python", made)
    with pytest.raises(ModelError, match="`plumbline models` lists them"):
        plumbline.export("gpt2", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "gguf", "new"]


def test_a_folder_is_asked_in_pieces(folder: Path) -> None:
    pieces: list[str] = []
    (answer,) = plumbline.generate(str(folder), ["a film"], temperature=0, max_new_tokens=6, on_text=pieces.append)
    assert "".join(pieces) == answer
    assert plumbline.generate(plumbline.load(str(folder)), "a film", temperature=0, max_new_tokens=6) == [answer]


def test_a_model_that_cannot_be_used_is_named_as_it_was_given(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"^model {folder}: no weights"):
        plumbline.load(str(folder))


def test_a_name_of_nothing_says_where_it_was_looked_for() -> None:
    with pytest.raises(ModelError, match=r"^nothing: no model is registered .* no such folder, and as a name on the"):
        plumbline.load("nothing")


def test_bad_input_is_raised(folder: Path) -> None:
    with pytest.raises(ConfigError, match="temperature = 11"):
        plumbline.generate("nothing", "a", temperature=11)
    with pytest.raises(ConfigError, match=r"^dpo\.beta = 99"):
        plumbline.load_config("quickstart.yaml", {"dpo": {"beta": 99}})
    with pytest.raises(ConfigError, match="no such file"):
        plumbline.align(plumbline.build_config(SMALL | {"data": {"path": "missing.csv"}}), quiet=True)
    with pytest.raises(ModelError, match="no chat template"):
        plumbline.generate(str(folder), ["a"], system="be brief")
