"""The command line: exit codes, the JSON, the plan, and one line for each kind of bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.config import build_config, merge
from tests.flows.cli.outcome import Outcome
from tests.flows.small import OPEN_GATES, SMALL

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    def write(**overrides: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(merge(SMALL, overrides)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def base_folder(tmp_path: Path, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    folder = tmp_path / "base"
    tiny_gpt2(vocab_size=len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def reward_folder(folder: Path, tokenizer: Any, fill: float) -> Path:
    """A reward model whose last layer is `fill` everywhere: 0 gives every text one score, NaN gives none."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=64, dim=16, hidden_dim=32, n_layers=1, n_heads=2
        )
    )
    torch.nn.init.constant_(model.classifier.weight, fill)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def registered(home: Path) -> list[str]:
    from mlflow import MlflowClient

    if not (home / "mlflow.db").exists():
        return []
    return [model.name for model in MlflowClient(f"sqlite:///{home / 'mlflow.db'}").search_registered_models()]


def refused(outcome: Outcome, code: int, *parts: str) -> None:
    """One line on stderr that names the thing and the way out, and no traceback."""
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith("plumbline: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


def test_a_run_that_passes_exits_0_and_writes_its_json(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    outcome = plumbline("run", "--config", config_file(gates=OPEN_GATES), "--json", out)

    assert outcome.code == 0, outcome.err
    assert "Registered  small version 1 (challenger)" in outcome.out
    assert "Serve it    plumbline serve models:/small/1\n" in outcome.out
    assert "Ask it      plumbline generate models:/small/1 'a prompt'\n" in outcome.out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["verdict"] == "pass"
    assert found["model"] == {
        "name": "small",
        "version": "1",
        "uri": "models:/small/1",
        "aliases": ["challenger"],
    }
    assert found["registered"] == "small version 1 (challenger)"
    assert set(found["pairs"]) == {"built", "accepted", "quarantined"}
    assert {"reward_gain", "reward_gain_ci", "win_rate", "perplexity_ratio", "kl", "kl_per_token"} <= set(
        found["delta"]
    )
    assert all(set(gate) == {"name", "value", "bound", "passed"} for gate in found["gates"])
    assert set(found["seconds"]) >= {"texts", "base", "policy", "report"}
    exported = plumbline("export", "small", tmp_path / "taken")
    assert "taken: models:/small/1 (small), " in exported.out, "it says which version it took"


def test_a_refused_run_exits_3_and_says_why(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path], at_home: Path
) -> None:
    before = registered(at_home)
    outcome = plumbline("run", "--config", config_file(gates=OPEN_GATES), "--gates.min-win-rate", "1")

    assert outcome.code == 3, outcome.err
    assert "Not registered: 1 of 6 gates refused it, 5 passed." in outcome.out
    assert "win rate 0." in outcome.out
    assert "Earlier     small version 1 (challenger); this policy is version 1 already; it passed other" in outcome.out
    assert registered(at_home) == before


def test_the_full_result_has_every_figure_and_texts_too(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path]
) -> None:
    arguments = ("run", "--config", config_file(gates=OPEN_GATES))
    short, full = plumbline(*arguments), plumbline(*arguments, "--full")
    for part in ("distinct 3-grams", "reward_sd_ratio", "Held-out prompts, not chosen by hand"):
        assert part not in short.out
        assert part in full.out
    assert full.out.splitlines()[-1] == short.out.splitlines()[-1]


def test_a_plan_shows_what_the_store_has(plumbline: Callable[..., Outcome], config_file: Callable[..., Path]) -> None:
    outcome = plumbline("plan", "--config", config_file(), "--dpo.beta", "0.9")

    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line}
    assert "cached" in lines["validation"]
    assert "to compute" in lines["policy"]
    assert outcome.code == 0


def test_a_plan_for_another_machine_marks_what_does_not_fit_there(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path]
) -> None:
    """The whole table, and then why it would be refused."""
    arguments = ("plan", "--config", config_file(), "--dpo.beta", "0.9")
    outcome = plumbline(*arguments, "--gpu", "0.001")
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line}
    assert outcome.code == 2
    assert "too much" in lines["policy"]
    assert "memory: of the GPU with 1 MB" in outcome.out
    assert "the stage policy needs about" in outcome.err
    assert "dpo.adapter to lora" in outcome.err
    assert plumbline(*arguments, "--gpu", "80").code == 0


def test_a_plan_is_refused_where_no_runner_has_the_name_that_is_given(
    plumbline_alone: Callable[..., Outcome], config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_RUNNER", "rays")
    outcome = plumbline_alone("plan", "--config", config_file())
    assert outcome.code == 2
    assert "PLUMBLINE_RUNNER rays: is no runner; set it to threads, ray or jobs" in " ".join(outcome.err.split())


def test_a_plan_finds_the_stages_that_a_registered_model_made(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path]
) -> None:
    first = plumbline("run", "--config", config_file(gates=OPEN_GATES))
    assert "Registered  small version 1" in first.out
    arguments = ("--config", config_file(gates=OPEN_GATES, base={"model": "models:/small/1"}), "--dpo.steps", "4")

    def states() -> set[str]:
        outcome = plumbline("plan", *arguments)
        assert outcome.code == 0, outcome.err
        stages = ("base", "prompts", "samples", "policy", "report")
        return {
            "cached" if " cached " in line else "to compute"
            for line in outcome.out.splitlines()
            if line.split()[:1] and line.split()[0] in stages
        }

    assert states() == {"to compute"}
    assert plumbline("run", *arguments).code == 0
    assert states() == {"cached"}


