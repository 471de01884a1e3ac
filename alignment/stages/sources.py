"""What decides a result beside the configuration: the content of local models and files, wherever they lie."""

from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignment import adapters, models
from alignment.config import AlignConfig, DataConfig, Group, RewardFields, SamplingConfig
from alignment.data import reading
from alignment.data.chat import read_template
from alignment.data.prompts import ids
from alignment.data.prompts.whole import longest_prompt
from alignment.data.texts import GRAMMAR, sources_of
from alignment.data.wanted import Wanted
from alignment.errors import DataError, ModelError
from alignment.kinds import ENGINE_VERSIONS, ENGINES, PAIRS, PROMPTS, REWARD_FUNCTIONS, REWARD_MODELS, REWARDS, Kinds
from alignment.rewards.function_file import function_file, require_installed
from alignment.rewards.judge_rubric import judge_source, read_pair_rubric, read_rubric
from alignment.rewards.parts import SUM, alone, described, is_trained, takes_model
from alignment.stages.code import library_versions
from alignment.stages.store import digest, digest_file

TOKENIZERS = ("transformers", "tokenizers")
"""The libraries that decide which token ids a text has."""

OWN_DATA = "data"
"""What `evaluation.real_texts` says for the rows of the run's own data."""

PAIR_COLUMNS = ("chosen", "rejected")
PAIR_OPTIONS = ("prompt", "score_chosen", "score_rejected", "margin")
"""The columns of given pairs, as TRL names them: those that have to be there, and those that may."""

SCORES_ALONE = ("positive_class", "reads", "precision", "function", "parts", "batch_tokens")
"""Fields of `reward` that decide how texts are scored, and not what a training here makes."""

NOTES = (".md", ".log", ".png", ".jpg", ".pdf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".tflite")
"""How files end that are no part of a model as it is loaded here: papers, pictures, and weights in other formats."""
PAPERS = ("readme", "license", "licence", "notice", "use_policy", "events.out.")
"""How the names of others begin, in small letters."""
FOLDERS = ("checkpoint-", "runs", "logs", "onnx", "original", "__pycache__")
"""How folders begin that trainings and publishers leave beside a model."""


def fields_of(group: Group, *chosen: str, without: Collection[str] = ()) -> dict[str, Any]:
    """A group's fields; of the groups within it, which are a kind's each, those of the `chosen` kinds alone.

    A field of theirs that is a `Path` counts by the file's content.
    """
    found = group.model_dump(exclude=set(without))
    kinds = {name for name in found if isinstance(getattr(group, name), Group)}
    return {
        name: _by_content(value) if name in kinds else value
        for name, value in found.items()
        if name not in kinds or name in chosen
    }


def sampling_source(sampling: SamplingConfig, without: Collection[str]) -> dict[str, Any]:
    """What decides the samples, beside the model: the fields, and what the engine says of itself.

    Raises EndpointError or ConfigError where the engine is needed for that and cannot be asked.
    """
    if sampling.engine not in ENGINE_VERSIONS.names():
        return fields_of(sampling, sampling.engine, without=without)
    return fields_of(sampling, without=without) | {"engine_version": ENGINE_VERSIONS.get(sampling.engine)(sampling)}


def engine_kinds(sampling: SamplingConfig) -> list[tuple[Kinds[Any], str]]:
    """The kind whose code draws the samples."""
    return [(ENGINES, sampling.engine)]


def drawn_by(sampling: SamplingConfig) -> str:
    """Who draws the samples, for a person who reads the plan, where it is not this process."""
    return "" if sampling.engine == "local" else f", drawn by {sampling.engine}"


def _by_content(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"content": digest_file(value)} if isinstance(value, Path) and value.is_file() else value
        for name, value in fields.items()
    }


def pairs_are_sampled(config: AlignConfig) -> bool:
    """Whether the configured source of pairs makes them of samples that are drawn and scored first."""
    return bool(PAIRS.origin(config.pairs.source).options.get("sampled", True))


def pairs_are_given(config: AlignConfig) -> bool:
    """Whether the rows of the data are pairs, which are trained on as they are."""
    return config.pairs.source == "given"


def pairs_are_scored(config: AlignConfig) -> bool:
    """Whether the configured source of pairs needs the scores of the samples that are drawn."""
    return pairs_are_sampled(config) and bool(PAIRS.origin(config.pairs.source).options.get("scored", True))


def pairs_source(config: AlignConfig) -> dict[str, Any]:
    """What decides which samples become pairs, beside the samples and their scores, or how given pairs are written."""
    settings = {"pairs": fields_of(config.pairs, config.pairs.source, config.pairs.strategy), "seed": config.seed}
    if pairs_are_given(config):
        return settings | {"prompts": prompts_source(config), "libraries": library_versions(TOKENIZERS)}
    if config.pairs.source != "judged":
        return settings
    return settings | {"judge": judge_source(config.reward.judge, read_pair_rubric(config.reward.judge))}


