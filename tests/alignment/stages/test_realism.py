"""The stage `realism`: samples beside real texts that nothing was trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config import build_config
from alignment.data.grammar import corpus
from alignment.errors import ConfigError, DataError
from alignment.judging.card import notes, result_rows
from alignment.judging.judges import ngrams
from alignment.judging.judges.words import Passages
from alignment.judging.report import EvalReport
from alignment.preflight import faults_of
from alignment.stages.job import Job
from alignment.stages.realism import passages_of, real_texts
from tests.alignment.chain import HELD_OUT, Chain, keys
from tests.alignment.conftest import read_rows


@pytest.fixture
def compared(chain: Chain, tmp_path: Path) -> Callable[..., Chain]:
    """The chain's evaluation beside real texts."""

    def other(stages: str = "realism report", **evaluation: Any) -> Chain:
        found = chain.other(tmp_path, evaluation={"real_rows": 200, **evaluation})
        for name in stages.split():
            found.folders[name] = found.run(name)
        return found

    return other


def job(found: Chain) -> Job:
    work = found.root / "looking"
    work.mkdir()
    return Job(found.config, {"texts": found.folders["texts"]}, found.root, work, found.root)


def test_each_sample_is_beside_the_real_texts_and_the_report_has_its_figures(compared: Any, chain: Chain) -> None:
    found = compared(real_texts="grammar")
    rows = read_rows(found.folders["realism"] / "realism.parquet")
    sides: dict[str, list[Any]] = {
        side: read_rows(chain.folders[side] / "samples.parquet") for side in ("before", "after")
    }
    assert found.counts["realism"]["samples"] == len(rows) == 4 * HELD_OUT
    assert [(row["side"], row["prompt_id"], row["index"]) for row in rows] == [
        (side, row["prompt_id"], row["index"]) for side, samples in sides.items() for row in samples
    ]
    read = EvalReport.model_validate_json((found.folders["report"] / "report.json").read_text(encoding="utf-8"))
    assert read.real_texts is not None
    assert read.real_texts.held_out + read.real_texts.fitted == 200
    fitted = real_texts(job(found))[0][read.real_texts.held_out :]
    fluent = ngrams.score(ngrams.fit(fitted), passages_of(sides["after"], opens=True))
    assert read.aligned.seen_bigrams == pytest.approx(fluent.seen_share)
    assert read.aligned.word_perplexity == pytest.approx(fluent.perplexity)
    after = [row["outranked"] for row in rows if row["side"] == "after" and row["outranked"] is not None]
    assert read.aligned.realism_auc == pytest.approx(np.mean(after))
    assert read.delta.realism_auc_change == pytest.approx(read.aligned.realism_auc - read.base.realism_auc)
    assert read.delta.word_perplexity_ratio == pytest.approx(fluent.perplexity / read.base.word_perplexity)
    assert "told from real texts (AUC, 0.5 by chance)" in [row[0] for row in result_rows(read)]
    assert any(note.startswith("Real texts themselves (") for note in notes(read))
    measured = json.loads((found.folders["realism"] / "metrics.json").read_text(encoding="utf-8"))
    assert measured == json.loads(read.real_texts.model_dump_json())


def test_texts_that_the_run_starts_from_are_left_out(compared: Any, tmp_path: Path) -> None:
    """Of the three hundred texts of the run, a hundred stand in the file too, and one of the others twice."""
    own = [
        row["text"] for row in read_rows(compared(stages="", real_texts="grammar").folders["texts"] / "texts.parquet")
    ]
    others = [text for text, _ in corpus(80, seed=99)]
    file = tmp_path / "real.jsonl"
    lines = [*own[:100], *others, others[0]]
    file.write_text("".join(json.dumps({"said": text}) + "\n" for text in lines), encoding="utf-8")
    found = compared(stages="", real_texts=str(file), real_column="said")
    texts, left_out = real_texts(job(found))
    assert sorted(texts) == sorted(set(others))
    assert left_out == 100


def test_too_few_others_are_refused(compared: Any, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in corpus(20, seed=99)), encoding="utf-8")
    found = compared(stages="", real_texts=str(file))
    with pytest.raises(DataError, match=r"real_texts = .*few\.jsonl: 20 of 20 different .* or set data\.rows so"):
        real_texts(job(found))


def test_comparing_adds_its_stage_and_moves_the_report_alone(chain: Chain, tmp_path: Path) -> None:
    plain, beside = keys(chain.config), keys(chain.other(tmp_path, evaluation={"real_texts": "data"}).config)
    assert {name for name in beside if beside[name] != plain.get(name)} == {"realism", "report"}


def test_a_prompt_that_opens_a_text_is_read_and_not_judged() -> None:
    sample: Any = {"text": "the film was dull", "completion": " dull"}
    assert passages_of([sample], opens=True) == Passages(["the film was dull"], [12])
    assert passages_of([sample], opens=False) == Passages([" dull"])


# What stops a run before it has begun


def test_rows_of_chats_are_no_real_texts() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.real_texts = data: the rows of prompts\.source = messages"):
        build_config(
            {
                "base": {"model": "some/model"},
                "reward": {"model": "some/model"},
                "prompts": {"source": "messages"},
                "evaluation": {"real_texts": "data"},
            }
        )


def test_a_file_without_the_column_is_a_fault_of_its_field(tmp_path: Path) -> None:
    file = tmp_path / "real.jsonl"
    file.write_text('{"said": "a film"}\n', encoding="utf-8")
    (fault,) = faults_of(build_config({"evaluation": {"real_texts": str(file)}}))
    assert set(fault.fields) == {"evaluation.real_texts", "evaluation.real_column"}
    assert fault.message.startswith(f"evaluation.real_texts {file}: ")
