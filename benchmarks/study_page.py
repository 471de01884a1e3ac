"""What the study recorded: the file that holds it, and the tables and texts that docs/study.md has of it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.gates.criteria import BOUNDS, todays
from benchmarks.trials import PARTS, POSSIBLE

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "study.md"
RESULTS = ROOT / "benchmarks" / "results" / "study.parquet"

Record: TypeAlias = dict[str, Any]
Columns: TypeAlias = Mapping[str, Callable[[Mapping[str, Any]], str]]
Figures: TypeAlias = Mapping[str, Callable[[Mapping[str, Any]], float]]


def recorded(path: Path = RESULTS) -> list[Record]:
    """What has been measured so far."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist() if path.exists() else []


def keep(records: Sequence[Record], path: Path = RESULTS) -> None:
    """Add records, each in place of an earlier one of the same trial and seed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    new = {identity(record) for record in records}
    rows = [row for row in recorded(path) if identity(row) not in new] + list(records)
    columns = dict.fromkeys(name for row in rows for name in row)
    draft = path.with_name(f".{path.name}")
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), draft)
    draft.rename(path)


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What no two records share."""
    return row["part"], row["trial"], row["seed"]


READ: Figures = {
    "reward_gain": lambda row: row["gain_low"] * row["reward_sd"],
    "win_rate": lambda row: row["won"],
    "perplexity_ratio": lambda row: row["perplexity_ratio"],
    "kl_per_token": lambda row: row["kl_per_token"],
    "reward_sd_ratio": lambda row: row["reward_sd_ratio"],
    "entropy_change": lambda row: abs(row["entropy_aligned"] - row["entropy_base"]) / row["entropy_base"],
}
"""What each gate reads of a record."""


def refused_by(row: Mapping[str, Any]) -> list[str]:
    """The gates that refuse a record by today's bounds; of a gate whose figure it does not have, as judged then."""
    bounds = todays()
    today = [bound.gate for bound in BOUNDS if not bound.keeps(READ[bound.gate](row), bounds[bound.field])]
    return list(dict.fromkeys([*today, *(name for name in row["refused_by"] or () if name not in READ)]))


TRAINED: Columns = {
    "trial": lambda row: row["trial"] + (f", seed {row['seed']}" if row["seed"] else ""),
    "reward": lambda row: f"{row['reward_base']:+.2f} → {row['reward_aligned']:+.2f}",
    "gain, SDs": lambda row: f"{row['gain']:+.2f} ({row['gain_low']:+.2f} to {row['gain_high']:+.2f})",
    "won": lambda row: f"{row['won']:.0%}",
    "perplexity ratio": lambda row: f"{row['perplexity_ratio']:.2f}",
    "KL, nats": lambda row: f"{row['kl']:.1f}",
    "entropy": lambda row: f"{row['entropy_base']:.2f} → {row['entropy_aligned']:.2f}",
    "verdict": lambda row: f"refused: {', '.join(gates)}" if (gates := refused_by(row)) else "passed",
    "CPU-s": lambda row: f"{row['seconds']:,.0f}",
}
UNTRAINED: Columns = {
    "policy": lambda row: row["trial"],
    "gain, SDs": TRAINED["gain, SDs"],
    "KL, nats": lambda row: f"{row['kl']:.2f}",
    "estimate": lambda row: row["verdict"],
}


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(show(row) for show in columns.values())} |"


def samples(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The texts of each record, as Markdown."""
    for row in rows:
        for text in row["texts"] or []:
            yield f"- {row['trial']}: “…{literal(text['aligned'])}” ({text['aligned_reward']:+.1f});"
            yield f"  base: “…{literal(text['base'])}” ({text['base_reward']:+.1f})"


def literal(text: str) -> str:
    """A text on one line, in which no sign has a meaning to Markdown."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", " ".join(text.split()))


def shown(what: str, rows: Sequence[Record]) -> list[str]:
    """The lines that stand in the page for a part, or for its `texts`, of what is recorded; in the order of the trials.

    The table of the notebook's runs has those of `cliff` that are its own.
    """
    part, _, texts = what.partition(" ")
    trials = PARTS[part]() if part in PARTS else []
    order = {(trial.part, trial.name, trial.seed): number for number, trial in enumerate(trials)}
    if part == POSSIBLE.part:
        found = [row for row in rows if row["part"] == part]
    else:
        found = [row for row in rows if (row["part"], row["trial"], row["seed"]) in order]
        found.sort(key=lambda row: order[row["part"], row["trial"], row["seed"]])
    if texts:
        return list(samples(found))
    return list(table(found, TRAINED if trials else UNTRAINED)) if found else []


def filled(page: str, rows: Sequence[Record]) -> str:
    """The page with the lines between `<!-- study: PART -->` and `<!-- end -->` as they are recorded."""

    def fill(block: re.Match[str]) -> str:
        return "\n".join([block[1], "", *shown(block[2], rows), "", block[3]])

    return re.sub(r"(<!-- study: (.*?) -->)\n.*?(<!-- end -->)", fill, page, flags=re.DOTALL)
