"""Where a run is: which of its stages is at work, how far it has come, and how long the whole run still takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from time import monotonic
from typing import Literal

from alignment.stages.store import StageRef

State = Literal["waiting", "running", "queued", "found", "computed", "stopped"]
"""Of a stage: "waiting" is for its turn, "queued" for a GPU slot, "found" for found in the store."""


@dataclass(frozen=True)
class Event:
    """Something happened to a stage: it started, moved on, was found in the store, or was computed.

    "waiting" is for a GPU slot; a "heading" says what the stages after it belong to.
    """

    stage: str
    kind: Literal["started", "progress", "cached", "computed", "waiting", "heading"]
    done: int = 0
    total: int = 0
    ref: StageRef | None = None
    number: int = 0
    """Which of the run's `of` stages it is, from 1; 0 where it belongs to no run of several stages."""
    of: int = 0
    left: float | None = None
    """Seconds that the whole run still takes, by earlier runs of the same stages; None where nothing is known."""
    rate: float | None = None
    """Steps, samples or texts of the stage in a second; None before that can be told."""
    row: Mapping[str, float] | None = None
    """The last row of a training's metrics, where there is one."""
    who: str = ""
    """Of "waiting": who holds the slot, and since when, in words."""


SURE_AFTER = 3.0  # seconds of a stage after which its own pace says how long it still takes


@dataclass
class StageProgress:
    """One stage of a run, as it stands."""

    name: str
    title: str
    trains: bool = False
    expected: float | None = None
    """The seconds that it takes, by earlier runs; None where nothing is known."""
    state: State = "waiting"
    done: int = 0
    total: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    """How long it took, once it is finished."""
    row: Mapping[str, float] = field(default_factory=dict)
    who: str = ""
    began: float = 0.0
    paced: tuple[float, int] = (0.0, 0)
    """When its pace is counted from, and how much was done then."""
    parts: dict[str, float] = field(default_factory=dict)
    """The parts that are finished or at work, each with how much of it is done, from 0 to its items."""

    def rate(self, now: float) -> float | None:
        """What is done in a second; None before that can be told."""
        since, before = self.paced
        if self.state != "running" or now - since < SURE_AFTER or self.done <= before:
            return None
        return (self.done - before) / (now - since)

    def left(self, now: float) -> float | None:
        """The seconds that it still takes; None where that is not known, as once it takes longer than was expected."""
        if self.state in {"found", "computed"}:
            return 0.0
        if self.state != "running":
            return self.expected
        rate = self.rate(now)
        by_pace = (self.total - self.done) / rate if rate and self.total else None
        spent = now - self.began
        by_earlier = None if self.expected is None or spent > self.expected else self.expected - spent
        known = (by_pace, by_earlier) if self.trains or self.parts else (by_earlier, by_pace)
        return next((seconds for seconds in known if seconds is not None), None)


@dataclass(frozen=True)
class Points:
    """Which of a run's points its stages are of: a sweep goes through them once for each, any other run once."""

    done: int = 0
    of: int = 1
    spent: float = 0.0
    """The seconds that those took which are done."""

    @property
    def place(self) -> str:
        """As in `point 2 of 8`; empty where there is one alone."""
        return f"point {self.done + 1} of {self.of}" if self.of > 1 else ""

    def after(self, seconds: float) -> float | None:
        """The seconds that the further points take, if this one takes `seconds` in all.

        None at the first one, which computes what all of them share.
        """
        further = self.of - self.done - 1
        return further * seconds if self.done or not further else None


ALONE = Points()


