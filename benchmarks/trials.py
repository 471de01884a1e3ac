"""The runs of the study: what each is called, and what it sets beside a preset."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Changes: TypeAlias = dict[str, Any]
"""Fields by their dotted names."""

SCRATCH: Changes = {
    "data.rows": 0,
    "base.vocab_size": 4096,
    "base.layers": 3,
    "base.width": 192,
    "base.heads": 6,
    "base.steps": 1600,
    "base.batch_size": 32,
    "base.learning_rate": 2e-3,
    "reward.layers": 2,
    "reward.width": 128,
    "reward.steps": 2000,
    "reward.batch_size": 32,
    "reward.learning_rate": 5e-4,
    "prompts.eval_count": 384,
}
"""Base and reward model that most of the study shares, trained here on the reviews: the preset may change."""

EARLIER: Changes = SCRATCH | {
    "prompts.count": 1024,
    "sampling.samples_per_prompt": 4,
    "dpo.loss": "hinge",
    "dpo.beta": 0.5,
    "dpo.learning_rate": 1e-4,
    "dpo.steps": 200,
    "dpo.batch_size": 8,
    "dpo.warmup_steps": 20,
    "dpo.stop_chosen_drop": 4.0,
}
"""What `imdb_scratch.yaml` was when the study began."""

NOTEBOOK: Changes = SCRATCH | {
    "prompts.count": 1024,
    "sampling.samples_per_prompt": 2,
    "validation.min_gap": 0.0,
    "validation.min_tokens": 1,
    "validation.min_chars": 1,
    "validation.max_length_ratio": 1000.0,
    "validation.max_quarantined": 1.0,
    "validation.chosen_longer_min": 0.0,
    "validation.chosen_longer_max": 1.0,
    "validation.max_length_correlation": 1.0,
    "dpo.beta": 0.1,
    "dpo.schedule": "linear",
    "dpo.steps": 172,
    "dpo.batch_size": 16,
    "dpo.warmup_steps": 6,
    "dpo.stop_chosen_drop": 0.0,
}
"""The notebook's settings (`notebook_hinge.yaml`) with fewer prompts, and so fewer steps: 2.7 epochs too."""

NOTEBOOK_RATE = 1e-3
RATES = (1e-5, 3e-5, 1e-4, 3e-4, NOTEBOOK_RATE)

MORE: Changes = EARLIER | {
    "prompts.count": 4096,
    "dpo.batch_size": 16,
    "dpo.steps": 256,
    "dpo.learning_rate": 2e-4,
    "dpo.warmup_steps": 25,
}
"""Four times the prompts, each pair once."""

TWICE: Changes = MORE | {"prompts.count": 8192, "dpo.batch_size": 32, "dpo.stop_chosen_drop": 10.0}
"""Twice as many again in as many steps; its chosen texts lose 6 nats on the way, and win most of them back."""

HALVED: Changes = MORE | {"prompts.count": 8192, "dpo.steps": 512, "dpo.warmup_steps": 50}
"""Twice as many prompts, each pair once, in twice as many steps; their learning rate is to be lower."""

LEVERS: Mapping[str, Changes] = {
    "as it was": EARLIER,
    "4,096 prompts, one epoch in steps of 16, lr 2e-4": MORE,
    "the same, lr 4e-4": MORE | {"dpo.learning_rate": 4e-4},
    "the same, sigmoid, beta 0.3": MORE | {"dpo.loss": "sigmoid", "dpo.beta": 0.3},
    "the same, beta 0.3": MORE | {"dpo.beta": 0.3},
    "the same, with NLL 0.1": MORE | {"dpo.nll_weight": 0.1},
    "the same, two epochs": MORE | {"dpo.steps": 512, "dpo.warmup_steps": 50},
    "the same, gaps of 1 or more": MORE | {"validation.min_gap": 1.0, "validation.max_quarantined": 0.7},
    "the same, best half against worst half": MORE
    | {"pairs.strategy": "best_half_vs_worst_half", "dpo.steps": 512, "dpo.warmup_steps": 50},
    "the same, best half against worst half, lr 1e-4": MORE
    | {
        "pairs.strategy": "best_half_vs_worst_half",
        "dpo.steps": 512,
        "dpo.warmup_steps": 50,
        "dpo.learning_rate": 1e-4,
    },
    "the same, pairs drawn by their gap": MORE
    | {"pairs.strategy": "gap_weighted", "dpo.steps": 512, "dpo.warmup_steps": 50},
    "the same, each pair's scores (distill), best against each other": MORE
    | {"dpo.loss": "distill", "pairs.strategy": "best_vs_rest", "dpo.steps": 768, "dpo.warmup_steps": 50},
    "8,192 prompts, one epoch in steps of 32, lr 3e-4": TWICE | {"dpo.learning_rate": 3e-4},
    "8,192 prompts, one epoch in steps of 32, lr 2.2e-4": TWICE | {"dpo.learning_rate": 2.2e-4},
    "8,192 prompts, one epoch in steps of 16, lr 1.5e-4": HALVED | {"dpo.learning_rate": 1.5e-4},
    "8,192 prompts, one epoch in steps of 16, lr 1.3e-4": HALVED | {"dpo.learning_rate": 1.3e-4},
    "8,192 prompts, one epoch in steps of 16, lr 1.2e-4": HALVED | {"dpo.learning_rate": 1.2e-4},
    "12,288 prompts, one epoch": MORE | {"prompts.count": 12288, "dpo.steps": 768, "dpo.warmup_steps": 50},
    "1,024 prompts, best against worst of 16": MORE
    | {"prompts.count": 1024, "sampling.samples_per_prompt": 16, "dpo.steps": 64, "dpo.warmup_steps": 6},
    "4,096 prompts, best against worst of 8": MORE | {"sampling.samples_per_prompt": 8},
    "4,096 prompts, best half against worst half of 8, lr 1e-4": MORE
    | {
        "sampling.samples_per_prompt": 8,
        "pairs.strategy": "best_half_vs_worst_half",
        "dpo.steps": 1024,
        "dpo.warmup_steps": 100,
        "dpo.learning_rate": 1e-4,
    },
    "4,096 prompts, a base of 4,000 steps": MORE | {"base.steps": 4000},
    "4,096 prompts, a reward model of 3 layers x 192": MORE
    | {"reward.layers": 3, "reward.width": 192, "reward.heads": 6, "reward.steps": 3000},
}
"""One change after the other on the way to a better model, with those that did not help."""

