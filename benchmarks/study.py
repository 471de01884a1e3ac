"""The figures of docs/study.md, each part by one command; what is recorded already is not run again.

python -m benchmarks.study cliff --data reviews.parquet
python -m benchmarks.study cliff --report
python -m benchmarks.study page
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.study_page import PAGE, RESULTS, ROOT, Record, filled, identity, keep, recorded, shown
from benchmarks.trials import PARTS, POSSIBLE, Trial

os.environ |= {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

CONFIGS = ROOT / "flows" / "configs"
SHOWN = 3  # texts of each model that are kept
BEST_OF = (2, 4, 8, 16)
BETAS = (2.0, 1.0, 0.75, 0.5)

Refs: TypeAlias = Mapping[str, Any]


def config_of(trial: Trial, data: str, base: str = "") -> Any:
    """The configuration of a trial on labelled reviews; `base` is the folder of a model that has to be given."""
    from alignment.config import load_config, merge

    overrides = merge(trial.overrides, {"data": {"path": data}})
    if trial.given:
        overrides = merge(overrides, {"base": {"model": base}})
    return load_config(CONFIGS / f"{trial.preset}.yaml", overrides)


def named(config: Any, trial: Trial) -> str:
    """A hash of what decides a trial's figures."""
    from benchmarks import runner

    return runner.named(
        [runner.settings(config), trial.given, trial.after and [trial.after.name, trial.after.overrides]]
    )


class Home:
    """A folder with the stages that were computed, and the CPU-seconds that each of them took."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder."""
        from alignment.stages.store import Store

        folder.mkdir(parents=True, exist_ok=True)
        self.store, self.noted = Store(folder / "store"), folder / "seconds.json"
        self.seconds: dict[str, float] = {}
        self.since = time.process_time()

    def heard(self, ref: Any) -> None:
        """Note what a stage took, and say so."""
        from alignment.stages.store import write_json

        spent = time.process_time() - self.since
        if self.noted.exists():
            self.seconds |= json.loads(self.noted.read_text("utf-8"))  # other commands note theirs at the same time
        if not ref.cached and ref.key not in self.seconds:
            self.seconds[ref.key] = round(spent, 1)
            write_json(self.noted, self.seconds)
            print(f"  {ref.stage} {spent:.0f} CPU-s {ref.counts}", flush=True)
        self.since = time.process_time()

    def spent(self, refs: Refs) -> float:
        """CPU-seconds of stages; nan where one was computed by another command."""
        return sum(self.seconds.get(ref.key, math.nan) for ref in refs.values())


def measure(trial: Trial, data: str, home: Home, base: str = "") -> Record:
    """Run a trial, and record what it found; its `seconds` count what an earlier trial computed for it.

    A second round is recorded against the first base, its texts beside those of the first round.
    """
    from alignment.config import build_config, merge
    from alignment.judging.gates import judge
    from alignment.rows import MODEL
    from benchmarks.runner import run

    config = config_of(trial, data, base)
    name, seconds = named(config, trial), 0.0
    first = trial.after and run(config_of(trial.after, data, base), home.store, home.heard).refs
    if first:
        seconds = home.spent(first)
        folders = {
            "base": {"model": str(first["policy"].path / MODEL)},
            "reward": {"model": str(first["reward"].path / MODEL)},
            "evaluation": {"anchor": str(first["base"].path / MODEL)},
        }
        config = build_config(merge(config.model_dump(mode="json"), folders))
    found = run(config, home.store, home.heard)
    report = against_first(config, first, found.refs) if first else found.report
    judgement, delta = judge(report, config.gates), report.delta
    low, high = delta.reward_gain_ci
    sd = report.base.reward_sd
    return about(trial, name) | {
        "base_perplexity": report.base_validation_perplexity,
        "reward_accuracy": report.reward_validation_accuracy,
        "pairs": found.refs["policy"].counts["pairs"],
        "steps": found.refs["policy"].counts["steps"],
        "winners": report.winners_mean,
        "reward_base": report.base.reward_mean,
        "reward_aligned": report.aligned.reward_mean,
        "reward_sd": sd,
        "gain": delta.reward_gain_in_sd,
        "gain_low": low / sd,
        "gain_high": high / sd,
        "won": delta.win_rate,
        "won_length_matched": delta.get("win_rate_length_matched"),
        "perplexity_ratio": delta.perplexity_ratio,
        "kl": delta.kl,
        "kl_per_token": delta.kl_per_token,
        "reward_sd_ratio": delta.reward_sd_ratio,
        "entropy_base": report.base.entropy,
        "entropy_aligned": report.aligned.entropy,
        "distinct_2_base": report.base.get("distinct_2"),
        "distinct_2_aligned": report.aligned.get("distinct_2"),
        "length_change": delta.get("length_change"),
        "verdict": judgement.verdict,
        "refused_by": [gate.name for gate in judgement.gates if not gate.passed],
        "seconds": seconds + home.spent(found.refs),
        "texts": texts(found.refs["report"].path),
    }