def reward_source(config: AlignConfig) -> dict[str, Any]:
    """What decides the scores, beside the samples and the model."""
    kind = config.reward.kind
    if kind == SUM:
        parts = [
            {"name": part.name, "weight": part.weight, "normalise": part.normalise} | reward_source(alone(config, part))
            for part in config.reward.parts
        ]
        return {"kind": kind, "parts": parts}
    if REWARDS.origin(kind).package:  # it may read whatever it is given
        return {"reward": fields_of(config.reward, kind, "judge"), "seed": config.seed}
    if kind == "judge":
        return {"kind": kind, "judge": judge_source(config.reward.judge, read_rubric(config.reward.judge))}
    if kind == "function":
        return {"kind": kind, "function": function_source(config.reward.function)}
    decides = {"classifier": {"positive_class", "reads", "precision"}, "tfidf": {"reads"}}.get(kind, set())
    others = type(config.reward).model_fields.keys() - {"kind", kind} - decides
    return fields_of(config.reward, kind, without=others)


def function_source(value: str) -> dict[str, str]:
    """The code of a file's function, wherever it lies, or the name of an installed one, whose code counts as a kind's.

    Raises ConfigError where the file cannot be read, or none of this name is installed.
    """
    file = function_file(value)
    if file is None:
        require_installed(value)
        return {"installed": value}
    return {"name": file.name, "code": file.code}


def reward_kinds(config: AlignConfig) -> list[tuple[Kinds[Any], str]]:
    """The kinds whose code labels: of the reward and its parts."""
    return scoring_kinds(config.reward, *config.reward.parts)


def scoring_kinds(*scoring: RewardFields) -> list[tuple[Kinds[Any], str]]:
    """The kinds whose code scores for these rewards, and the functions that are installed."""
    functions = {each.function for each in scoring if each.kind == "function" and not function_file(each.function)}
    kinds = dict.fromkeys(each.kind for each in scoring)
    return [*((REWARDS, kind) for kind in kinds), *((REWARD_FUNCTIONS, name) for name in sorted(functions))]


def reward_model_kinds(*scoring: RewardFields) -> list[tuple[Kinds[Any], str]]:
    """The kinds whose code makes what these rewards score by."""
    names = REWARD_MODELS.names()
    return [(REWARD_MODELS, kind) for kind in dict.fromkeys(each.kind for each in scoring) if kind in names]


def reward_model_source(config: AlignConfig) -> Any:
    """What decides what the reward scores by: its model, its parts' models, or its function's code."""
    if config.reward.kind == SUM:
        return [(part.name, reward_model_source(alone(config, part))) for part in config.reward.parts]
    if config.reward.kind == "function":
        return {"kind": "function", "function": function_source(config.reward.function)}
    return model_source(config, "reward") if takes_model(config.reward) else {"kind": config.reward.kind}


def model_source(config: AlignConfig, group: models.Kind) -> Any:
    """What decides a model: the recipe where it is trained here, the content where it is local, the name on the hub."""
    settings = config.base if group == "base" else config.reward
    if settings.model == "train":
        kind = () if group == "base" else (config.reward.kind,)
        recipe = fields_of(settings, *kind, without={"model", "revision", "load_in", *SCORES_ALONE})
        if group == "reward" and config.reward.start:
            recipe["start"] = _content(config.reward.start, "start") or {"hub": config.reward.start}
        if group == "reward" and config.reward.trained_on == "pairs":
            recipe |= {"reads": config.reward.reads, "system": config.prompts.system}
        return recipe | {"seed": config.seed, "vocab_size": config.base.vocab_size}
    return _content(settings.model, group) or {"hub": settings.model, "revision": settings.revision}


def anchor_source(config: AlignConfig) -> Any:
    """The content of the anchor where it is local, or its name on the hub."""
    return _content(config.evaluation.anchor, "anchor") or {"hub": config.evaluation.anchor}


def prompts_source(config: AlignConfig) -> Any:
    """The settings of the prompts; of the files that they name, the content, wherever it lies."""
    settings = fields_of(config.prompts, config.prompts.source, without={"exclude", "chat_template", "eval_path"})
    excluded = digest(sorted(ids.read_ids(config.prompts.exclude))) if config.prompts.exclude else ""
    template = digest(read_template(config.prompts.chat_template)) if config.prompts.chat_template else ""
    held_out = _rows_of(config.prompts.eval_path, config) if config.prompts.eval_path else {}
    return {
        "prompts": settings | {"longest": longest_prompt(config)},
        "excluded": excluded,
        "template": template,
        "held_out": held_out,
        "seed": config.seed,
    }


