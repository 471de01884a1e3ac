"""The configuration of a run: one frozen model that is YAML's schema, the flags, the UI's form and MLflow's params."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic import ValidationError as PydanticError
from pydantic_core import PydanticCustomError

from alignment.errors import ConfigError
from alignment.yaml_file import read_yaml

Loss = Literal["sigmoid", "hinge", "ipo", "robust"]
Strategy = Literal["best_vs_worst", "best_vs_rest", "all_pairs", "best_vs_random"]
Precision = Literal["fp32", "bf16"]

MODEL_SOURCE = "a hub name, a local folder, `models:/name@alias`, or `train` to train one here from `data`"


class Group(BaseModel):
    """A group of fields: frozen; unknown names are refused, and a number may be given as text, not as true or false."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        parts = value if isinstance(value, list | tuple) else [value]
        wanted = cls.model_fields[str(info.field_name)].annotation
        if wanted is not bool and any(isinstance(part, bool) for part in parts):
            raise PydanticCustomError("truth", "Input should not be true or false")
        return value


G = TypeVar("G", bound=Group)


def _at_most(group: G, name: str, low: str, high: str) -> G:
    if getattr(group, low) > getattr(group, high):
        raise ValueError(f"{name}.{low} = {getattr(group, low)} exceeds {name}.{high} = {getattr(group, high)}")
    return group


def _multiple(group: G, name: str, product: str, factor: str) -> G:
    whole, part = getattr(group, product), getattr(group, factor)
    if whole % part:
        raise ValueError(f"{name}.{product} = {whole} is not a multiple of {name}.{factor} = {part}")
    return group


class DataConfig(Group):
    """Labelled text: trains the base and reward model where asked to, and gives the prompts."""

    path: str = Field(
        "grammar",
        min_length=1,
        description="`grammar` (built in), a .parquet/.csv/.jsonl file, or a dataset's name on the hub",
    )
    split: str = Field("train", min_length=1, description="Split to read, for a dataset from the hub")
    text_column: str = Field("text", min_length=1, description="Column that holds the text")
    label_column: str = Field(
        "label", description="Column that holds the class; empty where there is none and no reward model is trained"
    )
    positive_label: str = Field(
        "1",
        min_length=1,
        coerce_numbers_to_str=True,
        description="Value of the label column that counts as positive; 1, 1.0 and true are one value",
    )
    negative_label: str = Field(
        "",
        coerce_numbers_to_str=True,
        description="Value that counts as negative, where the column has more than two; texts with another are dropped "
        "and counted; empty: the one other value",
    )
    rows: int = Field(12_000, ge=0, le=10_000_000, description="Rows to use, drawn with the seed; 0 uses all")
    min_chars: int = Field(1, ge=1, le=1_000_000, description="Shorter texts are dropped, and counted")
    max_chars: int = Field(100_000, ge=1, le=10_000_000, description="Longer texts are dropped, and counted")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _at_most(self, "data", "min_chars", "max_chars")


class BaseConfig(Group):
    """The policy's starting point, which is also DPO's reference."""

    model: str = Field("train", min_length=1, description=f"Base model: {MODEL_SOURCE}")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit, for a model from the hub")
    vocab_size: int = Field(1_024, ge=300, le=200_000, description="Byte-level BPE vocabulary, when trained here")
    layers: int = Field(2, ge=1, le=96, description="Transformer layers, when trained here")
    width: int = Field(128, ge=8, le=16_384, description="Embedding width, when trained here")
    heads: int = Field(4, ge=1, le=128, description="Attention heads, when trained here; must divide the width")
    context: int = Field(64, ge=8, le=131_072, description="Longest sequence in tokens, when trained here")
    steps: int = Field(450, ge=1, le=10_000_000, description="Optimiser steps, when trained here")
    batch_size: int = Field(32, ge=1, le=65_536, description="Sequences a step, when trained here")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="Peak learning rate, when trained here")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        return _multiple(self, "base", "width", "heads")