def against_first(config: Any, first: Refs, second: Refs) -> Any:
    """The report of a second round against the first base on the same prompts, to which the drift has the log-probs."""
    from alignment.judging import comparison, hf_metrics
    from alignment.judging.measured import from_rows
    from alignment.rows import ANCHORED, EVALUATED

    rows = EVALUATED.read(second["after"].path)
    under = [row["base_logprob"] for row in ANCHORED.read(second["drift"].path) if row["side"] == "after"]
    return comparison.compare(
        from_rows(EVALUATED.read(first["before"].path)),
        from_rows([{**row, "base_logprob": logprob} for row, logprob in zip(rows, under, strict=True)]),
        metrics=hf_metrics.all_metrics(),
        winners_mean=None,
        config=config.evaluation,
        seed=config.seed,
    )


def about(trial: Trial, config: str) -> Record:
    """What a record says of its trial."""
    return {
        "part": trial.part,
        "trial": trial.name,
        "seed": trial.seed,
        "preset": trial.preset,
        "changes": json.dumps(dict(trial.changes), sort_keys=True),
        "config": config,
        "date": time.strftime("%Y-%m-%d"),
    }


def texts(folder: Path) -> list[Record]:
    """What both models wrote to the first held-out prompts, without the prompts, which are of the data."""
    from alignment.rows import SAMPLE_TEXTS

    rows = json.loads((folder / SAMPLE_TEXTS).read_text("utf-8"))[:SHOWN]
    return [
        {side: row[side].removeprefix(row["prompt"]) for side in ("base", "aligned")}
        | {f"{side}_reward": row[f"{side}_reward"] for side in ("base", "aligned")}
        for row in rows
    ]


def possible(data: str, home: Home) -> Iterator[Record]:
    """What needs no training: the best of n samples of the base, and the optimum for each beta, in SDs of the base.

    The best of n is at once how far the mean of the winners stands above that of all samples: what a comparison with
    the winners as its `before` is wrong by.
    """
    import numpy as np

    from alignment.judging.ceiling import best_of_n, ceiling
    from alignment.rows import SCORES
    from benchmarks.runner import compute

    config = config_of(POSSIBLE, data)
    refs = compute(config, home.store, "scores", home.heard)
    column = SCORES.whole(refs["scores"].path, ["reward"]).column(0).to_numpy()
    rewards = column.reshape(-1, config.sampling.samples_per_prompt)
    sd, mean = float(rewards.std()), float(rewards.mean())
    within = float(np.sqrt(rewards.var(axis=1, ddof=1).mean()))
    above = rewards - rewards.mean(axis=1, keepdims=True)  # neither curve minds what all samples of a prompt share
    curves = [(f"best of {point.setting:g}", point) for point in best_of_n(above, BEST_OF)]
    curves += [(f"optimum, beta {point.setting:g}", point) for point in ceiling(above, BETAS)]
    for name, point in curves:
        yield about(POSSIBLE, named(config, POSSIBLE)) | {
            "trial": name,
            "kl": point.kl,
            "gain": point.reward / sd,
            "gain_low": (point.reward - 2 * point.reward_se) / sd,
            "gain_high": (point.reward + 2 * point.reward_se) / sd,
            "reward_base": mean,
            "reward_aligned": mean + point.reward,
            "reward_sd": sd,
            "reward_sd_within": within,
            "verdict": "trusted" if point.trusted else "too few samples",
            "seconds": home.spent(refs),
        }


def run_part(trials: Sequence[Trial], data: str, home: Home, base: str = "", path: Path = RESULTS) -> None:
    """Run the trials that are not recorded, and keep each one's record as soon as it is there."""
    for trial in trials:
        config = named(config_of(trial, data, base), trial)
        if (trial.part, trial.name, trial.seed, config) not in {
            (*identity(row), row["config"]) for row in recorded(path)
        }:
            print(f"{trial.part}: {trial.name}, seed {trial.seed}", flush=True)
            keep([measure(trial, data, home, base)], path)


def main() -> None:
    """Run a part and print its table, or bring the page up to date with what is recorded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, POSSIBLE.part, "page"], help="`page` brings docs/study.md up to date")
    parser.add_argument("--data", default="stanfordnlp/imdb", help="labelled reviews: a file, or a name on the hub")
    parser.add_argument("--base", default="", help="folder of the pretrained model that the part `smollm` starts from")
    parser.add_argument("--home", type=Path, default=ROOT / ".plumbline" / "study", help="folder of what is computed")
    parser.add_argument("--only", default="", help="run the trials whose name contains this")
    parser.add_argument("--report", action="store_true", help="run nothing: print what is recorded")
    asked = parser.parse_args()
    if asked.part == "page":
        PAGE.write_text(filled(PAGE.read_text("utf-8"), recorded()), "utf-8")
        return
    if not asked.report:
        home = Home(asked.home)
        if asked.part == POSSIBLE.part:
            keep(list(possible(asked.data, home)))
        else:
            trials = [trial for trial in PARTS[asked.part]() if asked.only in trial.name]
            run_part(trials, asked.data, home, asked.base)
    rows = recorded()
    print("\n".join([*shown(asked.part, rows), *shown(f"{asked.part} texts", rows)]))


if __name__ == "__main__":
    main()