def data_source(config: AlignConfig) -> Any:
    """What decides the rows: the files' formats and contents, wherever they lie, or a dataset's name and split."""
    data = config.data.model_dump(exclude={"path", "mixture", "split"})
    wanted = wanted_rows(config)
    columns = {"columns": wanted.needed, "optional": wanted.optional, "nested": wanted.nested}
    sources = [{"weight": source.weight} | _rows_of(source.path, config) for source in sources_of(config.data)]
    return {"data": data | columns, "sources": sources, "seed": config.seed}


def real_data(config: AlignConfig) -> DataConfig:
    """The real texts of `evaluation.real_texts` as data: all of them, read as the run's own texts are."""
    evaluation, data = config.evaluation, config.data
    own = {} if evaluation.real_texts == OWN_DATA else {"path": evaluation.real_texts, "mixture": ()}
    column = evaluation.real_column or data.text_column
    return data.model_copy(update={**own, "text_column": column, "label_column": "", "columns": (), "rows": 0})


def of_real_texts(error: DataError) -> DataError:
    """What is wrong with those texts, under the names of their fields."""
    names = {"data.path": "evaluation.real_texts", "data.text_column": "evaluation.real_column"}
    message = str(error)
    for name, own in names.items():
        message = message.replace(name, own)
    return DataError(message)


def real_source(config: AlignConfig) -> Any:
    """What decides those texts. Raises DataError where a file cannot be read."""
    data = real_data(config)
    settings = data.model_dump(include={"text_column", "min_chars", "max_chars"})
    return settings | {"sources": [_rows_of(source.path, config) for source in sources_of(data)]}


def wanted_rows(config: AlignConfig, data: DataConfig | None = None) -> Wanted:
    """The columns that are read: labels only where a model is trained on them, and all of a given pair's."""
    data = data or config.data
    chats = PROMPTS.origin(config.prompts.source).options.get("nested", False)
    given = config.prompts.source == "pairs"
    return Wanted(
        data.path,
        text=PAIR_COLUMNS[0] if given else data.text_column,
        label=data.label_column if labels_are_read(config) else "",
        columns=tuple(dict.fromkeys((*(PAIR_COLUMNS if given else ()), *data.columns))),
        optional=PAIR_OPTIONS if given else (),
        nested=chats or given,
        split=data.split,
    )


def labels_are_read(config: AlignConfig) -> bool:
    """Whether a model is trained on the labels of the rows."""
    scoring = (*described(config), *config.evaluation.gold)
    return config.reward.trained_on == "labels" and any(is_trained(each) for each in scoring)


def _rows_of(path: str, config: AlignConfig) -> dict[str, Any]:
    """The identity of one source of rows. Raises DataError where a file cannot be read."""
    if path == GRAMMAR:
        return {"path": path}
    if not reading.is_local(path):
        return {"path": path, "split": config.data.split}
    try:
        files = reading.files_of(path)
        return {"files": sorted((digest_file(file), reading.file_format(file)) for file in files)}
    except OSError as error:
        raise DataError(
            f"data.path {path}: cannot be read ({error.strerror or error}); give a file that you may read"
        ) from error


def _content(source: str, kind: models.Kind) -> dict[str, Any]:
    """The digest of a local model, of an adapter its base's as well; empty for one on the hub.

    Raises ModelError where it cannot be read, or is an adapter that cannot be used.
    """
    try:
        folder = models.local_folder(source, kind)
        if folder and kind == "base" and adapters.is_adapter(folder):
            base = adapters.base_of(folder)
            found = {"folder": digest_model(base.folder)} if base.folder else {"hub": base.name}
            revision = {} if base.folder else {"revision": base.revision}
            return {"adapter": digest_model(folder), "base": found | revision, "peft": version("peft")}
        return {"folder": digest_model(folder)} if folder else {}
    except OSError as error:
        raise ModelError(
            f"{models.FIELDS[kind]} {source}: cannot be read ({error.strerror or error}); "
            "give a folder that you may read"
        ) from error


def digest_model(folder: Path) -> str:
    """SHA-256 of what a model is loaded from: neither hidden files, nor what people and tools write beside it."""
    names = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return digest({str(name): digest_file(folder / name) for name in names if _is_loaded(name)})


def _is_loaded(name: Path) -> bool:
    lower = name.name.lower()
    hidden = any(part.startswith(".") for part in name.parts)
    beside = any(part.startswith(FOLDERS) for part in name.parts[:-1])
    return not (hidden or beside or lower.endswith(NOTES) or lower.startswith(PAPERS))
