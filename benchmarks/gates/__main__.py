"""Proves the gates: runs that none of them was set on, whose text is judged by signals that none of them reads.

python -m benchmarks.gates --run --data reviews.parquet   # computes the runs that are missing; killed, it goes on
python -m benchmarks.gates --report --json gates.json     # the table of what is recorded
"""

import argparse
import logging
import os
import time
import warnings
from pathlib import Path

os.environ |= {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}

from alignment.stages.store import Store, write_json
from benchmarks.gates import reporting, rows
from benchmarks.gates.grid import runs

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__.partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="compute the runs that the results do not have")
    parser.add_argument("--data", default="", help="a Parquet file of labelled reviews: columns text and label (0, 1)")
    parser.add_argument("--home", type=Path, default=ROOT / ".plumbline" / "gates", help="where the runs are kept")
    parser.add_argument("--limit", type=int, default=0, help="runs to compute at most; 0 computes all")
    parser.add_argument("--report", action="store_true", help="print the table")
    parser.add_argument("--json", type=Path, help="also write it to a file")
    given = parser.parse_args(arguments)
    if not given.run and not given.report:
        parser.error("say --run, --report or both")
    if given.run:
        if not Path(given.data).is_file():
            parser.error(f"--data {given.data}: no such file; the runs on reviews need labelled reviews")
        compute(given.data, given.home, given.limit)
    if given.report:
        found = rows.current(rows.read())
        if not found:
            parser.error(f"{rows.RESULTS} has no run of today's settings yet; compute some by --run")
        print("\n".join(reporting.text(found)))
        if given.json:
            write_json(given.json, reporting.as_json(found))


def compute(reviews: str, home: Path, limit: int) -> None:
    """Compute the missing runs one after the other; each is recorded as soon as it is there."""
    from benchmarks import runner
    from benchmarks.gates.grid import config_of
    from benchmarks.gates.measuring import measure

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    recorded = {row.run.name for row in rows.current(rows.read())}
    missing = [run for run in runs() if run.name not in recorded]
    for number, run in enumerate(missing[: limit or None], 1):
        started = time.monotonic()
        refs = runner.compute(config_of(run, reviews), Store(home))
        row = measure(run, {name: ref.path for name, ref in refs.items()}, reviews)
        rows.add(row)
        print(f"{number}/{len(missing)} {time.monotonic() - started:.0f}s {reporting.line(row)}", flush=True)


if __name__ == "__main__":
    main()
