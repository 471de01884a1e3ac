"""Tasks of lm-eval that a model is measured on, to see what it has unlearned: by name, or from a file that is data.

lm-eval 0.4 runs code that a task file names: functions by `!function`, metrics that `evaluate.load` fetches, templates
without a sandbox. A file of one's own may have none of these here; tasks by name are code of the installed package.
"""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alignment.errors import ConfigError, StageError
from alignment.stages.store import digest_file

if TYPE_CHECKING:
    from alignment.models import Loaded

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
FILES = (".yaml", ".yml")
BATCH = 16  # requests that are scored at once
READERS = ("json", "csv", "parquet", "text")
METRICS = ("acc", "acc_norm", "exact_match")
"""The metrics that a file may name, of which more is better; the first that a task has is what counts."""
FIELDS = {
    "task",
    "dataset_path",
    "dataset_kwargs",
    "output_type",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "num_fewshot",
    "description",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "target_delimiter",
    "fewshot_delimiter",
    "generation_kwargs",
    "metric_list",
    "metadata",
}
"""The fields that a file may have: those that hold data, and templates, which run in a sandbox."""
GENERATION = {
    "until",
    "max_gen_toks",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "num_beams",
    "repetition_penalty",
}
"""What a file may say of generation: all else reaches transformers, which by `custom_generate` runs code of the hub."""


@dataclass(frozen=True)
class TaskSpec:
    """A task by its name, with its definition where a file gives one, and what decides its content."""

    name: str
    definition: dict[str, Any] | None
    source: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """What one model reaches on a task: the mean of a metric over its samples, with its standard error."""

    metric: str
    value: float
    error: float | None
    samples: int


def read_tasks(given: Sequence[str]) -> list[TaskSpec]:
    """The tasks that are named, by name or file.

    Raises ConfigError where lm-eval is not installed, a name is none, or a file is missing, no task, or holds code.
    """
    if given and find_spec("lm_eval") is None:
        raise ConfigError(
            f"evaluation.tasks = {', '.join(given)}: the package lm-eval is missing; install Plumbline with the extra "
            "`tasks`, or leave them out"
        )
    found = [_of_file(Path(each)) if each.endswith(FILES) else _of_name(each) for each in given]
    if twice := sorted({task.name for task in found if [other.name for other in found].count(task.name) > 1}):
        raise ConfigError(f"evaluation.tasks: {', '.join(twice)} is named twice; leave one out")
    return found


def _of_name(name: str) -> TaskSpec:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"evaluation.tasks: {name!r} is neither the name of a task nor a file that ends in {' or '.join(FILES)}"
        )
    return TaskSpec(name, None, {"name": name})


