"""The page of a run: logged with its record, and made again from what MLflow holds."""

import logging
import platform
from collections import Counter
from collections.abc import Sequence
from typing import Any

from alignment.judging.charts import counted
from alignment.rows import ACCEPTED, EVALUATED, QUARANTINED
from alignment.stages.code import library_versions
from alignment.stages.stage import Refs
from tasks.figures import values
from tasks.registry import recorded, records, runs

logger = logging.getLogger("plumbline")

PAGE = runs.PAGE
"""The run's artifact, which MLflow's pages show."""
LIBRARIES = (
    *("plumbline", "torch", "transformers", "tokenizers", "accelerate", "peft", "numpy", "pyarrow"),
    *("great-expectations", "evaluate", "mlflow", "prefect"),
)


def log_page(run_id: str, refs: Refs) -> None:
    """Log the page of a run, once everything else is recorded, and what only the page shows.

    Where that fails, the log says so: the run is trained and judged, and its page can be made again.
    """
    try:
        records.log_json(run_id, recorded.SHOWN, beside_the_record(refs))
        records.log_text(run_id, PAGE, page(run_id))
    except Exception as error:
        told = "%s of run %s was not made: %s: %s; `plumbline report %s` tries again, and the run goes on"
        logger.warning(told, PAGE, run_id, type(error).__name__, error, run_id, exc_info=True)


def page(run_id: str) -> str:
    """The page of a run, from its record. Raises as `tasks.registry.recorded.read_run` does."""
    from alignment.judging.page import report_page

    return report_page(recorded.read_run(run_id))


def beside_the_record(refs: Refs) -> dict[str, Any]:
    """Distributions in equal bins, why pairs were quarantined in counts that sum, and the versions of the libraries."""
    accepted, quarantined = refs["validation"].path, refs["validation"].path
    broken: Counter[str] = Counter(
        ", ".join(name.replace("_", " ") for name in names)
        for piece in QUARANTINED.batches(quarantined, ["broken"])
        for names in piece["broken"].to_pylist()
    )
    found = {
        "rewards": _of({side: values(EVALUATED, refs[name].path, "reward") for side, name in SIDES}),
        "gaps": counted({"pairs": values(ACCEPTED, accepted, "gap")}),
        "lengths": counted({side: values(ACCEPTED, accepted, f"{side}_tokens") for side in ("chosen", "rejected")}),
    }
    versions = {"Python": platform.python_version()} | library_versions(LIBRARIES)
    return found | {"broken": dict(broken.most_common()), "libraries": versions}


SIDES = (("base", "before"), ("aligned", "after"))


def _of(rewards: dict[str, Sequence[float]]) -> dict[str, Any]:
    return counted(rewards) if all(rewards.values()) else {}
