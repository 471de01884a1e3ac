"""The pipeline as data: what each stage reads, and so the key under which the store finds its result."""

import ast
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alignment import models
from alignment.config import AlignConfig
from alignment.data import prompts, reading
from alignment.errors import DataError, ModelError
from alignment.stages.store import StageRef, Store, digest, digest_file

PROJECT = Path(__file__).parents[2]
ROOMS = ("alignment", "expectations")
LIBRARIES = ("torch", "transformers", "tokenizers", "great_expectations")


@dataclass(frozen=True)
class Stage:
    """A stage: its name, the function `module:name` that fills its folder, what it reads, and what it makes."""

    name: str
    fill: str
    needs: tuple[str, ...]
    reads: Callable[[AlignConfig], Any]
    makes: Callable[[AlignConfig], str]
    gpu: bool = False
    trains: Callable[[AlignConfig], bool] = lambda _: False
    """Whether it trains, and so keeps checkpoints: a stop then waits for the end of a step."""
    when: Callable[[AlignConfig], bool] = lambda _: True
    """Whether a configuration asks for it at all."""


def _model_source(config: AlignConfig, group: models.Kind) -> Any:
    """What decides a model: the recipe where it is trained here, the content where it is local, the name on the hub."""
    settings = config.base if group == "base" else config.reward
    if settings.model == "train":
        recipe = settings.model_dump(exclude={"model", "revision", "positive_class"})
        return recipe | {"seed": config.seed, "vocab_size": config.base.vocab_size}
    return _content(settings.model, group) or {"hub": settings.model, "revision": settings.revision}


def _anchor_source(config: AlignConfig) -> Any:
    return _content(config.evaluation.anchor, "anchor") or {"hub": config.evaluation.anchor}


def _content(source: str, kind: models.Kind) -> dict[str, str]:
    """The digest of a local model; empty for one on the hub. Raises ModelError where it cannot be read."""
    try:
        folder = models.local_folder(source, kind)
        return {"folder": _digest_model(folder)} if folder else {}
    except OSError as error:
        raise ModelError(
            f"{models.FIELDS[kind]} {source}: cannot be read ({error.strerror or error}); "
            "give a folder that you may read"
        ) from error


def _digest_model(folder: Path) -> str:
    """SHA-256 of what a model is loaded from: hidden files are tools' notes, such as a download's times."""
    names = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return digest(
        {str(name): digest_file(folder / name) for name in names if not any(part[0] == "." for part in name.parts)}
    )


def _prompts_source(config: AlignConfig) -> Any:
    settings = config.prompts.model_dump(exclude={"exclude"})
    excluded = digest(sorted(prompts.read_ids(config.prompts.exclude))) if config.prompts.exclude else ""
    return {"prompts": settings, "excluded": excluded, "seed": config.seed}


def _has_anchor(config: AlignConfig) -> bool:
    return bool(config.evaluation.anchor)


def _data_source(config: AlignConfig) -> Any:
    """What decides the texts: a file's format and content, wherever it lies, or a dataset's name and split."""
    data, path = config.data.model_dump(), Path(config.data.path)
    try:
        if config.data.path != "grammar" and reading.is_file(config.data.path):
            reading.require_file(path)
            del data["path"], data["split"]
            data |= {"format": reading.file_format(path), "content": digest_file(path)}
    except OSError as error:
        raise DataError(
            f"data.path {path}: cannot be read ({error.strerror or error}); give a file that you may read"
        ) from error
    return {"data": data, "seed": config.seed}


def _evaluated(config: AlignConfig) -> Any:
    return {
        "sampling": config.sampling.model_dump(exclude={"samples_per_prompt", "shard_prompts", "batch_size"}),
        "samples_per_prompt": config.evaluation.samples_per_prompt,
        "judge": config.evaluation.judge,
        "positive_class": config.reward.positive_class,
        "seed": config.seed,
    }


