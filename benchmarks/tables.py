"""The Markdown tables of what benchmarks wrote by `--json`.

python -m benchmarks.tables train.json generate.json
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, cells, one_line

HEADINGS = ("what", "against", "ours", "theirs", "ratio", "range", "target")


def table(path: Path) -> Iterator[str]:
    """The lines of one file's table: its name, its rows, what they note, and the machine."""
    found = json.loads(path.read_text("utf-8"))
    rows = [Row(**row) for row in found["rows"]]
    yield f"### {path.stem}"
    yield ""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"|{'---|' * 2}{'---:|' * (len(HEADINGS) - 2)}"
    for row in rows:
        yield f"| {' | '.join(cells(row))} |"
    yield ""
    for note in dict.fromkeys(f"{row.what}: {row.note}." for row in rows if row.note and row.ours is not None):
        yield f"- {note}"
    yield f"- {one_line(found['machine'])}"
    yield ""


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print("\n".join(table(Path(name))))
