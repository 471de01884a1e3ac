"""What a stage is given to work with: the configuration, the folders of the stages that it needs, and its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig

Counts = dict[str, int]

SCRATCH = ".scratch"


def _silent(done: int, total: int) -> None:
    """The progress report of someone who does not look."""


def share(progress: Callable[[int, int], None], first: int, items: int, whole: int) -> Callable[[int, int], None]:
    """The progress report of work on `items` of a `whole`, where `first` of them are done."""
    return lambda done, total: progress(first + items * done // max(total, 1), whole)


@dataclass(frozen=True)
class Job:
    """What a stage works with.

    `inputs` and `digests` are the folders of the finished stages that it needs, and the hashes of their content; it
    fills `out`, and what it keeps in `work` survives a crash, on another machine too, but for names that begin with a
    dot, which are of what is not whole yet. `kept` outlives runs and is shared by all runs of a home: what was paid for
    is kept there, and it decides no result. `progress` takes (done, total) and raises Interrupted to stop the work;
    `on_row` takes each row of training metrics. `read` is what the stage's `reads` gave when its key was made. `part`
    is the range of items, first to last (excluded), of a stage that is computed in parts; once they are all there, the
    stage's own body finds their folders, in order, in `parts`, and the sums of their counts in `counted`.
    """

    config: AlignConfig
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    kept: Path
    digests: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = _silent
    on_row: Callable[[dict[str, float]], None] | None = None
    read: Any = None
    part: tuple[int, int] = (0, 0)
    parts: tuple[Path, ...] = ()
    counted: Mapping[str, int] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """A folder in `work`, made where it is not there, for what is made anew by whoever computes the stage again."""
        folder = self.work / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder
