"""The runs of the gates' benchmark: which settings, on which data, from which seeds, and which half each belongs to."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from alignment.config import AlignConfig, build_config, merge

Data: TypeAlias = Literal["grammar", "reviews"]
Half: TypeAlias = Literal["choose", "test"]

DATA: tuple[Data, ...] = ("grammar", "reviews")
HALVES: tuple[Half, ...] = ("choose", "test")
SEEDS: dict[Half, tuple[int, ...]] = {"choose": (101, 102), "test": (201, 202)}
"""Whole seeds of each half: of what a threshold is tested on, base, reward model and prompts are new too."""

BASIS: dict[Data, dict[str, Any]] = {
    "grammar": {
        "data": {"path": "grammar", "rows": 10_000},
        "base": {"model": "train", "steps": 280, "learning_rate": 5e-3},
        "reward": {"model": "train", "steps": 300, "learning_rate": 2e-3},
        "evaluation": {"judge": "grammar"},
    },
    "reviews": {  # half of the reviews: the judges learn from the others
        "data": {"rows": 12_500},
        "base": {"model": "train", "vocab_size": 2_048, "steps": 700, "learning_rate": 3e-3},
        "reward": {"model": "train", "steps": 500, "learning_rate": 1e-3},
    },
}
"""What the runs of one data set share. The models of reviews are small: many policies are wanted, not a good one."""

SHARED: dict[str, Any] = {
    "prompts": {"count": 512, "eval_count": 256},
    "sampling": {"samples_per_prompt": 4},
    "dpo": {"batch_size": 8, "warmup_steps": 15},
}


@dataclass(frozen=True)
class Setting:
    """How a policy is trained; `stop` keeps the early stop, without which the damage is done to the end."""

    loss: str
    beta: float
    learning_rate: float
    steps: int = 150
    nll_weight: float = 0.0
    stop: bool = False

    @property
    def name(self) -> str:
        """The setting as part of a file's name."""
        nll = f"-nll{self.nll_weight:g}" if self.nll_weight else ""
        stop = "-stop" if self.stop else ""
        return f"{self.loss}-b{self.beta:g}-lr{self.learning_rate:g}-s{self.steps}{nll}{stop}"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `dpo` that it sets."""
        found = {name: value for name, value in asdict(self).items() if name != "stop"}
        return found | {"stop_chosen_drop": 4.0 if self.stop else 0.0}


SETTINGS = (
    Setting("hinge", 0.5, 3e-4, stop=True),
    Setting("hinge", 0.1, 1e-3),
    Setting("hinge", 0.1, 3e-4),
    Setting("sigmoid", 0.5, 1e-4),
    Setting("sigmoid", 0.1, 1e-3),
    Setting("sigmoid", 0.1, 3e-4),
    Setting("hinge", 1.0, 3e-4),
    Setting("sigmoid", 0.3, 1e-3),
    Setting("hinge", 0.1, 1e-4),
    Setting("sigmoid", 1.0, 1e-4, steps=300),
    Setting("hinge", 0.05, 5e-4),
    Setting("ipo", 0.5, 1e-4),
    Setting("ipo", 0.1, 3e-4),
    Setting("hinge", 0.1, 1e-3, stop=True),
    Setting("hinge", 0.1, 3e-4, nll_weight=0.2),
    Setting("sigmoid", 0.3, 2e-4, stop=True),
    Setting("sigmoid", 0.05, 1e-4, steps=300),
    Setting("sigmoid", 0.1, 1e-3, steps=100, nll_weight=0.2),
    Setting("hinge", 0.3, 5e-4),
    Setting("hinge", 0.5, 5e-5, steps=300, stop=True),
    Setting("sigmoid", 1.0, 5e-5),
    Setting("hinge", 1.0, 1e-4, stop=True),
    Setting("ipo", 1.0, 5e-5),
    Setting("sigmoid", 0.3, 5e-5, stop=True),
)
"""The first ones alone have runs of every class."""


@dataclass(frozen=True)
class Run:
    """One policy: a setting, trained on one data set from one seed."""

    data: Data
    seed: int
    setting: Setting

    @property
    def name(self) -> str:
        """The run as a file's name."""
        return f"{self.data}-{self.seed}-{self.setting.name}"

    @property
    def half(self) -> Half:
        """Whether its figures choose the thresholds, or test them."""
        return "choose" if self.seed in SEEDS["choose"] else "test"


def runs() -> list[Run]:
    """Every run: the first seed of each half with every setting, then the second, so that one can end early."""
    return [
        Run(data, seed, setting)
        for seeds in zip(*SEEDS.values(), strict=True)
        for setting in SETTINGS
        for data in DATA
        for seed in seeds
    ]


def config_of(run: Run, reviews: str) -> AlignConfig:
    """The configuration of a run; `reviews` is the file of labelled reviews, which the grammar's runs do without."""
    values = merge(merge(SHARED, BASIS[run.data]), {"dpo": run.setting.fields, "seed": run.seed})
    return build_config(merge(values, {"data": {"path": reviews}}) if run.data == "reviews" else values)


def hash_of(run: Run) -> str:
    """A hash of what decides the run's figures today, wherever the reviews lie."""
    from benchmarks import runner

    return runner.named(runner.settings(config_of(run, "reviews")))