class RewardConfig(Group):
    """The reward model: a sequence classifier whose raw logit of the positive class labels the pairs."""

    model: str = Field("train", min_length=1, description=f"Reward model: {MODEL_SOURCE}")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit, for a model from the hub")
    positive_class: str = Field(
        "auto",
        min_length=1,
        coerce_numbers_to_str=True,
        description="Name of the class to reward, or its index where no class is named so; `auto` takes POSITIVE, or a "
        "scalar head",
    )
    layers: int = Field(2, ge=1, le=96, description="Transformer layers, when trained here")
    width: int = Field(64, ge=8, le=16_384, description="Embedding width, when trained here")
    heads: int = Field(4, ge=1, le=128, description="Attention heads, when trained here; must divide the width")
    context: int = Field(64, ge=8, le=131_072, description="Longest text in tokens, when trained here")
    steps: int = Field(300, ge=1, le=10_000_000, description="Optimiser steps, when trained here")
    batch_size: int = Field(32, ge=1, le=65_536, description="Texts a step, when trained here, and while scoring x 8")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate, when trained here")
    min_opening: int = Field(
        24, ge=1, le=131_072, description="Training texts are cut at random to at least this many tokens"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        return _multiple(self, "reward", "width", "heads")


class PromptsConfig(Group):
    """How texts become prompts, and which of them are held out."""

    mode: Literal["first_tokens", "empty"] = Field(
        "first_tokens", description="`first_tokens` of each text, or the `empty` prompt (BOS alone)"
    )
    tokens_min: int = Field(
        8,
        ge=1,
        le=65_536,
        description="Shortest prompt in tokens of its text; BOS, where texts begin with it, is extra",
    )
    tokens_max: int = Field(
        8, ge=1, le=65_536, description="Longest prompt in tokens; the length is drawn from the range"
    )
    min_chars: int = Field(1, ge=1, le=1_000_000, description="Texts shorter than this give no prompt")
    max_chars: int = Field(100_000, ge=1, le=10_000_000, description="Texts longer than this give no prompt")
    exclude: str = Field(
        "",
        description="Text file of prompt ids, one a line, that are not trained on again, such as those of earlier "
        "rounds; empty excludes none",
    )
    count: int = Field(512, ge=1, le=10_000_000, description="Prompts to train on, at most")
    eval_count: int = Field(256, ge=2, le=1_000_000, description="Prompts held out for the evaluation, at most")
    min_eval: int = Field(
        16, ge=2, le=1_000_000, description="Prompts held out, at least, or else the run stops; eval_count where less"
    )
    eval_fraction: float = Field(
        0.25, gt=0, lt=1, description="Part of all prompts held out, chosen by the hash of their token ids"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _at_most(_at_most(self, "prompts", "tokens_min", "tokens_max"), "prompts", "min_chars", "max_chars")


class SamplingConfig(Group):
    """How the policy writes: the same settings make the pairs and the evaluation's texts."""

    samples_per_prompt: int = Field(4, ge=2, le=1_024, description="Samples a prompt, from which pairs are made")
    total_tokens: int = Field(64, ge=2, le=131_072, description="Longest prompt and completion together, in tokens")
    new_tokens_min: int = Field(
        0,
        ge=0,
        le=131_072,
        description="With new_tokens_max: draw each sample's length from this range; 0 switches it off",
    )
    new_tokens_max: int = Field(0, ge=0, le=131_072, description="Upper end of that range; 0 switches it off")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Softmax temperature; the KL figure is unbiased at 1 alone"
    )
    top_k: int = Field(
        0, ge=0, le=1_000_000, description="Keep the k likeliest tokens; 0 keeps all, as an unbiased KL needs"
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Keep the smallest set of tokens with this probability; 1 keeps all, as an unbiased KL needs",
    )
    batch_size: int = Field(256, ge=1, le=65_536, description="Sequences generated together")
    shard_prompts: int = Field(
        128, ge=1, le=1_000_000, description="Prompts a shard; a finished shard survives a crash"
    )
    precision: Precision = Field("fp32", description="Precision of the forward pass")
    cache: bool = Field(
        True,
        description="Keep what the model computed for earlier tokens; off, each token costs a pass over the whole "
        "text: the way out for a model whose cached steps the self-check refuses",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.new_tokens_min == 0) != (self.new_tokens_max == 0):
            raise ValueError("sampling.new_tokens_min and new_tokens_max go together: set both, or neither")
        return _at_most(self, "sampling", "new_tokens_min", "new_tokens_max")

    @property
    def plain(self) -> bool:
        """Whether samples come from the model's own distribution, under which their log-probs are taken."""
        return self.temperature == 1 and self.top_k == 0 and self.top_p == 1


class PairsConfig(Group):
    """How scored samples of one prompt become chosen and rejected."""

    strategy: Strategy = Field("best_vs_worst", description="Which samples of a prompt are paired")
    max_pairs: int = Field(0, ge=0, le=100_000_000, description="Pairs to keep, drawn with the seed; 0 keeps all")


class ValidationConfig(Group):
    """Bounds that the pairs must keep: rows outside are quarantined, sets outside stop the run."""

    min_gap: float = Field(0.05, ge=0, le=1_000, description="Row: chosen score minus rejected score, at least")
    min_tokens: int = Field(2, ge=1, le=131_072, description="Row: shortest completion in tokens")
    max_tokens: int = Field(4_096, ge=1, le=131_072, description="Row: longest completion in tokens")
    min_chars: int = Field(8, ge=1, le=1_000_000, description="Row: shortest text in characters, prompt included")
    max_chars: int = Field(20_000, ge=1, le=10_000_000, description="Row: longest text in characters, prompt included")
    max_length_ratio: float = Field(
        4.0, ge=1, le=1_000, description="Row: longer completion over shorter one, in tokens, at most"
    )
    min_pairs: int = Field(64, ge=1, le=100_000_000, description="Set: accepted pairs, at least")
    max_quarantined: float = Field(0.3, ge=0, le=1, description="Set: fraction of pairs quarantined, at most")
    max_duplicates: float = Field(0.05, ge=0, le=1, description="Set: fraction of pairs that repeat another, at most")
    chosen_longer_min: float = Field(0.2, ge=0, le=1, description="Set: P(chosen is longer), at least")
    chosen_longer_max: float = Field(0.8, ge=0, le=1, description="Set: P(chosen is longer), at most")
    max_length_correlation: float = Field(
        0.6, ge=0, le=1, description="Set: absolute correlation of score and length, at most"
    )
    min_distinct_prompts: int = Field(32, ge=1, le=10_000_000, description="Set: distinct prompts, at least")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low, high in (
            ("min_tokens", "max_tokens"),
            ("min_chars", "max_chars"),
            ("chosen_longer_min", "chosen_longer_max"),
        ):
            _at_most(self, "validation", low, high)
        return self


class DPOConfig(Group):
    """Direct preference optimisation of the policy against the frozen reference."""

    loss: Loss = Field("hinge", description="Loss on the margin: sigmoid, hinge, ipo, or robust (noisy labels)")
    beta: float = Field(0.5, gt=0, le=10, description="Strength of the pull towards the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Chance that a pair is labelled the wrong way round, for sigmoid and robust"
    )
    nll_weight: float = Field(
        0.0, ge=0, le=100, description="Weight of the added NLL of the chosen tokens (RPO); 0 is off"
    )
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Learning rate after the warm-up")
    optimizer: Literal["adamw", "rmsprop"] = Field("adamw", description="Optimiser")
    warmup_steps: int = Field(
        15, ge=0, le=1_000_000, description="Steps of linear warm-up; all steps where there are fewer"
    )
    steps: int = Field(150, ge=1, le=10_000_000, description="Optimiser steps")
    batch_size: int = Field(8, ge=1, le=65_536, description="Pairs a step and device, before accumulation")
    accumulation: int = Field(1, ge=1, le=4_096, description="Batches accumulated into one step")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, le=1_000, description="Gradient norm is clipped to this; 0 switches it off")
    stop_chosen_drop: float = Field(
        4.0, ge=0, le=1_000, description="Stop once the chosen log-prob fell by this many nats; 0 switches it off"
    )
    log_every: int = Field(5, ge=1, le=100_000, description="Steps between logged metrics")
    checkpoint_every: int = Field(50, ge=1, le=1_000_000, description="Steps between checkpoints")
    precision: Precision = Field(
        "fp32",
        description="Precision of the policy's forward pass; the reference's log-probs are fp32, so with bf16 the "
        "margin starts near 0, not at it",
    )

    @model_validator(mode="after")
    def _smoothing_has_an_effect(self) -> Self:
        if self.label_smoothing and self.loss in {"hinge", "ipo"}:
            raise ValueError(
                f"dpo.label_smoothing = {self.label_smoothing:g} has no effect on the {self.loss} loss: "
                "set it to 0, or take the sigmoid or robust loss"
            )
        return self