def _of_file(path: Path) -> TaskSpec:
    what = f"evaluation.tasks: {path}"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}; name a file that is there") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(
            f"{what}: no plain YAML, and tags such as !function, which run code, are refused ({why})"
        ) from error
    if not isinstance(given, dict) or not NAME.fullmatch(str(given.get("task", ""))):
        raise ConfigError(f"{what}: no task; give its fields, with its name as `task`")
    if unknown := sorted(map(str, set(given) - FIELDS)):
        raise ConfigError(f"{what}: {', '.join(unknown)} may not stand in it; known are {', '.join(sorted(FIELDS))}")
    if given.get("dataset_path") not in READERS:
        raise ConfigError(f"{what}: dataset_path is one of {', '.join(READERS)}, with dataset_kwargs.data_files")
    kwargs = given.get("dataset_kwargs")
    if not isinstance(kwargs, dict) or set(kwargs) != {"data_files"}:
        raise ConfigError(f"{what}: dataset_kwargs has data_files and nothing else")
    metrics = given.get("metric_list") or []
    named = [each.get("metric") if isinstance(each, dict) else None for each in metrics]
    known = all(
        set(each) <= {"metric", "aggregation", "higher_is_better"} for each in metrics if isinstance(each, dict)
    )
    if not named or not set(named) <= set(METRICS) or not known:
        raise ConfigError(f"{what}: metric_list names metrics of {', '.join(METRICS)}, without further fields")
    generation = given.get("generation_kwargs") or {}
    if not isinstance(generation, dict) or (unknown := sorted(map(str, set(generation) - GENERATION))):
        told = ", ".join(unknown) if isinstance(generation, dict) else repr(generation)
        raise ConfigError(
            f"{what}: {told} may not stand in generation_kwargs; known are {', '.join(sorted(GENERATION))}"
        )
    files = _data_files(kwargs["data_files"], path, what)
    definition = {**given, "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}}}
    try:
        digests = {split: digest_file(file) for split, file in files.items()}
    except OSError as error:
        raise ConfigError(f"{what}: data_files {error.filename}: {error.strerror}") from error
    return TaskSpec(str(given["task"]), definition, {"file": digest_file(path), "data": digests})


def _data_files(given: Any, path: Path, what: str) -> dict[str, Path]:
    """The file of each split; a path counts from the folder of the task's file."""
    splits = given if isinstance(given, dict) else {"train": given}
    if not splits or not all(isinstance(file, str) and "://" not in file for file in splits.values()):
        raise ConfigError(f"{what}: data_files names a local file, or one for each split")
    return {str(split): (path.parent / str(file)).resolve() for split, file in splits.items()}


def measure(
    loaded: "Loaded", tasks: Sequence[TaskSpec], rows: int, seed: int, progress: Callable[[int, int], None]
) -> dict[str, Score]:
    """What a model reaches on each task, on the first `rows` of its samples (0: all), by the task's name.

    Raises StageError where a task has no metric of which more is better, or is a group that gives no figure of its own.
    """
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    _sandbox_templates()
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, backend="causal", batch_size=BATCH)
    manager = TaskManager(include_defaults=any(task.definition is None for task in tasks))
    scores = {}
    for number, task in enumerate(tasks):
        found = _quietly(
            evaluator.simple_evaluate,
            model=model,
            tasks=[task.name if task.definition is None else dict(task.definition)],
            task_manager=manager,
            limit=rows or None,
            log_samples=False,
            bootstrap_iters=100,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
        scores[task.name] = _score(task.name, found)
        progress(number + 1, len(tasks))
    return scores


def _quietly(call: Callable[..., Any], **options: Any) -> Any:
    """Without lm-eval's bars and its log: what a run shows is its own progress."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            return call(**options)
    finally:
        log.setLevel(level)


def _score(name: str, found: Any) -> Score:
    """A task's figure: of the metrics that lm-eval gives as `metric,filter`, the one that counts."""
    figures = (found.get("groups") or {}).get(name) or found["results"].get(name) or {}
    higher = (found.get("higher_is_better") or {}).get(name) or {}
    keys = [key for key, value in figures.items() if isinstance(value, int | float) and "_stderr," not in key]
    better = {key: metric for key in keys if (metric := key.partition(",")[0]) in METRICS or higher.get(metric)}
    if not better:
        raise StageError(
            f"evaluation.tasks: {name} has no metric of which more is better (it has {', '.join(keys) or 'none'}); "
            "name one that has, or the tasks of this group"
        )
    ranks = {metric: rank for rank, metric in enumerate(METRICS)}
    key = min(better, key=lambda each: ranks.get(better[each], len(ranks)))
    metric, _, kept = key.partition(",")
    error = figures.get(f"{metric}_stderr,{kept}")
    samples = (found.get("n-samples") or {}).get(name, {}).get("effective", 0)
    return Score(metric, float(figures[key]), float(error) if isinstance(error, int | float) else None, int(samples))


def _sandbox_templates() -> None:
    """Have lm-eval's templates run where they reach data alone, as transformers runs those of chats."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    if not isinstance(utils.env, ImmutableSandboxedEnvironment):
        safe = ImmutableSandboxedEnvironment(undefined=utils.env.undefined)
        safe.filters.update(utils.env.filters)
        utils.env = safe
