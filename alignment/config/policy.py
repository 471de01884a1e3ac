"""How the policy is made: sampling, pairs, their validation, and the training on them."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from alignment.config.engines import EndpointConfig, VllmConfig
from alignment.config.group import Group, at_most, open_to
from alignment.config.precision import Precision
from alignment.config.server import EXAMPLE
from alignment.kinds import DIVERGENCES, ENGINES, EXPECTATIONS, LOSSES, PAIRS, STRATEGIES, TRAINERS


@open_to(ENGINES)
class SamplingConfig(Group):
    """How the policy writes: the same settings make the pairs and the evaluation's texts."""

    engine: Annotated[str, ENGINES] = Field("local", description="What draws the samples")
    samples_per_prompt: int = Field(4, ge=2, le=1_024, description="Samples per prompt, from which pairs are made")
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
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Texts that end a completion, which is cut before the first token that one of them begins in"
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        le=2**30,
        description="Tokens of prompts and completions that are held together, in sampling and for log-probs; "
        "0 finds how many fit",
    )
    shard_prompts: int = Field(
        128, ge=1, le=1_000_000, description="Prompts per shard; a finished shard survives a crash"
    )
    precision: Precision = Field("fp32", description="Precision of the forward pass")
    cache: bool = Field(
        True,
        description="Keep what the model computed for earlier tokens; off, each token costs a pass over the whole "
        "text: the way out for a model whose cached steps the self-check refuses",
    )
    endpoint: EndpointConfig = Field(EndpointConfig(), description="The engine `endpoint`: a server of the base model")
    vllm: VllmConfig = Field(VllmConfig(), description="The engine `vllm`: vLLM on this machine")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (self.new_tokens_min == 0) != (self.new_tokens_max == 0):
            raise ValueError("sampling.new_tokens_min and sampling.new_tokens_max go together: set both, or neither")
        return at_most(self, "sampling", "new_tokens_min", "new_tokens_max")

    @model_validator(mode="after")
    def _server_is_named(self) -> Self:
        if self.engine == "endpoint" and not self.endpoint.base_url:
            raise ValueError(
                "sampling.endpoint.base_url: is empty; give the address of the server that has the base model loaded, "
                f"such as {EXAMPLE}, or set sampling.engine to local"
            )
        return self


def for_any_model(sampling: SamplingConfig) -> SamplingConfig:
    """How any model is sampled: as configured, or by `local` where the engine serves the base model alone.

    Both models of an evaluation are so drawn by one engine.
    """
    any_model = ENGINES.origin(sampling.engine).options.get("any_model", True)
    return sampling if any_model else sampling.model_copy(update={"engine": "local"})


def common_random_numbers(sampling: SamplingConfig) -> bool:
    """Whether two models that are asked the same way share random numbers, which narrows their comparison."""
    return bool(ENGINES.origin(for_any_model(sampling).engine).options.get("common_random_numbers", True))


def has_exact_logprobs(sampling: SamplingConfig) -> bool:
    """Whether the log-probs of samples are known to agree with an fp32 forward pass, so that none is run for them."""
    exact = ENGINES.origin(sampling.engine).options.get("exact_logprobs", False)
    return bool(exact) and sampling.precision == "fp32"


@open_to(PAIRS)
class PairsConfig(Group):
    """How scored samples of one prompt become chosen and rejected."""

    source: Annotated[str, PAIRS] = Field("samples", description="Where pairs come from: two `samples` of a prompt")
    strategy: Annotated[str, STRATEGIES] = Field("best_vs_worst", description="Which samples of a prompt are paired")
    max_pairs: int = Field(0, ge=0, le=100_000_000, description="Pairs to keep, drawn with the seed; 0 keeps all")


@open_to(EXPECTATIONS)
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
            at_most(self, "validation", low, high)
        return self


