"""What each divergence keeps of the reference: reward against both KLs and diversity, over several betas.

python -m benchmarks.divergences --run      # computes the runs that are missing; killed, it goes on
python -m benchmarks.divergences --report   # the table of what is recorded, in Markdown
"""

import argparse
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignment.config import AlignConfig, load_config
from alignment.judging.report import EvalReport, Judgement
from alignment.rows import EVALUATED, MODEL, Sample
from alignment.stages.store import Store

ROOT = Path(__file__).parents[1]
PRESET = ROOT / "flows" / "configs" / "quickstart.yaml"
RESULTS = Path(__file__).parent / "results" / "divergences.parquet"

LOSS = "sigmoid"  # the one that the paper derives from a model of preferences
DIVERGENCES = ("reverse_kl", "jensen_shannon", "alpha", "forward_kl")
BETAS = (0.5, 0.1, 2.0)  # the preset's own first
SEEDS = (0, 1)


class Run(NamedTuple):
    """One policy: a divergence with a strength, from a seed."""

    divergence: str
    beta: float
    seed: int


@dataclass(frozen=True)
class Row:
    """What is recorded of a run. KLs are in nats per text, entropies in nats per token, each by samples.

    `kl` is KL(policy || reference), over the policy's samples, and `forward_kl` is KL(reference || policy), over the
    reference's: how much of what the reference writes the policy has given up. `entropy` is the mean of −log π over the
    tokens of a model's own samples; `unigram` that of the tokens whatever stands before them. `refused_by` names gates,
    and `config` is a hash of the settings.
    """

    divergence: str
    beta: float
    seed: int
    gain: float
    gain_low: float
    gain_high: float
    gain_in_sd: float
    kl: float
    forward_kl: float
    entropy_base: float
    entropy: float
    unigram_base: float
    unigram: float
    distinct_2_base: float
    distinct_2: float
    perplexity_ratio: float
    grammar_drop: float
    refused_by: str
    steps: int
    config: str

    @property
    def run(self) -> Run:
        """The run that it is of."""
        return Run(self.divergence, self.beta, self.seed)


def runs() -> list[Run]:
    """Every run: all divergences at one beta, then at the next, so that one can end early."""
    return [Run(divergence, beta, seed) for seed in SEEDS for beta in BETAS for divergence in DIVERGENCES]


def config_of(run: Run) -> AlignConfig:
    """The quickstart, with the run's loss."""
    dpo = {"loss": LOSS, "divergence": run.divergence, "beta": run.beta}
    return load_config(PRESET, {"seed": run.seed, "dpo": dpo})


def hash_of(run: Run) -> str:
    """A hash of what decides the run's figures today: the preset may have changed since one was recorded."""
    from benchmarks import runner

    return runner.named(runner.settings(config_of(run)))


def row_of(
    run: Run,
    report: EvalReport,
    judgement: Judgement,
    samples: tuple[Sequence[Sample], Sequence[Sample]],
    under_policy: Sequence[float],
    steps: int,
) -> Row:
    """The row of a run, from the base's and the policy's samples, and the policy's log-probs of the base's."""
    before, after = samples
    delta, (low, high) = report.delta, report.delta.reward_gain_ci
    return Row(
        **run._asdict(),
        gain=delta.reward_gain,
        gain_low=low,
        gain_high=high,
        gain_in_sd=delta.reward_gain_in_sd,
        kl=delta.kl,
        forward_kl=float(np.mean([row["base_logprob"] for row in before]) - np.mean(under_policy)),
        entropy_base=entropy(before),
        entropy=entropy(after),
        unigram_base=report.base.entropy,
        unigram=report.aligned.entropy,
        distinct_2_base=report.base.distinct_2,
        distinct_2=report.aligned.distinct_2,
        perplexity_ratio=delta.perplexity_ratio,
        grammar_drop=delta.grammar_drop,
        refused_by=", ".join(gate.name for gate in judgement.gates if not gate.passed),
        steps=steps,
        config=hash_of(run),
    )


def entropy(samples: Sequence[Sample]) -> float:
    """Of a model's own samples at temperature 1, the mean of −log p over their tokens, in nats."""
    return -sum(row["logprob"] for row in samples) / sum(len(row["ids"]) for row in samples)