def _eval_samples(config: AlignConfig) -> str:
    count = config.prompts.eval_count * config.evaluation.samples_per_prompt
    return f"up to {count:,} samples, scored"


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "texts",
            "alignment.stages.bodies:texts",
            (),
            _data_source,
            lambda c: f"up to {c.data.rows:,} texts" if c.data.rows else "all texts",
        ),
        Stage(
            "base",
            "alignment.stages.bodies:base",
            ("texts",),
            lambda c: _model_source(c, "base"),
            lambda c: f"{c.base.steps:,} steps" if c.base.model == "train" else c.base.model,
            gpu=True,
            trains=lambda c: c.base.model == "train",
        ),
        Stage(
            "reward",
            "alignment.stages.bodies:reward",
            ("texts",),
            lambda c: _model_source(c, "reward"),
            lambda c: f"{c.reward.steps:,} steps" if c.reward.model == "train" else c.reward.model,
            gpu=True,
            trains=lambda c: c.reward.model == "train",
        ),
        Stage(
            "prompts",
            "alignment.stages.bodies:prompts",
            ("texts", "base"),
            _prompts_source,
            lambda c: f"up to {c.prompts.count:,} to train on, {c.prompts.eval_count:,} held out",
        ),
        Stage(
            "samples",
            "alignment.stages.bodies:samples",
            ("base", "prompts"),
            lambda c: {"sampling": c.sampling.model_dump(exclude={"batch_size", "shard_prompts"}), "seed": c.seed},
            lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} samples",
            gpu=True,
        ),
        Stage(
            "scores",
            "alignment.stages.bodies:scores",
            ("samples", "reward"),
            lambda c: {"positive_class": c.reward.positive_class},
            lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} scores",
            gpu=True,
        ),
        Stage(
            "pairs",
            "alignment.stages.bodies:pairs",
            ("prompts", "scores"),
            lambda c: {"pairs": c.pairs.model_dump(), "seed": c.seed},
            lambda c: c.pairs.strategy,
        ),
        Stage(
            "validation",
            "expectations.stage:validation",
            ("prompts", "pairs"),
            lambda c: c.validation.model_dump(),
            lambda _: "accepted and quarantined pairs",
        ),
        Stage(
            "reference",
            "alignment.stages.bodies:reference",
            ("base", "validation"),
            lambda c: {"precision": c.sampling.precision},
            lambda _: "log-probs of both sides of each pair",
            gpu=True,
        ),
        Stage(
            "policy",
            "alignment.stages.bodies:policy",
            ("base", "reference"),
            lambda c: {"dpo": c.dpo.model_dump(exclude={"checkpoint_every"}), "seed": c.seed},
            lambda c: f"{c.dpo.steps:,} steps of {c.dpo.batch_size * c.dpo.accumulation} pairs, {c.dpo.loss}",
            gpu=True,
            trains=lambda _: True,
        ),
        Stage(
            "before",
            "alignment.stages.evaluation:before",
            ("base", "reward", "prompts"),
            _evaluated,
            _eval_samples,
            gpu=True,
        ),
        Stage(
            "after",
            "alignment.stages.evaluation:after",
            ("policy", "base", "reward", "prompts"),
            _evaluated,
            _eval_samples,
            gpu=True,
        ),
        Stage(
            "anchor",
            "alignment.stages.evaluation:anchor",
            (),
            _anchor_source,
            lambda c: c.evaluation.anchor,
            when=_has_anchor,
        ),
        Stage(
            "drift",
            "alignment.stages.evaluation:drift",
            ("anchor", "base", "reward", "prompts", "before", "after"),
            _evaluated,
            _eval_samples,
            gpu=True,
            when=_has_anchor,
        ),
        Stage(
            "report",
            "alignment.stages.evaluation:report",
            ("base", "reward", "before", "after", "validation", "drift"),
            lambda c: {"evaluation": c.evaluation.model_dump(exclude={"anchor"}), "seed": c.seed},
            lambda c: f"{c.evaluation.bootstrap:,} bootstrap resamples",
        ),
    )
}


@dataclass(frozen=True)
class Planned:
    """A stage of a plan, its key, and its result where the store has it."""

    stage: Stage
    key: str
    found: StageRef | None


def keys(config: AlignConfig) -> dict[str, str]:
    """The key of every stage asked for: a hash of what it reads, of its parents' keys, and of the code behind it."""
    found: dict[str, str] = {}
    for stage in STAGES.values():
        if stage.when(config):
            found[stage.name] = digest(lineage(stage, config, found))[:20]
    return found


def lineage(stage: Stage, config: AlignConfig, known: dict[str, str]) -> dict[str, Any]:
    """What a stage's key is made of, kept in its manifest."""
    needs = [] if _is_given(stage, config) else stage.needs
    return {
        "stage": stage.name,
        "config": stage.reads(config),
        "parents": {name: known[name] for name in needs if name in known},
        "code": code_version(stage.fill.partition(":")[0]),
    }


def plan(config: AlignConfig, store: Store) -> list[Planned]:
    """Every stage in order with its key and, where it has been computed before, its result."""
    return [Planned(STAGES[name], key, store.find(name, key)) for name, key in keys(config).items()]


@cache
def code_version(module: str) -> str:
    """A hash of a module, of this project's modules that it imports, and of the libraries that do the arithmetic."""
    sources = {name: digest_file(_source(name)) for name in sorted(_closure(module))}
    return digest(sources | {name: importlib.metadata.version(name) for name in LIBRARIES})[:20]


def imports(source: str) -> set[str]:
    """Every module that a source text imports anywhere, `from x import y` as both `x` and `x.y`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _is_given(stage: Stage, config: AlignConfig) -> bool:
    """A model that is not trained here does not depend on the texts."""
    return (stage.name == "base" and config.base.model != "train") or (
        stage.name == "reward" and config.reward.model != "train"
    )


def _closure(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or not name.startswith(tuple(f"{room}." for room in ROOMS)) or not _exists(name):
            continue
        found.add(name)
        waiting.extend(imports(_source(name).read_text(encoding="utf-8")))
    return found


def _exists(module: str) -> bool:
    return _source(module).exists()


def _source(module: str) -> Path:
    return PROJECT.joinpath(*module.split(".")).with_suffix(".py")
