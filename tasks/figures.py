"""The figures of a judged run as PNG files, which the store keeps: what was drawn before is not drawn again."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.judging.report import EvalReport, Judgement
from alignment.parquet import Table
from alignment.rows import ACCEPTED, EVALUATED, HISTORY
from alignment.stages.code import code_version, library_versions
from alignment.stages.plan import KEY_LENGTH
from alignment.stages.stage import Refs
from alignment.stages.store import digest, digest_file
from tasks.home import store
from tasks.registry.records import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = "figures"
"""Where the store keeps them, a folder for each content."""
SHOWN = ("policy", "validation", "before", "after", "report")
"""The stages that are drawn."""


def drawn(config: AlignConfig, refs: Refs, report: EvalReport, judgement: Judgement) -> list[Path]:
    """The figures of a run, `training.png`, `gates.png`, and `rewards.png` and `gaps.png` where there are any.

    Raises StoreError when the disk refuses.
    """
    made_of = {
        "stages": {name: refs[name].digest for name in SHOWN},
        "judgement": judgement.model_dump(mode="json"),
        "min_gap": config.validation.min_gap,
        "code": [code_version("alignment.judging.plots"), digest_file(Path(__file__))],
        "libraries": library_versions(("matplotlib", "numpy")),
    }
    key = digest(made_of)[:KEY_LENGTH]

    def write(out: Path) -> Mapping[str, int]:
        figures = _draw(config, refs, report, judgement)
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png")
        return {"figures": len(figures)}

    found = store().find(FIGURES, key) or store().write(FIGURES, key, write, inputs=made_of)
    return sorted(found.path.glob("*.png"))


def _draw(config: AlignConfig, refs: Refs, report: EvalReport, judgement: Judgement) -> "dict[str, Figure]":
    from alignment.judging import plots

    figures = {
        "training": plots.training_curves(read_json(refs["policy"].path / HISTORY)),
        "gates": plots.gates_chart(judgement),
    }
    before, after = (values(EVALUATED, refs[side].path, "reward") for side in ("before", "after"))
    if before and after:
        figures["rewards"] = plots.reward_histogram(before, after, report.winners_mean)
    gaps = values(ACCEPTED, refs["validation"].path, "gap")
    if gaps:
        figures["gaps"] = plots.gap_histogram(gaps, config.validation.min_gap)
    return figures


def values(table: Table[Any], folder: Path, column: str) -> list[float]:
    """A column's values, without those that are missing."""
    return [value for piece in table.batches(folder, [column]) for value in piece[column].drop_null().to_pylist()]
