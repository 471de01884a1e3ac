"""The one tree of errors that Plumbline raises on purpose; each message names the thing, the value and the way out.

PlumblineError                 exit code 1
├── InputError                 exit code 2: what the user gave cannot be used
│   ├── ConfigError            a field is unknown, out of bounds, or contradicts another
│   ├── DataError              a dataset is missing, empty, or lacks a column or a class
│   └── ModelError             a model folder lacks a part, is unsafe, or does not fit the request
├── StageError                 exit code 2: what a stage was given, or found, is not fit to go on with
│   ├── OutOfMemoryError       the device's memory is too small for a stage
│   ├── SelfCheckError         a model gives a batch other numbers than a single sequence
│   ├── ScoreError             the reward model gave values that are not finite
│   ├── BudgetError            what may be spent on a judge is spent
│   ├── PairsError             the scores give no pair to learn from
│   ├── ValidationError        the pairs failed a critical expectation about the whole set
│   └── TrainingError          the loss stopped being finite
├── PromotionError             exit code 3: the version may not become the champion, and nothing was moved
├── NothingNewError            exit code 2: earlier rounds have used the prompts; a retraining is skipped, no failure
├── RecordError                exit code 1: what a run recorded cannot be read
├── NewerRecordError           exit code 1: a newer release recorded it; this one has to be upgraded to read it
├── Interrupted                exit code 130: the run was asked to stop, and did between two steps
├── ProcessError               exit code 1: the process of a stage was killed, or failed in a way of its own
├── StoreError                 exit code 1: the stage store could not be read or written
│   └── GoneError              what a stage is read from is not in the store any more
├── EndpointError              exit code 1: a judge's or an engine's endpoint could not be reached or understood
├── TrackingError              exit code 1: MLflow could not be reached or refused
└── StackError                 exit code 1: a server or worker on this machine did not start, or does not answer
"""

from collections.abc import Iterable
from dataclasses import dataclass

REFUSED = 3
"""The exit code of a command whose outcome is a refusal, by the gates or by a person."""


class PlumblineError(Exception):
    """Root of the tree; its message is shown to the user as one line."""

    exit_code = 1
    transient = False
    """Whether the same request may succeed a little later; set where the network or a busy server is at fault."""


class InputError(PlumblineError):
    """What the user gave cannot be used; nothing was computed from it."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """What is wrong with one field of the configuration, or between several."""

    fields: tuple[str, ...]
    """Their dotted names, `dpo.beta`; first the one that is to be looked at."""
    message: str
    """One sentence: the field, its value and the way out."""


class ConfigError(InputError):
    """A configuration field is unknown, out of bounds, or contradicts another; each such fault is in `faults`."""

    def __init__(self, message: str, faults: Iterable[Fault] = ()) -> None:
        """`message` is the line that is shown; `faults` is empty where there is nothing but it."""
        super().__init__(message)
        self.faults = tuple(faults)


class DataError(InputError):
    """A dataset is missing, empty, or lacks a column or a class."""


class ModelError(InputError):
    """A model folder lacks a part, is unsafe to load, or does not fit the request."""


class StageError(PlumblineError):
    """What a stage was given, or found, is not fit to go on with; the config or the models have to change."""

    exit_code = 2


class OutOfMemoryError(StageError):
    """The memory of the device is too small for a stage; the message has the estimate, and the fields that help."""


class SelfCheckError(StageError):
    """A model gives a batch other numbers than a single sequence, so none of them can be trusted."""


class ScoreError(StageError):
    """The reward model gave values that are not finite."""


class BudgetError(StageError):
    """What may be spent on a judge is spent before everything was judged; what it answered is kept."""


class PairsError(StageError):
    """The scores give no pair to learn from."""


class ValidationError(StageError):
    """The pairs failed a critical expectation about the whole set."""


class TrainingError(StageError):
    """Training diverged: the loss is not finite."""


class PromotionError(PlumblineError):
    """The version may not become the champion: it failed, was never judged, or the champion moved; nothing was done."""

    exit_code = REFUSED


class NothingNewError(PlumblineError):
    """Too few prompts are left that earlier rounds have not used; a retraining is skipped then, which is no failure."""

    exit_code = 2


class RecordError(PlumblineError):
    """What a run recorded cannot be read."""


class NewerRecordError(PlumblineError):
    """A newer release recorded it, so nothing can be said for or against it before Plumbline is upgraded."""


class Interrupted(PlumblineError):
    """The run was asked to stop. A `progress` function may raise it: a training first keeps a checkpoint."""

    exit_code = 130


class ProcessError(PlumblineError):
    """The process that computed a stage was killed, or failed in a way that nobody has foreseen."""


class StoreError(PlumblineError):
    """The stage store could not be read or written."""


class GoneError(StoreError):
    """What a stage is read from is not in the store any more; where the store does not give it, that is no proof."""


class EndpointError(PlumblineError):
    """A judge's or an engine's endpoint could not be reached, stayed busy, or gives no answers; others are kept."""


class TrackingError(PlumblineError):
    """MLflow could not be reached or refused a request."""


class StackError(PlumblineError):
    """A server or worker on this machine did not start, ended, or does not answer."""


def kind_of_error(name: str) -> type[PlumblineError] | None:
    """The class of this tree that has a name, as another process tells it; None where there is none."""
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, PlumblineError) else None
