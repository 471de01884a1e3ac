"""The whole configuration of a run, and what must hold between its groups."""

from typing import Self

from pydantic import Field, model_validator

from alignment.config.group import Group
from alignment.config.inputs import BaseConfig, DataConfig, PromptsConfig, RewardConfig
from alignment.config.outcome import EvaluationConfig, GatesConfig, RegistryConfig
from alignment.config.policy import DPOConfig, PairsConfig, SamplingConfig, ValidationConfig
from alignment.kinds import PAIRS, PROMPTS, REWARD_MODELS


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
        if _trained(self, context=True) and self.sampling.total_tokens > self.reward.context:
            raise ValueError(
                f"sampling.total_tokens = {self.sampling.total_tokens} exceeds reward.context = {self.reward.context}, "
                "so the ends of texts would go unread: raise reward.context, or ask for shorter samples"
            )
        return self

    @model_validator(mode="after")
    def _adapter_is_there(self) -> Self:
        if self.registry.adapter == "separate" and self.dpo.adapter == "none":
            raise ValueError(
                "registry.adapter = separate registers an adapter, and dpo.adapter = none trains none: set dpo.adapter "
                "to lora, or registry.adapter to merged"
            )
        return self

    @model_validator(mode="after")
    def _rounded_base_is_frozen(self) -> Self:
        load_in = self.base.load_in
        if load_in == "fp32":
            return self
        if self.dpo.adapter == "none":
            raise ValueError(
                f"base.load_in = {load_in} holds rounded weights, in which the small steps of a full training would be "
                "lost: set dpo.adapter to lora, or base.load_in to fp32"
            )
        if self.dpo.precision != "bf16":
            raise ValueError(
                f"base.load_in = {load_in} computes in bf16, and dpo.precision = {self.dpo.precision}: set "
                "dpo.precision to bf16, or base.load_in to fp32"
            )
        return self

    @model_validator(mode="after")
    def _texts_to_train_on(self) -> Self:
        chats = PROMPTS.origin(self.prompts.source).options.get("nested", False)
        if chats and self.base.model == "train":
            raise ValueError(
                f"base.model = train learns from plain texts, and prompts.source = {self.prompts.source} has chats or "
                "pairs: give base.model an instruct model, a folder or a name on the hub"
            )
        if chats and _trained(self) and self.reward.trained_on == "labels":
            raise ValueError(
                f"reward.model = train learns from labelled texts, and prompts.source = {self.prompts.source} reads "
                "chats or pairs: give reward.model a model, take another reward.kind, or learn from given pairs "
                "(reward.trained_on)"
            )
        if _trained(self) and self.reward.trained_on == "pairs" and self.pairs.source != "given":
            raise ValueError(
                f"reward.trained_on = pairs learns from given pairs, and pairs.source = {self.pairs.source} makes them "
                "of scored samples: set pairs.source to given, or reward.trained_on to labels"
            )
        labelled = [part for part in self.evaluation.gold if part.kind == "tfidf"]
        if labelled and self.reward.trained_on == "pairs":
            raise ValueError(
                f"evaluation.gold: {labelled[0].name} of the kind tfidf learns from labels, and reward.trained_on = "
                "pairs reads none: take another kind for it"
            )
        source = PAIRS.origin(self.pairs.source).options
        scored = source.get("sampled", True) and source.get("scored", True)
        if not scored and any(part.normalise for part in self.reward.parts):
            raise ValueError(
                f"reward.parts: normalise divides by an SD on the base's samples, and pairs.source = "
                f"{self.pairs.source} scores none: set normalise to false, and choose the weights so"
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
    def _given_pairs_go_with_their_prompts(self) -> Self:
        given = self.pairs.source == "given"
        if given and self.prompts.source != "pairs":
            raise ValueError(
                f"pairs.source = given trains on the rows' own pairs, and prompts.source = {self.prompts.source} makes "
                "other prompts: set prompts.source to pairs"
            )
        if self.prompts.source == "pairs" and self.data.path == "grammar" and not self.data.mixture:
            raise ValueError(
                "data.path = grammar has texts, and prompts.source = pairs reads preference pairs: set data.path to a "
                "file of yours"
            )
        if self.reward.kind == "none" and not given:
            raise ValueError(
                f"reward.kind = none scores nothing, and pairs.source = {self.pairs.source} needs a reward, at the "
                "latest for the evaluation: take another reward.kind, or set pairs.source to given"
            )
        return self

    @model_validator(mode="after")
    def _real_texts_are_texts(self) -> Self:
        nested = PROMPTS.origin(self.prompts.source).options.get("nested", False)
        if self.evaluation.real_texts == "data" and nested:
            raise ValueError(
                f"evaluation.real_texts = data: the rows of prompts.source = {self.prompts.source} are chats or pairs "
                "and no plain texts; name a file of texts"
            )
        return self

    @model_validator(mode="after")
    def _judge_knows_the_language(self) -> Self:
        if self.evaluation.judge == "grammar" and (self.data.path != "grammar" or self.data.mixture):
            raise ValueError(
                f"evaluation.judge = grammar knows the built-in grammar alone, and data.path = {self.data.path} is not "
                "it: set evaluation.judge to none, or start from a config that sets no judge"
            )
        return self


def _trained(config: AlignConfig, **has: bool) -> bool:
    """Whether a model is trained here to score, the reward's, a part's or a gold judge's; one that `has` such options.

    An option that a kind does not name is true.
    """
    scoring = (config.reward, *config.reward.parts, *config.evaluation.gold)
    wanted = {"model": True, **has}.items()
    names = REWARD_MODELS.names()
    return any(
        each.model == "train"
        and each.kind in names
        and all(REWARD_MODELS.origin(each.kind).options.get(option, True) == value for option, value in wanted)
        for each in scoring
    )
