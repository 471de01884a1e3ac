"""What becomes of the policy: its evaluation, the gates, the registry, and what a sweep or a promotion may do."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alignment.aliases import ANCHOR, CHALLENGER, CHAMPION, PREVIOUS
from alignment.config.group import Group, open_to
from alignment.config.inputs import RewardPart, several
from alignment.config.precision import Precision
from alignment.kinds import GATES, JUDGES, LOSSES


@open_to(JUDGES)
class EvaluationConfig(Group):
    """How the base and the aligned model are compared on held-out prompts."""

    samples_per_prompt: int = Field(2, ge=1, le=1_024, description="Fresh samples per held-out prompt and model")
    precision: Precision = Field("fp32", description="Precision of the log-probs of both models")
    bootstrap: int = Field(2_000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the confidence intervals")
    judge: Annotated[str, JUDGES] = Field(
        "none", description="`grammar` also measures the fraction of sentences that the built-in grammar parses"
    )
    anchor: str = Field(
        "",
        description="The first base of several rounds, to which the drift is measured too: a hub name, a local folder, "
        "or `models:/name@alias`; empty measures none",
    )
    gold: tuple[RewardPart, ...] = Field(
        (), description="Second judges that label nothing, as reward.parts has them; each one's gain is in the report"
    )
    gold_fraction: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Part of the texts, by their hash, that trains second judges alone, where the reward is trained "
        "here too; 0: both learn from the same texts",
    )
    real_texts: str = Field(
        "",
        description="Real texts that both models' samples are compared with: the rows of `data` that nothing was "
        "trained on, or others as data.path takes them; empty: they are compared with none",
    )
    real_column: str = Field("", description="Column of them that holds the text; empty: data.text_column")
    real_rows: int = Field(
        5_000, ge=100, le=1_000_000, description="How many real texts to use, at most, drawn with the seed"
    )
    tasks: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...] = Field(
        (),
        max_length=32,
        description="Tasks of lm-eval that both models are measured on: names, or YAML files of your own; the aligned "
        "model may not lose more than gates.max_task_drop",
    )
    task_rows: int = Field(0, ge=0, le=1_000_000, description="Samples of each of those tasks, the first; 0: all")
    table_rows: int = Field(32, ge=5, le=10_000, description="Sample texts kept in the report, before and after")

    @model_validator(mode="after")
    def _gold_judges_differ(self) -> Self:
        return several(self, "evaluation.gold", "gold")


@open_to(GATES)
class GatesConfig(Group):
    """Bounds that the evaluation must keep before the model is registered."""

    min_gain: float = Field(
        0.0, ge=-100, le=100, description="Lower end of the reward gain's confidence interval must exceed this"
    )
    min_win_rate: float = Field(
        0.55, ge=0, le=1, description="Prompts on which the aligned model scores higher, at least"
    )
    max_unscored_rise: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Fraction of the aligned model's samples without a score, less the base's, at most",
    )
    min_preference_accuracy: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Lower end of the accuracy's interval on held-out pairs must exceed this, where pairs are given",
    )
    min_perplexity_ratio: float = Field(
        0.7, ge=0, le=1, description="Perplexity under the base, aligned over base samples, at least"
    )
    # This bound and the next: `python -m benchmarks.gates --report` of 2026-11-27, 192 runs.
    max_perplexity_ratio: float = Field(
        1.10, ge=1, le=1_000, description="Perplexity under the base, aligned over base samples, at most"
    )
    max_kl_per_token: float = Field(
        0.20, gt=0, le=100, description="KL(policy || reference) in nats per token, at most"
    )
    min_reward_sd_ratio: float = Field(0.35, ge=0, le=10, description="Reward SD, aligned over base, at least")
    max_entropy_change: float = Field(0.20, gt=0, le=10, description="Relative move of the token entropy, at most")
    max_grammar_drop: float = Field(
        0.10, ge=0, le=1, description="Drop of the fraction of grammatical sentences, at most, where it is judged"
    )
    max_task_drop: float = Field(
        0.02, ge=0, le=1, description="Drop of the accuracy on any of evaluation.tasks, at most, where there are some"
    )
    max_anchor_kl_per_token: float = Field(
        0.40, gt=0, le=100, description="KL(policy || anchor) in nats per token, at most, where an anchor is given"
    )
    max_anchor_perplexity_ratio: float = Field(
        1.25,
        ge=1,
        le=1_000,
        description="Perplexity under the anchor, aligned over the anchor's own samples, at most, where one is given",
    )
    min_anchor_reward_sd_ratio: float = Field(
        0.20, ge=0, le=10, description="Reward SD, aligned over the anchor, at least, where one is given"
    )
    max_seen_bigrams_drop: float = Field(
        0.10,
        ge=0,
        le=1,
        description="Drop of the share of bigrams that real texts have, at most, where texts are compared with some",
    )
    max_realism_rise: float = Field(
        0.20,
        ge=0,
        le=1,
        description="Rise of the AUC by which texts are told from real ones, at most, where they are compared",
    )


class RegistryConfig(Group):
    """Where MLflow keeps the run and the model; names that it would refuse at the end of a run are refused here."""

    experiment: str = Field("plumbline", min_length=1, max_length=200, description="MLflow experiment of the run")
    model_name: str = Field(
        "plumbline-quickstart",
        min_length=1,
        max_length=200,
        description="Name under which a passing model is registered",
    )
    alias: str = Field(
        CHALLENGER,
        min_length=1,
        max_length=100,
        description="Alias that a passing model gets; `champion` and `previous` belong to the promotion",
    )
    adapter: Literal["merged", "separate"] = Field(
        "merged",
        description="What is registered of a policy with an adapter: the `merged` model, or the adapter `separate` "
        "from its base, which stays on this machine and is pinned by its content",
    )
    review_rows: int = Field(
        32,
        ge=0,
        le=1_000,
        description="Held-out prompts whose texts stand in MLflow's pages with their scores, for people to read and "
        "rate; 0 puts none there",
    )

    @model_validator(mode="after")
    def _names_are_mlflows(self) -> Self:
        name, alias = self.model_name, self.alias
        if not self.experiment.strip() or not self.experiment.isprintable():
            raise ValueError(
                f"registry.experiment = {self.experiment!r}: MLflow's page needs a name that is not blank and has no "
                "control characters"
            )
        if not name.strip() or name in {".", ".."} or not name.isprintable() or set(name) & set("/:@\"'`"):
            raise ValueError(
                f"registry.model_name = {name!r}: MLflow needs a name that is not blank and has no '/', ':', '@', "
                "quotes or control characters"
            )
        if name != name.strip() or name.startswith("..") or set(name) & set("?\\"):
            raise ValueError(
                f"registry.model_name = {name!r}: MLflow registers such a name and does not find it again; leave out "
                "'?', '\\', blanks at either end and '..' at the start"
            )
        if not re.fullmatch(r"[A-Za-z0-9_-]+", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError(
                f"registry.alias = {alias!r}: MLflow needs an alias of letters, digits, '-' and '_' that is not "
                "`latest` nor `v` and a number"
            )
        if alias.lower() in {CHAMPION, PREVIOUS}:
            raise ValueError(
                f"registry.alias = {alias!r}: only a promotion moves that alias; take another, such as `challenger`"
            )
        if alias.lower() == ANCHOR:
            raise ValueError(
                f"registry.alias = {alias!r}: that alias is the first base's; take another, such as `challenger`"
            )
        return self


class GridConfig(Group):
    """What a sweep tries: every combination, each on the same pairs."""

    losses: tuple[Annotated[str, LOSSES], ...] = Field(
        ("hinge", "sigmoid"), min_length=1, max_length=16, description="Losses to try"
    )
    betas: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.3, 0.5), min_length=1, max_length=16, description="Values of beta to try"
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1e-4, 3e-4), min_length=1, max_length=16, description="Peak learning rates to try"
    )


class PromotionConfig(Group):
    """Who may make a version the champion, and what happens to one that was made so by hand."""

    automatic: bool = Field(False, description="Allow a promotion without a person's approval (`--yes`)")
    timeout_hours: float = Field(
        72.0, gt=0, le=24 * 90, description="Hours that a promotion waits for an approval; then it is rejected"
    )
    remind_hours: float = Field(
        24.0, ge=0, le=24 * 90, description="Hours between two reminders of a promotion that waits; 0 sends none"
    )
    when_ungated: Literal["revert", "warn"] = Field(
        "revert",
        description="What the receiver does where the champion was moved by hand to a version that never passed the "
        "gates: `revert` moves it back, `warn` only says so",
    )