def test_a_flag_beats_the_file_and_both_are_bounded(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path]
) -> None:
    refused(
        plumbline("run", "--config", config_file(), "--dpo.beta", "99"),
        2,
        "plumbline: --dpo.beta 99: ",
        "less than or equal to 10",
    )


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"dpo": {"learning_rat": 1}}, ("unknown field `dpo.learning_rat`", "did you mean `dpo.learning_rate`?")),
        ({"dpo": {"beta": -1}}, ("dpo.beta = '-1'", "greater than 0")),
        ({"data": {"path": "missing.parquet"}}, ("data.path missing.parquet", "no such file")),
        (
            {"prompts": {"tokens_min": 30, "tokens_max": 30}, "data": {"path": "short.csv"}},
            ("prompts", "too few tokens"),
        ),
        ({"data": {"path": "empty.csv"}}, ("data.path empty.csv", "empty")),
        ({"data": {"path": "one_column.csv"}}, ("has no column `label`", "data.label_column")),
        ({"data": {"path": "one_class.csv"}}, ("no text has this label", "data.positive_label")),
    ],
    ids=["unknown-field", "out-of-bounds", "missing-file", "short-texts", "empty-file", "one-column", "one-class"],
)
def test_bad_config_and_data(
    overrides: dict[str, Any],
    parts: tuple[str, ...],
    plumbline: Callable[..., Outcome],
    config_file: Callable[..., Path],
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"a fine film number {index},{index % 2}" for index in range(40)]
    Path("short.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    Path("one_class.csv").write_text("text,label\n" + "\n".join(f"a film {i},0" for i in range(40)), encoding="utf-8")
    Path("one_column.csv").write_text("text\n" + "\n".join(f"a film {i}" for i in range(40)), encoding="utf-8")
    Path("empty.csv").touch()
    if overrides.get("data", {}).get("path") == "short.csv":
        overrides = overrides | {"base": {"model": str(base_folder)}}

    refused(plumbline("run", "--config", config_file(**overrides)), 2, *parts)


def test_bad_models(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path], base_folder: Path, tmp_path: Path
) -> None:
    import shutil

    for removed, part in (("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")):
        broken = tmp_path / f"without-{removed}"
        shutil.copytree(base_folder, broken)
        for name in {removed, "tokenizer_config.json"} if "tokenizer" in removed else {removed}:
            (broken / name).unlink()
        refused(plumbline("run", "--config", config_file(base={"model": str(broken)})), 2, str(broken), part)
    (broken / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(plumbline("run", "--config", config_file(base={"model": str(broken)})), 2, "is a pickle", "save_pretrained")
    narrow = config_file(base={"model": str(base_folder)}, sampling={"total_tokens": 128}, reward={"context": 128})
    refused(plumbline("run", "--config", narrow), 2, "sampling.total_tokens = 128", "the 64 tokens that base.model = ")


def test_bad_scores_and_pairs(
    plumbline: Callable[..., Outcome],
    config_file: Callable[..., Path],
    base_folder: Path,
    tiny_tokenizer: Any,
    tmp_path: Path,
    at_home: Path,
) -> None:
    before = registered(at_home)
    flat = reward_folder(tmp_path / "flat", tiny_tokenizer, 0.0)
    broken = reward_folder(tmp_path / "nan", tiny_tokenizer, float("nan"))
    base = {"model": str(base_folder)}

    def run(**overrides: Any) -> Outcome:
        wanted = {"reward": {"model": str(flat), "positive_class": 1}} | overrides
        return plumbline("run", "--config", config_file(base=base, **wanted))

    refused(run(reward={"model": str(broken), "positive_class": 1}), 2, "scores are not finite")
    refused(run(), 2, "candidates tied", "reward.model")
    refused(
        run(reward={"model": "train"}, validation={"min_gap": 1_000}),
        2,
        "every one of the",
        "quarantined",
        "validation",
    )
    assert registered(at_home) == before
    assert not list((at_home / "store" / ".draft").glob("*"))


def test_an_mlflow_that_does_not_answer(
    plumbline: Callable[..., Outcome], config_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    refused(plumbline("run", "--config", config_file()), 1, "http://127.0.0.1:9", "MLFLOW_TRACKING_URI")


def test_ctrl_c_says_how_to_go_on(plumbline: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.stack.control.status", interrupted)
    found = plumbline("status")
    assert found.code == 130
    assert found.err == "plumbline: interrupted; finished stages stay in the store, run again to go on\n"


@pytest.mark.parametrize(
    ("config", "data", "told"),
    [
        ("quickstart.yaml", {}, "quickstart"),
        ("mine.yaml", {"path": "reviews.csv"}, "mine"),
        ("quickstart.yaml", {"path": "reviews.csv"}, "reviews.csv, with the settings of quickstart.yaml"),
        ("quickstart.yaml", {"mixture": [{"path": "a"}, {"path": "b"}]}, "a, b, with the settings of quickstart.yaml"),
    ],
)
def test_a_run_is_headed_by_its_file_or_by_the_data_that_flags_put_into_the_default(
    config: str, data: dict[str, Any], told: str
) -> None:
    from flows.cli.pipeline import heading
    from flows.settings import CONFIGS

    found = CONFIGS / config if (CONFIGS / config).is_file() else Path(config)
    assert heading(found, build_config({"data": data})) == told
