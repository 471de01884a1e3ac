"""Measures a finished run: what the gates read, and by judges of other texts what became of the model's own."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import numpy as np
import pyarrow.parquet as pq

from alignment.data.grammar import corpus
from alignment.judging.gates import judge
from alignment.judging.judges import ngrams
from alignment.judging.judges.realism import tell_apart
from alignment.judging.judges.words import Passages
from alignment.judging.measured import Array
from alignment.judging.records import read_report
from alignment.judging.statistics import paired_bootstrap
from alignment.rewards import tfidf, tfidf_model
from alignment.rows import EVALUATED, JUDGED, REPORT, TEXTS, Sample
from benchmarks.gates.criteria import GATE
from benchmarks.gates.grid import BASIS, Run, config_of, hash_of
from benchmarks.gates.rows import Row

Side: TypeAlias = Literal["before", "after"]
Labelled: TypeAlias = tuple[tuple[str, int], ...]

OTHER_SEED = 10_000  # added to a run's seed, for texts of the grammar that it has not seen
RESAMPLES, CONFIDENCE = 2_000, 0.95


def measure(run: Run, folders: Mapping[str, Path], reviews: str) -> Row:
    """The row of a run whose finished stages are in these folders; `reviews` is the file of labelled reviews."""
    report = read_report((folders["report"] / REPORT).read_text(encoding="utf-8"))
    gates = judge(report, config_of(run, reviews).gates).gates
    judges = judges_of(run, folders["texts"], reviews)
    base, aligned = judged_base(judges, folders["before"]), judges.judged("after", folders["after"])
    gain = aligned.gold - base.gold
    low, _ = paired_bootstrap(gain, RESAMPLES, CONFIDENCE, run.seed)
    return Row(
        run,
        {
            **{GATE + gate.name: gate.value for gate in gates},
            "reward_rise": report.aligned.reward_mean - report.base.reward_mean,
            "entropy_rise": report.delta.entropy_change,
            "distinct_3_ratio": report.aligned.distinct_3 / report.base.distinct_3,
            "gold_gain": float(gain.mean()),
            "gold_gain_low": low,
            **{f"{name}_before": value for name, value in base.figures.items()},
            **{f"{name}_after": value for name, value in aligned.figures.items()},
        },
        hash_of(run),
    )


class Judged:
    """What the judges say of one model's samples: the mean gold score of each prompt, and figures by name."""

    def __init__(self, gold: Array, figures: dict[str, float]) -> None:
        """The scores are (prompts,), in the order of the prompts' names."""
        self.gold, self.figures = gold, figures


class Judges:
    """A gold judge and a trigram model of labelled texts that neither base nor reward model was trained on."""

    def __init__(self, run: Run, others: Labelled) -> None:
        """Fit both."""
        self.run, self.others = run, others
        self.fluency = ngrams.fit(text for text, _ in others)
        with TemporaryDirectory() as folder:
            tfidf_model.fit([text for text, _ in others], [label for _, label in others], Path(folder))
            self.gold = tfidf.Weights(Path(folder))

    def judged(self, side: Side, folder: Path) -> Judged:
        """What they say of the samples in a folder.

        Other texts are told from the base's own, and positive ones from the aligned model's, which is to write such.
        """
        rows = EVALUATED.read(folder)
        scores = [self.gold.log_odds(row["text"]) for row in rows]
        prompts = [row["prompt_id"] for row in rows]
        _, at = np.unique(prompts, return_inverse=True)
        passages = completions(rows)
        fluency = ngrams.score(self.fluency, passages)
        real = [text for text, label in self.others if side == "before" or label == 1]
        figures = {
            "seen": fluency.seen_share,
            "trigram_perplexity": fluency.perplexity,
            "told": tell_apart(real, passages, prompts, seed=self.run.seed).auc,
        }
        if self.run.data == "grammar":
            parsed = pq.read_table(folder / EVALUATED.file, columns=[f"{JUDGED}grammatical"])
            figures["grammatical"] = float(parsed.column(0).to_numpy().mean())
        return Judged(np.bincount(at, weights=scores) / np.bincount(at), figures)


def completions(rows: Sequence[Sample]) -> Passages:
    """The texts of samples, judged behind their prompts."""
    return Passages([row["text"] for row in rows], [len(row["text"]) - len(row["completion"]) for row in rows])


def unseen(run: Run, texts: Path, reviews: str) -> Labelled:
    """Labelled texts that neither the base nor the reward model of a run was trained on."""
    if run.data == "grammar":
        return tuple(corpus(BASIS["grammar"]["data"]["rows"], run.seed + OTHER_SEED))
    seen = {row["text"] for row in TEXTS.read(texts, ["text"])}
    rows = pq.read_table(reviews, columns=["text", "label"]).to_pylist()
    return tuple((row["text"], row["label"]) for row in rows if row["text"] not in seen)


_FITTED: dict[tuple[str, int], Judges] = {}


def judges_of(run: Run, texts: Path, reviews: str) -> Judges:
    """The judges of a run's data and seed, fitted once."""
    key = (run.data, run.seed)
    if key not in _FITTED:
        _FITTED[key] = Judges(run, unseen(run, texts, reviews))
    return _FITTED[key]


@lru_cache
def judged_base(judges: Judges, folder: Path) -> Judged:
    """What they say of the base's samples, which the runs of one seed share."""
    return judges.judged("before", folder)