def read(path: Path = RESULTS) -> list[Row]:
    """What is recorded; nothing where there is no file yet."""
    return [Row(**columns) for columns in pq.read_table(path).to_pylist()] if path.exists() else []


def current(rows: Sequence[Row]) -> list[Row]:
    """The records of today's settings; those of a preset that has changed since are none of this table."""
    return [row for row in rows if row.config == hash_of(row.run)]


def add(row: Row, path: Path = RESULTS) -> None:
    """Record a run, in the place of an earlier record of it; the file is there whole or not at all."""
    order = {run: number for number, run in enumerate(runs())}
    rows = sorted([*(each for each in read(path) if each.run != row.run), row], key=lambda each: order[each.run])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in rows]), draft)
    draft.rename(path)


def means(rows: Sequence[Row]) -> Iterator[tuple[str, float, Mapping[str, float], tuple[str, ...]]]:
    """For each divergence and beta the mean of every figure over the seeds, and which verdict each seed got."""
    figures = [name for name, kind in Row.__annotations__.items() if kind is float and name != "beta"]
    settings = {(row.divergence, row.beta) for row in rows}
    for divergence, beta in sorted(settings, key=lambda setting: (DIVERGENCES.index(setting[0]), setting[1])):
        several = [row for row in rows if (row.divergence, row.beta) == (divergence, beta)]
        found = {name: float(np.mean([getattr(row, name) for row in several])) for name in figures}
        yield divergence, beta, found, tuple(row.refused_by for row in several)


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table in Markdown."""
    yield (
        "| divergence | beta | reward gain (SDs) | KL(π‖ref) | KL(ref‖π) | entropy a token | distinct-2 | "
        "perplexity ratio | ungrammatical | passed |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    own, distinct = np.mean([(row.entropy_base, row.distinct_2_base) for row in rows], axis=0)
    yield f"| the base itself | | | | | {own:.3f} | {distinct:.1%} | | | |"
    for divergence, beta, found, refused in means(rows):
        passed = sum(not gates for gates in refused)
        yield (
            f"| `{divergence}` | {beta:g} | {found['gain']:+.2f} ({found['gain_in_sd']:+.2f}) | {found['kl']:.2f} | "
            f"{found['forward_kl']:.2f} | {found['entropy']:.3f} | {found['distinct_2']:.1%} | "
            f"{found['perplexity_ratio']:.2f} | {100 * found['grammar_drop']:+.1f} points | {passed}/{len(refused)} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.divergences", description=__doc__.partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="compute the runs that the results do not have")
    parser.add_argument("--home", type=Path, default=ROOT / ".plumbline" / "divergences", help="where they are kept")
    parser.add_argument("--limit", type=int, default=0, help="runs to compute at most; 0 computes all")
    parser.add_argument("--report", action="store_true", help="print the table")
    given = parser.parse_args(arguments)
    if not given.run and not given.report:
        parser.error("say --run, --report or both")
    if given.run:
        compute(given.home, given.limit)
    if given.report:
        found = current(read())
        if not found:
            parser.error(f"{RESULTS} has no run of today's settings yet; compute some by --run")
        print("\n".join(lines(found)))


def compute(home: Path, limit: int) -> None:
    """Compute the missing runs one after the other; each is recorded as soon as it is there."""
    from benchmarks import runner

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    recorded = {row.run for row in current(read())}
    missing = [run for run in runs() if run not in recorded]
    for number, run in enumerate(missing[: limit or None], 1):
        found = runner.run(config_of(run), Store(home))
        before, after = (EVALUATED.read(found.refs[name].path) for name in ("before", "after"))
        under_policy = under(found.refs["policy"].path / MODEL, before)
        steps = found.refs["policy"].counts["steps"]
        row = row_of(run, found.report, found.judgement, (before, after), under_policy, steps)
        add(row)
        print(f"{number}/{len(missing)} {', '.join(map(str, run))}: {list(lines([row]))[-1]}", flush=True)


def under(model: Path, samples: Sequence[Sample]) -> list[float]:
    """A model's log-probs of samples, in nats."""
    from alignment.logprobs import score_completions
    from alignment.models import load_base

    loaded = load_base(model)
    prompts, completions = ([row[name] for row in samples] for name in ("prompt_ids", "ids"))
    found: Any = score_completions(loaded.model, prompts, completions, pad_id=loaded.pad_id)
    return list(map(float, found))


if __name__ == "__main__":
    main()
