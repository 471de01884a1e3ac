"""What an evaluation found and what the gates made of it: plain records that every later stage reads."""

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 4
"""The form of a run's record: 1 named each figure as a field, 2 kept whatever the metrics gave, 3 counts the samples
without a reward and has several rewards, 4 has notes on judges, real texts and engines."""


class Record(BaseModel):
    """A frozen record; unknown fields are refused. As JSON an infinite value is a string, so it can be read again."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


def as_json(record: BaseModel) -> Any:
    """A record as the values that JSON has: one that is not finite is a text, `NaN` or `Infinity`.

    It has to be of a model that writes them so, with pydantic's `ser_json_inf_nan="strings"`.
    """
    return json.loads(record.model_dump_json())


class MissingFigureError(AttributeError):
    """A figure that is not in a report, as one that did not apply, or that no metric gave at the time."""


class Figures(Record):
    """Figures by the names of their metrics, as attributes; what does not apply is not there."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, float | tuple[float, float] | None] = Field(init=False)

    def names(self) -> tuple[str, ...]:
        """Which figures there are."""
        return tuple(self.__pydantic_extra__ or {})

    def get(self, name: str) -> float | None:
        """A figure, or None where it does not apply."""
        value = (self.__pydantic_extra__ or {}).get(name)
        return value if isinstance(value, float) else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """The confidence interval of a figure, where it has one."""
        value = (self.__pydantic_extra__ or {}).get(f"{name}_ci")
        return value if isinstance(value, tuple) else None

    if TYPE_CHECKING:

        def __init__(self, **figures: float | tuple[float, float] | None) -> None:  # noqa: D107
            ...

        def __getattr__(self, name: str) -> float:  # noqa: D105
            ...

    else:

        def __getattr__(self, name: str) -> float:
            """A figure. Raises MissingFigureError where it does not apply."""
            try:
                return super().__getattr__(name)
            except AttributeError:
                raise MissingFigureError(name) from None


class ModelMetrics(Figures):
    """One model's fresh samples on the held-out prompts: a figure for each metric of one model."""


class Delta(Figures):
    """The aligned model against the base, on the same prompts, and random numbers where `engines` do not say else.

    `<name>_change` and `<name>_ratio` are of one model's metrics, the others of the metrics of both; `<name>_ci` is the
    interval of one.
    """

    if TYPE_CHECKING:
        reward_gain_ci: tuple[float, float]
        win_rate_ci: tuple[float, float]


class Drift(Figures):
    """How far the aligned model (and, as `base_<name>`, the base) is from the anchor, the first base of all rounds."""


class RewardResult(Record):
    """One of several rewards, on the same samples: a part of a sum, or a judge that labels nothing.

    Means are over the samples that it scored, the gain over the prompts that have one on both sides, with its interval.
    """

    name: str
    weight: float | None = None  # of a part of a sum, by which its scores are not multiplied here
    prompts: int
    base_mean: float
    aligned_mean: float
    gain: float
    gain_ci: tuple[float, float]
    unscored_base: int = 0
    unscored_aligned: int = 0
    note: str = ""  # what a reader of its scores has to know, as the end of a sentence about it


class Preferences(Record):
    """How the aligned model ranks held-out pairs, one of each prompt, by its implicit reward against the base.

    The implicit reward of a completion is beta * (log p under the model - log p under the base), in nats; the accuracy
    is the fraction of pairs whose chosen side has the higher one, ties counted half, so that the base's is 0.5; the
    margin is the mean of chosen minus rejected. Intervals are by bootstrap over the pairs.
    """

    pairs: int
    left_out: int  # held-out prompts whose row gives no pair, such as one that exceeds the context
    accuracy: float
    accuracy_ci: tuple[float, float]
    margin: float
    margin_ci: tuple[float, float]


class RealTexts(Record):
    """Real texts of the domain, beside which both models' samples were judged.

    `perplexity` (a word) and `seen_bigrams` are those of `held_out` of them, under the model of the `fitted` others:
    what a text that is real can be expected to have.
    """

    fitted: int
    held_out: int
    perplexity: float
    seen_bigrams: float