SECOND: Changes = {name: value for name, value in MORE.items() if not name.startswith(("base.", "reward."))}
"""A second round brings its base and reward model along."""

SMOLLM: Changes = {name: value for name, value in SCRATCH.items() if not name.startswith("base.")} | {
    "base.vocab_size": SCRATCH["base.vocab_size"],  # the reward model's too
    "prompts.count": 512,
    "prompts.eval_count": 192,
    "sampling.samples_per_prompt": 4,
    "dpo.loss": "sigmoid",
    "dpo.beta": 0.1,
    "dpo.steps": 150,
    "dpo.batch_size": 8,
    "dpo.warmup_steps": 15,
    "dpo.checkpoint_every": 50,
}
"""A pretrained model of 135 million parameters as the policy on the reviews' openings."""


@dataclass(frozen=True)
class Trial:
    """A run of the study: `changes` are fields by their dotted names, laid over a preset.

    A second round starts from the policy of the trial `after`, with its reward model, and is judged against the first
    base too. With `given`, the base model is a folder that the command names.
    """

    part: str
    name: str
    changes: Changes = field(default_factory=dict)
    seed: int = 0
    preset: str = "imdb_scratch"
    after: "Trial | None" = None
    given: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The changes as a configuration nests them."""
        nested: dict[str, Any] = {"seed": self.seed}
        for name, value in self.changes.items():
            group, _, leaf = name.partition(".")
            nested.setdefault(group, {})[leaf] = value
        return nested


def table() -> list[Trial]:
    """The notebook's two runs."""
    return [trial for trial in cliff() if trial.changes["dpo.learning_rate"] == NOTEBOOK_RATE]


def cliff() -> list[Trial]:
    """Everything as in the notebook but the learning rate."""
    return [
        Trial("cliff", f"{loss}, lr {rate:g}", NOTEBOOK | {"dpo.loss": loss, "dpo.learning_rate": rate})
        for rate in RATES
        for loss in ("hinge", "sigmoid")
    ]


def levers() -> list[Trial]:
    """What was tried on the way to a better model."""
    found = [Trial("levers", name, changes) for name, changes in LEVERS.items()]
    return [*found, Trial("levers", "a second round, lr 1e-4", SECOND | {"dpo.learning_rate": 1e-4}, after=found[1])]


def target() -> list[Trial]:
    """The preset as it is shipped, from three seeds."""
    return [Trial("target", "imdb_scratch.yaml", seed=seed) for seed in (0, 1, 2)]


def smollm() -> list[Trial]:
    """A pretrained base, at a learning rate for a model of its size and at the notebook's."""
    return [
        Trial("smollm", f"SmolLM2-135M, lr {rate:g}", SMOLLM | {"dpo.learning_rate": rate}, given=True)
        for rate in (1e-5, NOTEBOOK_RATE)
    ]


PARTS: Mapping[str, Callable[[], list[Trial]]] = {
    "table": table,
    "cliff": cliff,
    "levers": levers,
    "target": target,
    "smollm": smollm,
}
"""The parts that train; `possible` is the one that does not."""

POSSIBLE = Trial("possible", "", SCRATCH | {"prompts.count": 256, "sampling.samples_per_prompt": 16})
"""Sixteen samples of the base for each of 256 prompts."""
