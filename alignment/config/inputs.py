"""What a run starts from: data, base model, reward, prompts."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from alignment.config.group import G, Group, at_most, json_values, multiple, open_to
from alignment.config.judge import JudgeConfig
from alignment.config.precision import Precision
from alignment.kinds import PROMPTS, REWARDS

TEMPLATE_ARGUMENTS = {
    *("conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
    *("return_assistant_tokens_mask", "tokenizer_kwargs"),
}
"""What `apply_chat_template` takes itself, and passes to no template."""

MODEL_SOURCE = "a hub name, a local folder, `models:/name@alias`, or `train` to train one here from `data`"


class SourceConfig(Group):
    """One of several sources of data, and its share of the rows."""

    path: str = Field(min_length=1, description="What `data.path` takes")
    weight: float = Field(1.0, gt=0, le=1_000_000, description="Share of the rows, relative to the other weights")


class DataConfig(Group):
    """The rows that a run starts from: they give the prompts, and train the base and reward model where asked to."""

    path: str = Field(
        "grammar",
        min_length=1,
        description="`grammar` (built in), a .parquet/.csv/.jsonl file, a folder of such files, `glob:` and a pattern, "
        "or a dataset's name on the hub",
    )
    mixture: tuple[SourceConfig, ...] = Field(
        (), description="Several sources in place of `path`, each with its share of the rows: {path, weight}"
    )
    columns: tuple[str, ...] = Field(
        (), description="Further columns to keep with each row; a function that gives the reward is passed them by name"
    )
    split: str = Field("train", min_length=1, description="Split to read, for a dataset from the hub")
    text_column: str = Field("text", min_length=1, description="Column that holds the text, the prompt or the messages")
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
        return at_most(self, "data", "min_chars", "max_chars")


class BaseConfig(Group):
    """The policy's starting point, which is also DPO's reference."""

    model: str = Field("train", min_length=1, description=f"Base model: {MODEL_SOURCE}")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit, for a model from the hub")
    load_in: Literal["fp32", "bf16", "4bit"] = Field(
        "fp32",
        description="How the frozen base is held while an adapter is trained on it: bf16 halves its weights, 4bit "
        "(bitsandbytes, on a GPU) takes an eighth; adapters stay in fp32",
    )
    vocab_size: int = Field(1_024, ge=300, le=200_000, description="Byte-level BPE vocabulary, when trained here")
    layers: int = Field(2, ge=1, le=96, description="Transformer layers, when trained here")
    width: int = Field(128, ge=8, le=16_384, description="Embedding width, when trained here")
    heads: int = Field(4, ge=1, le=128, description="Attention heads, when trained here; must divide the width")
    context: int = Field(64, ge=8, le=131_072, description="Longest sequence in tokens, when trained here")
    steps: int = Field(450, ge=1, le=10_000_000, description="Optimiser steps, when trained here")
    batch_size: int = Field(32, ge=1, le=65_536, description="Sequences per step, when trained here")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="Peak learning rate, when trained here")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        return multiple(self, "base", "width", "heads")


@open_to(REWARDS)
class RewardFields(Group):
    """What describes one reward."""

    kind: Annotated[str, REWARDS] = Field("classifier", description="What scores a text")
    model: str = Field("train", min_length=1, description=f"Reward model: {MODEL_SOURCE}")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit, for a model from the hub")
    positive_class: str = Field(
        "auto",
        min_length=1,
        coerce_numbers_to_str=True,
        description="Name of the class to reward, or its index where no class is named so; `auto` takes POSITIVE, or a "
        "scalar head",
    )
    reads: Literal["auto", "whole", "completion", "chat"] = Field(
        "auto",
        description="What a classifier reads: the `whole` text, the `completion` alone, or the conversation by the "
        "reward model's own `chat` template; `auto` takes the last for chats, where it has one",
    )
    precision: Precision = Field("fp32", description="Precision of a classifier's forward pass when it scores")
    function: str = Field(
        "",
        description="For the kind `function`: the name of an installed one, or FILE.py:NAME on the command line or in "
        "YAML, relative to the current directory",
    )
    judge: JudgeConfig = Field(JudgeConfig(), description="The kind `judge`: a model behind an endpoint")

    @model_validator(mode="after")
    def _function_is_named(self) -> Self:
        if self.kind == "function" and not self.function:
            raise ValueError(
                "reward.function is empty, and a reward of the kind `function` needs it, also as a part: give the name "
                "of an installed one, or FILE.py:NAME"
            )
        return self

    @model_validator(mode="after")
    def _model_is_one(self) -> Self:
        if self.model != "train" and not REWARDS.origin(self.kind).options.get("given", True):
            raise ValueError(
                f"reward.model = {self.model}: a reward of the kind {self.kind} is always trained here; leave it out"
            )
        return self


class RewardPart(RewardFields):
    """One of several rewards, under a name of its own."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$", description="What the report and MLflow call it: letters, digits, - _"
    )
    weight: float = Field(1.0, ge=-1_000_000, le=1_000_000, description="What it is multiplied by in the sum")
    normalise: bool = Field(False, description="Divide it by its SD on the base's samples before it is weighted")


