"""The one tree of errors that Plumbline raises on purpose; each message names the thing, the value and the way out.

PlumblineError                 exit code 1
├── InputError                 exit code 2: what the user gave cannot be used
│   ├── ConfigError            a field is unknown, out of bounds, or contradicts another
│   ├── DataError              a dataset is missing, empty, or lacks a column or a class
│   └── ModelError             a model folder lacks a part, is unsafe, or does not fit the request
├── StageError                 exit code 2: what a stage was given, or found, is not fit to go on with
│   ├── ScoreError             the reward model gave values that are not finite
│   ├── PairsError             the scores give no pair to learn from
│   ├── ValidationError        the pairs failed a critical expectation about the whole set
│   └── TrainingError          the loss stopped being finite
├── StoreError                 exit code 1: the stage store could not be read or written
└── TrackingError              exit code 1: MLflow could not be reached or refused
"""


class PlumblineError(Exception):
    """Root of the tree; its message is shown to the user as one line."""

    exit_code = 1
    transient = False
    """Whether the same request may succeed a little later; set where the network or a busy server is at fault."""


class InputError(PlumblineError):
    """What the user gave cannot be used; nothing was computed from it."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration field is unknown, out of bounds, or contradicts another."""


class DataError(InputError):
    """A dataset is missing, empty, or lacks a column or a class."""


class ModelError(InputError):
    """A model folder lacks a part, is unsafe to load, or does not fit the request."""


class StageError(PlumblineError):
    """What a stage was given, or found, is not fit to go on with; the config or the models have to change."""

    exit_code = 2


class ScoreError(StageError):
    """The reward model gave values that are not finite."""


class PairsError(StageError):
    """The scores give no pair to learn from."""


class ValidationError(StageError):
    """The pairs failed a critical expectation about the whole set."""


class TrainingError(StageError):
    """Training diverged: the loss is not finite."""


class StoreError(PlumblineError):
    """The stage store could not be read or written."""


class TrackingError(PlumblineError):
    """MLflow could not be reached or refused a request."""
