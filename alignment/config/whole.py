"""The whole configuration of a run, and what must hold between its groups."""

from typing import Self

from pydantic import Field, model_validator

from alignment.config.group import Group
from alignment.config.inputs import BaseConfig, DataConfig, PromptsConfig, RewardConfig
from alignment.config.outcome import EvaluationConfig, GatesConfig, RegistryConfig
from alignment.config.policy import DPOConfig, PairsConfig, SamplingConfig, ValidationConfig
from alignment.kinds import PROMPTS, REWARD_MODELS


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
        longest, field = {"empty": (1, "tokens_max"), "first_tokens": (self.prompts.tokens_max, "tokens_max")}.get(
            self.prompts.source, (self.prompts.max_tokens, "max_tokens")
        )
        if longest >= self.sampling.total_tokens:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} leaves no room after prompts of {longest} tokens"
                f": raise it, or lower prompts.{field}"
            )
        if self.base.model == "train" and self.sampling.total_tokens > self.base.context:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} exceeds base.context = {self.base.context}: "
                "raise base.context, or ask for shorter samples"
            )
        if (
            self.reward.kind in REWARD_MODELS.names()
            and self.reward.model == "train"
            and self.sampling.total_tokens > self.reward.context
        ):
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} exceeds reward.context = {self.reward.context}, "
                "so the ends of texts would go unread: raise reward.context, or ask for shorter samples"
            )
        return self

    @model_validator(mode="after")
    def _texts_to_train_on(self) -> Self:
        chats = PROMPTS.origin(self.prompts.source).options.get("nested", False)
        if chats and self.base.model == "train":
            raise ValueError(
                f"base.model = train learns from plain texts, and prompts.source = {self.prompts.source} reads chats or "
                "pairs: give base.model an instruct model, a folder or a name on the hub"
            )
        if self.prompts.source == "messages" and self.reward.kind == "classifier" and self.reward.model == "train":
            raise ValueError(
                "reward.model = train learns from labelled texts, and prompts.source = messages reads chats: give "
                "reward.model a model, or take another reward.kind"
            )
        if self.prompts.source == "messages" and self.prompts.too_long == "keep_start":
            raise ValueError(
                "prompts.too_long = keep_start would leave out a chat's last turn, which is to be answered: take "
                "keep_end, which leaves out the oldest turns, or drop"
            )
        if self.data.mixture and "path" in self.data.model_fields_set and self.data.path != "grammar":
            raise ValueError("data.path and data.mixture both name data: leave one of them out")
        return self

    @model_validator(mode="after")
    def _judge_knows_the_language(self) -> Self:
        if self.evaluation.judge == "grammar" and (self.data.path != "grammar" or self.data.mixture):
            raise ValueError(
                f"evaluation.judge = grammar knows the built-in grammar alone, and data.path = {self.data.path} is not "
                "it: pass --evaluation.judge none, or --config with a file that sets no judge"
            )
        return self