class RewardConfig(RewardFields):
    """What scores a text, and so labels the pairs."""

    parts: tuple[RewardPart, ...] = Field(
        (), description="For the kind `sum`: {name, weight, normalise} of each reward, with its own kind and settings"
    )
    start: str = Field(
        "", description="Pretrained model that a training here starts from, a folder or a hub name; empty: from scratch"
    )
    trained_on: Literal["labels", "pairs"] = Field(
        "labels", description="What a training here learns from: the texts' `labels`, or given `pairs` (Bradley-Terry)"
    )
    layers: int = Field(2, ge=1, le=96, description="Transformer layers, when trained here")
    width: int = Field(64, ge=8, le=16_384, description="Embedding width, when trained here")
    heads: int = Field(4, ge=1, le=128, description="Attention heads, when trained here; must divide the width")
    context: int = Field(64, ge=8, le=131_072, description="Longest text in tokens, when trained here")
    steps: int = Field(300, ge=1, le=10_000_000, description="Optimiser steps, when trained here")
    batch_size: int = Field(
        32, ge=1, le=65_536, description="Texts per step, when trained here, and per call of a function"
    )
    batch_tokens: int = Field(
        0, ge=0, le=2**30, description="Tokens of texts that a classifier scores together; 0 finds how many fit"
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate, when trained here")
    min_opening: int = Field(
        24, ge=1, le=131_072, description="Training texts are cut at random to at least this many tokens"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        return multiple(self, "reward", "width", "heads")

    @model_validator(mode="after")
    def _reward_may_label(self) -> Self:
        for kind in (self.kind, *(part.kind for part in self.parts)):
            if not REWARDS.origin(kind).options.get("labels", True):
                raise ValueError(
                    f"reward.kind = {kind} is a judge that labels nothing, so that it stays independent of what "
                    "is trained on: name it in evaluation.gold, and take another reward.kind"
                )
        return self

    @model_validator(mode="after")
    def _sum_has_parts(self) -> Self:
        if self.kind == "sum" and not self.parts:
            raise ValueError("reward.parts is empty, and reward.kind = sum adds them up: name at least one")
        if self.kind != "sum" and self.parts:
            raise ValueError(f"reward.parts has no effect on reward.kind = {self.kind}: take sum, or leave it empty")
        return several(self, "reward.parts", "parts")


@open_to(PROMPTS)
class PromptsConfig(Group):
    """How rows become prompts, and which of them are held out."""

    source: Annotated[str, PROMPTS] = Field(
        "first_tokens",
        description="The `first_tokens` of each text, the `empty` prompt (BOS alone), the whole text of the `column`, "
        "chat `messages`, or the prompts of given `pairs`",
    )
    system: str = Field("", description="System prompt of chats that bring none; empty: none")
    chat_template: str = Field("", description="File with a chat template (Jinja); empty: the tokenizer's own")
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Further variables for the chat template, such as {enable_thinking: false}"
    )
    max_tokens: int = Field(
        0,
        ge=0,
        le=131_072,
        description="Longest whole prompt in tokens; 0: what sampling.total_tokens leaves beside a completion of "
        "sampling.new_tokens_max tokens, or of half of it",
    )
    too_long: Literal["drop", "keep_end", "keep_start"] = Field(
        "drop",
        description="What becomes of a longer one: dropped and counted, or cut to its end (of a chat: its last turns) "
        "or to its start",
    )
    eval_path: str = Field(
        "", description="Rows for the evaluation's prompts, as data.path takes them; empty: eval_fraction of data's"
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

    @field_validator("chat_template_kwargs")
    @classmethod
    def _as_json(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A YAML file's values are texts: one that is JSON, such as `false` or `3`, is what it says there."""
        if taken := sorted(values.keys() & TEMPLATE_ARGUMENTS):
            raise ValueError(f"prompts.chat_template_kwargs: {', '.join(taken)} cannot be set here; leave it out")
        return {name: json_values(value) for name, value in values.items()}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return at_most(at_most(self, "prompts", "tokens_min", "tokens_max"), "prompts", "min_chars", "max_chars")


def several(group: G, name: str, field: str) -> G:
    """The group; raises ValueError where two of several rewards share a name, or one is no reward by itself."""
    parts = getattr(group, field)
    names = [part.name for part in parts]
    if doubled := next((each for each in names if names.count(each) > 1), ""):
        raise ValueError(f"{name}: two of them are called {doubled}; give each a name of its own")
    if odd := next((part for part in parts if part.kind in {"sum", "none"}), None):
        raise ValueError(
            f"{name}: the kind of {odd.name} is {odd.kind}, and has to be a reward by itself: take another"
        )
    return group