class Progress:
    """The stages of a run in their order. Any thread may tell it what happened."""

    def __init__(
        self, stages: Sequence[StageProgress], *, points: Points = ALONE, clock: Callable[[], float] = monotonic
    ) -> None:
        """`points` says which of a sweep's points the stages are of."""
        self.stages = {stage.name: stage for stage in stages}
        self.points = points
        self.current: StageProgress | None = None
        self.began = clock()
        self.changes = 0
        self._clock = clock
        self._lock = RLock()

    def split(self, name: str, ranges: Sequence[tuple[int, int]]) -> None:
        """Say that a stage is computed in parts: ranges of items, first to last (excluded)."""
        with self._lock:
            self.stages[name].total = sum(stop - start for start, stop in ranges)

    def row(self, name: str, row: Mapping[str, float]) -> None:
        """Note a row of a training's metrics."""
        with self._lock:
            self.stages[name].row = row
            self.changes += 1

    def note(self, event: Event) -> Event:
        """Take notice of an event; returns it with its place in the run, the time left, and the last row."""
        name, _, part = event.stage.partition(" ")
        with self._lock:
            stage = self.stages.get(name)
            if stage is None:
                return event
            self.current = stage
            self.changes += 1
            if part:
                self._of_part(stage, part, event)
            else:
                self._of_whole(stage, event)
            number = list(self.stages).index(name) + 1
            return replace(
                event, number=number, of=len(self.stages), left=self.left(), row=stage.row or None, rate=self.rate()
            )

    def left(self) -> float | None:
        """The seconds that the whole run still takes; None where the time of a stage is not known."""
        now = self._clock()
        with self._lock:
            here = _sum([stage.left(now) for stage in self.stages.values()])
        return None if here is None else _sum([here, self.points.after(now - self.began + here)])

    def fraction(self) -> float:
        """How much of the run is done, from 0 to 1: by time where that is known, else by points and stages.

        A stage that takes longer than was expected counts as nearly done, so that the others do not count anew.
        """
        now = self._clock()
        with self._lock:
            each = [(stage.left(now), stage.expected) for stage in self.stages.values()]
            stages = sum(map(_fraction, self.stages.values())) / max(1, len(self.stages))
        spent = now - self.began
        here = _sum([0.0 if left is None and expected is not None else left for left, expected in each])
        if here is None or spent + here <= 0:
            return (self.points.done + stages) / self.points.of
        after = self.points.after(spent + here)
        if after is None:
            return (self.points.done + spent / (spent + here)) / self.points.of
        spent += self.points.spent
        return spent / (spent + here + after)

    def stop(self) -> None:
        """The run ends: what is at work is not finished."""
        with self._lock:
            for stage in self.stages.values():
                if stage.state in {"running", "queued"}:
                    stage.state = "stopped"
            self.changes += 1

    def rate(self) -> float | None:
        """What the stage at work does in a second."""
        with self._lock:
            return None if self.current is None else self.current.rate(self._clock())

    def left_of_stage(self) -> float | None:
        """The seconds that the stage at work still takes."""
        with self._lock:
            return None if self.current is None else self.current.left(self._clock())

    def _of_whole(self, stage: StageProgress, event: Event) -> None:
        if event.kind in {"cached", "computed"}:
            stage.state = "found" if event.kind == "cached" else "computed"
            stage.counts = event.ref.counts if event.ref else {}
            stage.seconds = event.ref.seconds if event.ref else 0.0
            stage.done = stage.total
        else:
            self._go_on(stage, event)
            if event.kind == "progress":
                self._move(stage, event.done, event.total)

    def _move(self, stage: StageProgress, done: int, total: int) -> None:
        """Note what is done. The pace begins with the first report, and anew with a second pass over the same."""
        if done < stage.done or total != stage.total:
            stage.paced = (self._clock(), done)
        stage.done, stage.total = done, total

    def _of_part(self, stage: StageProgress, part: str, event: Event) -> None:
        """A part counts by its items; one that was found in the store took no time of this run."""
        first, _, last = part.partition("-")
        items = int(last) - int(first)
        self._go_on(stage, event)
        if event.kind == "progress":
            stage.parts[part] = items * event.done / max(1, event.total)
        elif event.kind in {"cached", "computed"}:
            stage.parts[part] = items
        stage.done = round(sum(stage.parts.values()))
        stage.total = max(stage.total, stage.done)
        if event.kind == "cached":
            stage.paced = (self._clock(), stage.done)

    def _go_on(self, stage: StageProgress, event: Event) -> None:
        if event.kind == "waiting":
            stage.state, stage.who = "queued", event.who
        elif stage.state != "running":
            stage.state, stage.who = "running", ""
            stage.began = self._clock()
            stage.paced = (stage.began, stage.done)


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def _fraction(stage: StageProgress) -> float:
    if stage.state in {"found", "computed"}:
        return 1.0
    return stage.done / stage.total if stage.total else 0.0
