"""The declaration of a stage: what it needs, what it reads of the configuration, what it makes, and its body."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.config import AlignConfig
from alignment.kinds import Kinds
from alignment.stages.job import Counts, Job
from alignment.stages.store import StageRef

Body = Callable[[Job], Counts]
Refs = Mapping[str, StageRef]
Needs = tuple[str, ...]

MODELS = ("torch", "transformers", "tokenizers", "accelerate")
"""The libraries that decide what a model computes."""


@dataclass(frozen=True)
class Parts:
    """How a stage is computed in parts, which stay what they are: the stage is a list of them.

    The stage's own body finds them listed in its folder, so that tables are read through it, and writes what is of all
    of them: it returns `job.counted`, or refuses what they are together.
    """

    title: str
    split: Callable[[AlignConfig, Refs], list[tuple[int, int]]]
    """The ranges of items, first to last (excluded), that are computed together; at least one."""
    body: Body
    """Fills the folder of one part, whose range is `job.part`."""


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline, declared beside its body.

    What `reads` gives enters the stage's key, with the content of what it needs, the code of the module that it stands
    in (and of what that imports), the kinds that it uses and the versions of `libraries`.
    """

    name: str
    title: str
    """What it does, in a few words: the name of its Prefect task."""
    body: Body
    module: str
    needs: Callable[[AlignConfig], Needs]
    reads: Callable[[AlignConfig], Any]
    makes: Callable[[AlignConfig], str]
    """What it will make at most, for a person who reads the plan."""
    slots: Callable[[AlignConfig], int]
    """How many GPU slots it takes."""
    processes: Callable[[AlignConfig], int]
    """How many processes compute it together, each with a device of its own where there are some."""
    trains: Callable[[AlignConfig], bool]
    """Whether it trains, and so keeps checkpoints: a stop then waits for the end of a step."""
    when: Callable[[AlignConfig], bool]
    """Whether a configuration asks for it at all."""
    uses: Callable[[AlignConfig], Iterable[tuple[Kinds[Any], str]]]
    """The open kinds whose code it runs."""
    libraries: tuple[str, ...]
    parts: Parts | None


def stage(
    *,
    title: str,
    needs: Needs | Callable[[AlignConfig], Needs],
    reads: Callable[[AlignConfig], Any],
    makes: Callable[[AlignConfig], str],
    slots: int | Callable[[AlignConfig], int] = 0,
    processes: int | Callable[[AlignConfig], int] = 1,
    trains: bool | Callable[[AlignConfig], bool] = False,
    when: Callable[[AlignConfig], bool] = lambda _: True,
    uses: Callable[[AlignConfig], Iterable[tuple[Kinds[Any], str]]] = lambda _: (),
    libraries: tuple[str, ...] = (),
    parts: Parts | None = None,
) -> Callable[[Body], Stage]:
    """Declare the decorated body as a stage; the function's name is the stage's. See `Stage` for each argument."""

    def declare(body: Body) -> Stage:
        return Stage(
            name=body.__name__,
            title=title,
            body=body,
            module=body.__module__,
            needs=_function(needs),
            reads=reads,
            makes=makes,
            slots=_function(slots),
            processes=_function(processes),
            trains=_function(trains),
            when=when,
            uses=uses,
            libraries=libraries,
            parts=parts,
        )

    return declare


def _function(value: Any) -> Callable[[AlignConfig], Any]:
    return value if callable(value) else lambda _: value