class Engines(Record):
    """What drew the samples, where that is not this project's own engine for all of them, by the engines' names."""

    training: str  # empty where pairs were given
    evaluation: str  # of both models' samples
    common_random_numbers: bool  # whether both models had the same


class TaskResult(Record):
    """What both models reach on a task that has nothing to do with the reward: the mean of a metric over its samples.

    More is better; the errors are standard errors, None where lm-eval gives none.
    """

    task: str
    metric: str
    samples: int
    base: float
    base_error: float | None
    aligned: float
    aligned_error: float | None

    @property
    def drop(self) -> float:
        """By how much the aligned model is worse."""
        return self.base - self.aligned


class EvalReport(Record):
    """Before and after on the same held-out prompts; `alignment.judging.records` reads those of older releases too."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: int = Field(SCHEMA, alias="schema", ge=SCHEMA, le=SCHEMA)
    prompts: int
    samples_per_prompt: int
    compared: int | None = None  # prompts with a reward on both sides; 0 without a reward; None: all, in older records
    unscored_base: int = 0  # samples without a reward
    unscored_aligned: int = 0
    confidence: float = 0.95  # level of the intervals in `delta`
    base: ModelMetrics
    aligned: ModelMetrics
    delta: Delta
    drift: Drift | None = None  # None where no anchor was given
    winners_mean: float | None  # mean reward of the pairs' chosen texts: the biased baseline; None where it scored none
    parts: tuple[RewardResult, ...] = ()  # of a sum
    gold: tuple[RewardResult, ...] = ()  # second judges that label nothing
    preferences: Preferences | None = None  # None where no pairs were given
    tasks: tuple[TaskResult, ...] = ()  # of lm-eval
    real_texts: RealTexts | None = None  # None where samples were compared with none
    engines: Engines | None = None  # None where the engine `local` drew all samples, with common random numbers
    precision: str = "fp32"  # of the log-probs of both models
    base_validation_perplexity: float | None = None  # of texts held out from its training; None where it was given
    reward_validation_accuracy: float | None = None  # on what was held out from its training; None where it was given

    @property
    def has_reward(self) -> bool:
        """Whether a reward was configured, and so can be judged."""
        return self.compared != 0


class GateResult(Record):
    """One gate: passed where `value` lies within `low`..`high` (None: open at that end), between them if strict."""

    name: str
    value: float
    low: float | None
    high: float | None
    passed: bool
    why: str  # one clause: what a failure of this gate means
    strict: bool = False  # a value on a bound fails

    @property
    def bound(self) -> str:
        """The bound as people write it: `>= 0.55`, `<= 0.2`, `0.7..1.25` or `finite`; `> 0` if strict."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g}..{self.high:g}"
        if self.low is None and self.high is None:
            return "finite"
        equal = "" if self.strict else "="
        return f">{equal} {self.low:g}" if self.low is not None else f"<{equal} {self.high:g}"


class Judgement(Record):
    """All gates, the verdict, and the sentence that says why the model may or may not be registered."""

    verdict: Literal["pass", "fail"]
    sentence: str
    gates: tuple[GateResult, ...]
    not_applied: dict[str, str] = {}  # gates that could not be applied, and why


class SampleRow(Record):
    """One held-out prompt's first sample before and after, with scores.

    `prompt` is its text for people; `prompt_ids`, `messages` and `columns` are what `alignment.rows.Prompt` says, and
    empty in older records.
    """

    prompt: str
    base: str
    base_reward: float | None
    aligned: str
    aligned_reward: float | None
    prompt_ids: tuple[int, ...] = ()
    messages: str = ""
    columns: str = ""

    @property
    def shown(self) -> tuple[str, str, str]:
        """What people read: of a chat its last turn and both answers, else the prompt and both whole texts."""
        if not self.messages:
            return self.prompt, self.base, self.aligned
        last = str(json.loads(self.messages)[-1].get("content") or "")
        return last, self.base.removeprefix(self.prompt), self.aligned.removeprefix(self.prompt)
