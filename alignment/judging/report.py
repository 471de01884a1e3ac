"""What an evaluation found and what the gates made of it: plain records that every later stage reads."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record; unknown fields are refused. As JSON an infinite value is a string, so it can be read again."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class ModelMetrics(Record):
    """One model's fresh samples on the held-out prompts."""

    reward_mean: float
    reward_sd: float
    entropy: float  # Shannon, nats, of the unigram distribution over all generated tokens
    perplexity: float  # of the samples under the base model
    distinct_1: float
    distinct_2: float
    distinct_3: float
    repetition: float  # repeated 3-grams within a text, mean
    length: float  # mean completion length in tokens, EOS included
    finished: float  # fraction that ended by EOS
    grammatical: float | None = None  # fraction of sentences the built-in grammar parses; None where not judged
    gold_sentiment: float | None = None  # mean polarity of those sentences, -1 to 1, by a judge that labels nothing


class Delta(Record):
    """The aligned model against the base, on the same prompts and random numbers."""

    reward_gain: float  # mean over prompts of aligned minus base
    reward_gain_ci: tuple[float, float]  # paired bootstrap over prompts
    reward_gain_in_sd: float  # reward_gain over the base's reward SD
    reward_sd_ratio: float
    win_rate: float  # over prompts, ties count one half
    win_rate_ci: tuple[float, float]
    win_rate_length_matched: (
        float | None
    )  # only prompts whose mean lengths differ by at most 10%; None if there are none
    perplexity_ratio: float
    kl: float  # KL(policy || reference) in nats a sequence, estimated on the policy's samples
    kl_per_token: float
    entropy_change: float  # nats
    length_change: float  # tokens
    grammar_drop: float | None = None


class Drift(Record):
    """How far the base and the aligned model are from the anchor, the first base of all rounds: drift adds up."""

    base_kl_per_token: float  # KL(base || anchor), nats, on the base's samples
    kl_per_token: float  # KL(aligned || anchor), nats, on the aligned model's samples
    base_perplexity_ratio: float  # perplexity under the anchor, the base's samples over the anchor's own
    perplexity_ratio: float  # the same for the aligned model's samples
    anchor_reward_mean: float  # of the anchor's own fresh samples on the same prompts
    reward_gain: float  # mean reward of the aligned model's samples minus that
    reward_sd_ratio: float  # reward SD of the aligned model's samples over the anchor's


class EvalReport(Record):
    """Before and after on the same held-out prompts."""

    prompts: int
    samples_per_prompt: int
    confidence: float = 0.95  # level of the intervals in `delta`
    base: ModelMetrics
    aligned: ModelMetrics
    delta: Delta
    drift: Drift | None = None  # None where no anchor was given
    winners_mean: float  # mean score of the training pairs' chosen texts: the biased baseline, never the honest one
    base_validation_perplexity: float | None = None  # of texts held out from its training; None where it was given
    reward_validation_accuracy: float | None = None  # on texts held out from its training; None where it was given


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
        """The bound as people write it: `>= 0.55`, `<= 0.2`, or `0.7..1.25`; `> 0` if strict."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g}..{self.high:g}"
        equal = "" if self.strict else "="
        return f">{equal} {self.low:g}" if self.low is not None else f"<{equal} {self.high:g}"


class Judgement(Record):
    """All gates, the verdict, and the sentence that says why the model may or may not be registered."""

    verdict: Literal["pass", "fail"]
    sentence: str
    gates: tuple[GateResult, ...]


class SampleRow(Record):
    """One held-out prompt's first sample before and after, with scores."""

    prompt: str
    base: str
    base_reward: float
    aligned: str
    aligned_reward: float