class EvaluationConfig(Group):
    """How the base and the aligned model are compared on held-out prompts."""

    samples_per_prompt: int = Field(2, ge=1, le=1_024, description="Fresh samples a held-out prompt and model")
    bootstrap: int = Field(2_000, ge=100, le=1_000_000, description="Resamples of the paired bootstrap")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the confidence intervals")
    judge: Literal["none", "grammar"] = Field(
        "none", description="`grammar` also measures the fraction of sentences that the built-in grammar parses"
    )
    anchor: str = Field(
        "",
        description="The first base of several rounds, to which the drift is measured too: a hub name, a local folder, "
        "or `models:/name@alias`; empty measures none",
    )
    table_rows: int = Field(32, ge=5, le=10_000, description="Sample texts kept in the report, before and after")


class GatesConfig(Group):
    """Bounds that the evaluation must keep before the model is registered."""

    min_gain: float = Field(
        0.0, ge=-100, le=100, description="Lower end of the reward gain's confidence interval must exceed this"
    )
    min_win_rate: float = Field(
        0.55, ge=0, le=1, description="Prompts on which the aligned model scores higher, at least"
    )
    min_perplexity_ratio: float = Field(
        0.7, ge=0, le=1, description="Perplexity under the base, aligned over base samples, at least"
    )
    max_perplexity_ratio: float = Field(
        1.25, ge=1, le=1_000, description="Perplexity under the base, aligned over base samples, at most"
    )
    max_kl_per_token: float = Field(0.20, gt=0, le=100, description="KL(policy || reference) in nats a token, at most")
    min_reward_sd_ratio: float = Field(0.35, ge=0, le=10, description="Reward SD, aligned over base, at least")
    max_entropy_change: float = Field(0.20, gt=0, le=10, description="Relative move of the token entropy, at most")
    max_grammar_drop: float = Field(
        0.10, ge=0, le=1, description="Drop of the fraction of grammatical sentences, at most, where it is judged"
    )
    max_anchor_kl_per_token: float = Field(
        0.40, gt=0, le=100, description="KL(policy || anchor) in nats a token, at most, where an anchor is given"
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
        "challenger",
        min_length=1,
        max_length=100,
        description="Alias that a passing model gets; `champion` and `previous` belong to the promotion",
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
        if alias.lower() in {"champion", "previous"}:
            raise ValueError(
                f"registry.alias = {alias!r}: only a promotion moves that alias; take another, such as `challenger`"
            )
        if alias.lower() == "anchor":
            raise ValueError(
                f"registry.alias = {alias!r}: that alias is the first base's; take another, such as `challenger`"
            )
        return self


class GridConfig(Group):
    """What a sweep tries: every combination, each on the same pairs."""

    losses: tuple[Loss, ...] = Field(("hinge", "sigmoid"), min_length=1, max_length=4, description="Losses to try")
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
    when_ungated: Literal["revert", "warn"] = Field(
        "revert",
        description="What the receiver does where the champion was moved by hand to a version that never passed the "
        "gates: `revert` moves it back, `warn` only says so",
    )


class AlignConfig(Group):
    """Everything that decides what a run computes."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random draw")
    data: DataConfig = DataConfig()
    base: BaseConfig = BaseConfig()
    reward: RewardConfig = RewardConfig()
    prompts: PromptsConfig = PromptsConfig()
    sampling: SamplingConfig = SamplingConfig()
    pairs: PairsConfig = PairsConfig()
    validation: ValidationConfig = ValidationConfig()
    dpo: DPOConfig = DPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gates: GatesConfig = GatesConfig()
    registry: RegistryConfig = RegistryConfig()

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> Self:
        longest = 1 if self.prompts.mode == "empty" else self.prompts.tokens_max
        if longest >= self.sampling.total_tokens:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} leaves no room after prompts of {longest} tokens"
                ": raise it, or lower prompts.tokens_max"
            )
        if self.base.model == "train" and self.sampling.total_tokens > self.base.context:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} exceeds base.context = {self.base.context}: "
                "raise base.context, or ask for shorter samples"
            )
        if self.reward.model == "train" and self.sampling.total_tokens > self.reward.context:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} exceeds reward.context = {self.reward.context}, "
                "so the ends of texts would go unread: raise reward.context, or ask for shorter samples"
            )
        return self

    @model_validator(mode="after")
    def _judge_knows_the_language(self) -> Self:
        if self.evaluation.judge == "grammar" and self.data.path != "grammar":
            raise ValueError(
                f"evaluation.judge = grammar knows the built-in grammar alone, and data.path = {self.data.path} is not "
                "it: pass --evaluation.judge none, or --config with a file that sets no judge"
            )
        return self


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> AlignConfig:
    """Read a YAML file and lay `overrides` (nested as the YAML is) over it.

    Raises ConfigError if the file is missing, is not YAML, or holds an unknown field or a value out of bounds.
    """
    return build_config(merge(read_yaml(Path(path)), overrides or {}), source=str(path))


def build_config(values: Mapping[str, Any], source: str = "config") -> AlignConfig:
    """Validate nested values; raises ConfigError with one line that names each bad field, its value and its bound."""
    try:
        return AlignConfig.model_validate(dict(values))
    except PydanticError as error:
        raise ConfigError(f"{source}: {'; '.join(_explain(item) for item in error.errors())}") from error


def build_grid(**values: Any) -> GridConfig:
    """A sweep's grid from the values that were given; raises ConfigError for one that is out of bounds."""
    try:
        return GridConfig.model_validate({name: value for name, value in values.items() if value is not None})
    except PydanticError as error:
        faults = [item for item in error.errors() if item["type"] != "too_short"]  # it follows from a bad element
        raise ConfigError(f"sweep: {'; '.join(_explain(item) for item in faults or error.errors())}") from error


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested `overrides` over `values`, group by group."""
    merged = dict(values)
    for name, value in overrides.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def flatten(config: AlignConfig) -> dict[str, Any]:
    """Every field under its dotted name (`dpo.beta`), as MLflow's params and the flags spell it."""
    flat: dict[str, Any] = {"seed": config.seed}
    for group, fields in config.model_dump(exclude={"seed"}).items():
        flat.update({f"{group}.{field}": value for field, value in fields.items()})
    return flat


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown field `{where}`{_did_you_mean(item['loc'])}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{where} = {item['input']!r}: {message[0].lower()}{message[1:]}"


def _did_you_mean(location: tuple[Any, ...]) -> str:
    from difflib import get_close_matches

    known: list[str] = list(AlignConfig.model_fields)
    if len(location) > 1 and location[0] in AlignConfig.model_fields:
        group = AlignConfig.model_fields[str(location[0])].annotation
        known = list(getattr(group, "model_fields", {}))
    close = get_close_matches(str(location[-1]), known, n=1)
    return f", did you mean `{'.'.join([*map(str, location[:-1]), close[0]])}`?" if close else ""