@open_to(TRAINERS)
class DPOConfig(Group):
    """Direct preference optimisation of the policy against the frozen reference."""

    trainer: Annotated[str, TRAINERS] = Field("dpo", description="What trains the policy on the pairs")
    loss: Annotated[str, LOSSES] = Field(
        "hinge",
        description="Loss on the margin: sigmoid, hinge, ipo, robust (noisy labels), or distill (learns the scores)",
    )
    divergence: Annotated[str, DIVERGENCES] = Field(
        "reverse_kl",
        description="What pulls towards the reference: reverse_kl (DPO's own), forward_kl, jensen_shannon, or alpha",
    )
    divergence_alpha: float = Field(
        0.5, gt=0, lt=1, description="For the divergence alpha: near 0 it is the reverse KL, near 1 the forward"
    )
    beta: float = Field(0.5, gt=0, le=10, description="Strength of the pull towards the reference")
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="Chance that a pair is labelled the wrong way round, for sigmoid and robust"
    )
    nll_weight: float = Field(
        0.0, ge=0, le=100, description="Weight of the added NLL of the chosen tokens (RPO); 0 is off"
    )
    learning_rate: float = Field(3e-4, gt=0, le=1, description="Peak learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Learning rate after the warm-up")
    optimizer: Literal["adamw", "rmsprop", "adamw_8bit"] = Field(
        "adamw",
        description="Optimiser; adamw_8bit (bitsandbytes, on a GPU) keeps 2 bytes of each trained weight in place of 8",
    )
    warmup_steps: int = Field(
        15, ge=0, le=1_000_000, description="Steps of linear warm-up; all steps where there are fewer"
    )
    steps: int = Field(150, ge=1, le=10_000_000, description="Optimiser steps")
    batch_size: int = Field(
        8, ge=1, le=65_536, description="Pairs that a device holds at once in training, at most; memory grows with it"
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, a quarter to a third more time"
    )
    accumulation: int = Field(
        1, ge=1, le=4_096, description="Batches accumulated into one step; not read where global_batch is set"
    )
    global_batch: int = Field(
        0,
        ge=0,
        le=2**28,
        description="Pairs per step, over all batches of all processes; 0: batch_size x accumulation",
    )
    processes: int = Field(
        1,
        ge=1,
        le=1_024,
        description="Processes that train the policy together, and the base and reward models that are trained here: "
        "each on a GPU of its own where there are some",
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="What the processes of the policy's training share: nothing, or weights, gradients and optimiser "
        "(fsdp), for a model that one GPU cannot train",
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, le=1_000, description="Gradient norm is clipped to this; 0 switches it off")
    stop_chosen_drop: float = Field(
        4.0, ge=0, le=1_000, description="Stop once the chosen log-prob fell by this many nats; 0 switches it off"
    )
    log_every: int = Field(5, ge=1, le=100_000, description="Steps between logged metrics")
    checkpoint_every: int = Field(50, ge=1, le=1_000_000, description="Steps between checkpoints")
    precision: Precision = Field(
        "fp32",
        description="Precision of the policy's forward pass, and of the reference's log-probs, so that the margin "
        "starts at 0; weights and adapters stay in fp32",
    )
    adapter: Literal["none", "lora"] = Field(
        "none", description="Train every weight (`none`), or low-rank matrices beside them (`lora`), merged at the end"
    )
    adapter_rank: int = Field(16, ge=1, le=4_096, description="LoRA: rank of the added matrices")
    adapter_alpha: float = Field(
        32.0, gt=0, le=65_536, description="LoRA: what is added is scaled by this over the rank"
    )
    adapter_targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="LoRA: names of the modules that get such matrices, such as [q_proj, v_proj]; empty or `auto`: "
        "every linear layer but the output head",
    )

    @field_validator("adapter_targets")
    @classmethod
    def _auto_is_none(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return () if names == ("auto",) else names

    @model_validator(mode="after")
    def _processes_have_work(self) -> Self:
        if self.sharding == "fsdp" and self.processes == 1:
            raise ValueError(
                "dpo.sharding = fsdp shares a model among processes, and dpo.processes = 1: set dpo.processes to the "
                "number of GPUs, or dpo.sharding to none"
            )
        if self.sharding == "fsdp" and self.adapter != "none":
            raise ValueError(
                f"dpo.sharding = fsdp trains every weight, and dpo.adapter = {self.adapter}: set dpo.sharding to none, "
                "as an adapter's training is small, or dpo.adapter to none"
            )
        if self.processes > global_batch(self):
            raise ValueError(
                f"dpo.processes = {self.processes} share the {global_batch(self)} pairs of a step: set dpo.processes "
                f"to {global_batch(self)} or less, or dpo.global_batch to {self.processes} or more"
            )
        return self

    @model_validator(mode="after")
    def _loss_goes_with_the_others(self) -> Self:
        origin = LOSSES.origin(self.loss)
        any_divergence = origin.options.get("any_divergence", bool(origin.package))  # of a package: asked at training
        if fault := fault_of_loss(self, smoothing=origin.options.get("smoothing", True), any_divergence=any_divergence):
            raise ValueError(fault)
        return self


def global_batch(config: DPOConfig) -> int:
    """How many pairs a step of the training learns from, whatever number of processes and batches they are dealt to."""
    return config.global_batch or config.batch_size * config.accumulation


def has_alpha(config: DPOConfig) -> bool:
    """Whether the divergence depends on `dpo.divergence_alpha`; one of a package may, unless it says otherwise."""
    origin = DIVERGENCES.origin(config.divergence)
    return bool(origin.options.get("parameter", bool(origin.package)))


def fault_of_loss(config: DPOConfig, *, smoothing: bool, any_divergence: bool) -> str:
    """Why a loss that has `smoothing` or not, and goes with `any_divergence` or not, is refused; empty if it is not."""
    if config.label_smoothing and not smoothing:
        return (
            f"dpo.label_smoothing = {config.label_smoothing:g} has no effect on the {config.loss} loss: "
            "set it to 0, or take the sigmoid or robust loss"
        )
    if config.divergence != "reverse_kl" and not any_divergence:
        return (
            f"dpo.divergence = {config.divergence} does not go with the {config.loss} loss, which reads log-ratios: "
            "set it to reverse_kl, or take the sigmoid, hinge, robust or distill loss"
        )
    return ""
