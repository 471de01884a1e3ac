"""The table of the divergences: what a run is, what is recorded of it, and what is printed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignment.config import GatesConfig
from alignment.judging.gates import judge
from benchmarks import divergences
from benchmarks.divergences import Row, Run, add, config_of, current, entropy, hash_of, lines, read, row_of, runs
from tests.reports import make_report

ROW = Row(
    **Run("forward_kl", 0.5, 0)._asdict(),
    gain=0.5, gain_low=0.4, gain_high=0.6, gain_in_sd=0.75, kl=2.0, forward_kl=1.5, entropy_base=1.1, entropy=1.0,
    unigram_base=4.8, unigram=4.7, distinct_2_base=0.08, distinct_2=0.07, perplexity_ratio=1.02, grammar_drop=0.03,
    refused_by="", steps=150, config=hash_of(Run("forward_kl", 0.5, 0)),
)  # fmt: skip


def samples(*given: tuple[int, float, float]) -> list[Any]:
    """Samples by their lengths and log-probs, under their own model and under the base."""
    return [{"ids": [1] * length, "logprob": own, "base_logprob": base} for length, own, base in given]


@pytest.mark.parametrize("run", runs(), ids=str)
def test_each_run_is_the_quickstart_under_another_divergence(run: Run) -> None:
    config = config_of(run)
    assert (config.dpo.divergence, config.dpo.beta, config.seed) == run
    assert config.data.path == "grammar"


def test_a_base_is_trained_once_a_seed() -> None:
    """The runs of one seed differ in what the policy reads alone."""
    first = {run.seed: config_of(run).model_copy(update={"dpo": None}) for run in runs()}
    assert all(config_of(run).model_copy(update={"dpo": None}) == first[run.seed] for run in runs())


def test_entropy_is_taken_over_tokens() -> None:
    """3 + 1 nats over 4 + 4 tokens."""
    assert entropy(samples((4, -3.0, 0.0), (4, -1.0, 0.0))) == 0.5


def test_the_forward_kl_is_what_the_policy_gave_up_of_the_base_s_texts() -> None:
    """The base finds its two texts −2 and −4, the policy −5 and −3: (−3) − (−4) = 1 nat a text."""
    found = make_report(delta={"grammar_drop": 0.03})
    row = row_of(
        Run("alpha", 0.1, 1),
        found,
        judge(found, GatesConfig()),
        (samples((2, -2.0, -2.0), (2, -4.0, -4.0)), samples((5, -1.0, -3.0))),
        [-5.0, -3.0],
        150,
    )
    assert row.forward_kl == 1
    assert (row.entropy_base, row.entropy) == (1.5, 0.2)
    assert (row.run, row.gain, row.kl) == (("alpha", 0.1, 1), found.delta.reward_gain, found.delta.kl)


def test_a_record_is_read_as_it_was_written_and_a_run_stands_there_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "divergences.parquet"
    assert read(path) == []
    other = replace(ROW, divergence="reverse_kl", gain=math.pi)
    for row in (ROW, other, replace(ROW, gain=0.7)):
        add(row, path)
    assert read(path) == [other, replace(ROW, gain=0.7)]  # in the order of the runs
    assert [each.name for each in path.parent.iterdir()] == ["divergences.parquet"]


def test_a_record_of_other_settings_is_left_out_and_computed_again() -> None:
    assert len({hash_of(run) for run in runs()}) == len(runs())
    assert current([ROW, replace(ROW, config="of an earlier preset")]) == [ROW]


def test_the_table_has_means_over_seeds() -> None:
    second = replace(ROW, seed=1, gain=0.7, kl=3.0, refused_by="kl_per_token")
    found = list(lines([ROW, second]))
    assert found[2] == "| the base itself | | | | | 1.100 | 8.0% | | | |"
    assert found[3] == (
        "| `forward_kl` | 0.5 | +0.60 (+0.75) | 2.50 | 1.50 | 1.000 | 7.0% | 1.02 | +3.0 points | 1/2 |"
    )
    assert {line.count("|") for line in found} == {11}


def test_without_a_result_the_report_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(divergences, "RESULTS", tmp_path / "none.parquet")
    monkeypatch.setattr(divergences, "read", lambda: [])
    with pytest.raises(SystemExit):
        divergences.main(["--report"])
    assert "compute some by --run" in capsys.readouterr().err
