"""A first configuration from five answers: commented YAML that is valid, and names what is worth changing."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.config import build_config
from alignment.conventions import CONTEXT_NAMES
from alignment.data.guessing import Guess
from alignment.errors import ConfigError
from alignment.yaml_file import parse_yaml

Size = Literal["cpu", "gpu"]
CHAT_MODEL = re.compile(r"instruct|chat|(^|[-_/])it($|[-_])", re.IGNORECASE)
PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+-]*")
NULLS = {"null", "Null", "NULL", "~"}
SIZES: dict[Size, dict[str, Any]] = {
    "cpu": {"count": 256, "eval_count": 64, "total": 192, "steps": 100, "pairs": 4, "bf16": False},
    "gpu": {"count": 2_048, "eval_count": 256, "total": 768, "steps": 300, "pairs": 8, "bf16": True},
}
"""Prompts, tokens of prompt and answer, and steps that a machine takes in minutes to an hour."""
Line = tuple[str, Any, str]


@dataclass(frozen=True)
class Answers:
    """What was asked: the model, the data with what it holds, the reward, the machine, and the registered name.

    `reward` is `train`, `none`, `judge`, a function (FILE.py:NAME), or a reward model as `base.model` is named.
    """

    model: str
    data: str
    guess: Guess
    reward: str
    size: Size
    name: str
    judge_model: str = ""
    judge_url: str = "http://127.0.0.1:8000/v1"


def default_reward(guess: Guess) -> str:
    """What can score the answers without a further model, where there is such a thing."""
    if guess.holds == "pairs":
        return "none"
    return "train" if guess.holds == "texts" and guess.label_column else ""


def draft(answers: Answers) -> str:
    """The YAML of a configuration. Raises ConfigError where the answers do not go together."""
    _require_together(answers)
    groups = {
        "data": _data(answers),
        "base": _base(answers),
        "reward": _reward(answers),
        "prompts": _prompts(answers),
        "sampling": _sampling(answers),
        "pairs": [("source", "given", "the rows' own pairs; no samples are drawn to train on")]
        if answers.guess.holds == "pairs"
        else [],
        "validation": _validation(answers),
        "dpo": _dpo(answers),
        "evaluation": [("judge", "grammar", "also counts grammatical sentences, for the built-in grammar alone")]
        if answers.data == "grammar"
        else [],
        "registry": [
            ("experiment", answers.name, "of MLflow, where the run is kept"),
            ("model_name", answers.name, "a model that passes the gates becomes a version of it"),
        ],
    }
    head = [
        f"# {answers.name}: written by `plumbline init`. Every field that is not named keeps its default;",
        "# `plumbline run --help all` lists them all, and a flag such as --dpo.beta 0.2 overrides one of these.",
    ]
    lines = [*head, "seed: 0", *(line for name, rows in groups.items() for line in _group(name, rows))]
    text = "\n".join(lines) + "\n"
    build_config(parse_yaml(text), source="this configuration")
    return text


def _require_together(answers: Answers) -> None:
    holds = answers.guess.holds
    if not answers.reward:
        raise ConfigError(
            f"reward: {holds} without labels need something that scores answers: a reward model (a folder or a hub "
            "name), a function (FILE.py:NAME), or `judge`"
        )
    if answers.model == "train" and holds != "texts":
        raise ConfigError(
            f"model: `train` makes a small model of texts, and {answers.data} holds {holds}; give a folder, or a name "
            "on the hub"
        )
    if answers.reward == "train" and not (holds == "texts" and answers.guess.label_column):
        raise ConfigError(
            f"reward: `train` learns from labelled texts, and {answers.data} holds {holds} without labels; give a "
            "reward model, a function (FILE.py:NAME), or `judge`"
        )
    if answers.reward == "none" and holds != "pairs":
        raise ConfigError(f"reward: `none` goes with pairs alone, and {answers.data} holds {holds}; name a reward")
    if answers.reward == "judge" and not answers.judge_model:
        raise ConfigError("judge_model: is empty; name the model at the endpoint that judges")


def _data(answers: Answers) -> Iterator[Line]:
    guess = answers.guess
    yield "path", answers.data, f"holds {guess.holds}"
    if guess.holds == "pairs":
        yield "rows", 0, "all of them: prompt (or none), chosen, rejected, and scores if there are any"
    elif answers.data != "grammar":
        yield "text_column", guess.text_column, ""
        yield "rows", 0, "all of them"
    else:
        yield "rows", 10_000, "reviews to make"
    if answers.reward != "train":
        yield "label_column", "", "nothing is trained on labels here"
    elif answers.data != "grammar":
        yield "label_column", guess.label_column, "trains the reward model"
        yield "positive_label", guess.positive_label, "what is rewarded"
        if guess.negative_label:
            yield "negative_label", guess.negative_label, "rows with another label are dropped, and counted"


def _base(answers: Answers) -> Iterator[Line]:
    yield "model", answers.model, "to align, and what the result is compared with"
    if answers.model == "train":
        small = answers.size == "cpu"
        if answers.data == "grammar":
            yield "steps", 280, ""
            yield "learning_rate", "5.0e-3", ""
            return
        yield "vocab_size", 4_096, ""
        yield "layers", 3 if small else 6, ""
        yield "width", 192 if small else 384, ""
        yield "heads", 6, ""
        yield "steps", 1_600 if small else 4_000, ""
        yield "learning_rate", "2.0e-3" if small else "1.0e-3", ""


def _reward(answers: Answers) -> Iterator[Line]:
    if answers.reward == "none":
        yield "kind", "none", "the pairs say what is better; another kind would also score the result"
    elif answers.reward == "judge":
        yield "kind", "judge", "a model behind an OpenAI-compatible endpoint grades each answer"
        yield "judge", {"url": answers.judge_url, "model": answers.judge_model}, ""
    elif ".py:" in answers.reward:
        yield "kind", "function", "NAME(prompts, completions, **columns) gives a list of numbers"
        yield "function", answers.reward, "relative to the directory that the run is started in"
    else:
        yield "kind", "classifier", "a model that scores the text"
        yield "model", answers.reward, "trained here from the labels" if answers.reward == "train" else ""
        if answers.reward == "train" and answers.data != "grammar":
            yield "width", 128, ""
            yield "steps", 2_000, ""
            yield "learning_rate", "5.0e-4", ""
        elif answers.reward == "train":
            yield "learning_rate", "2.0e-3", ""


def _prompts(answers: Answers) -> Iterator[Line]:
    size, holds = SIZES[answers.size], answers.guess.holds
    if holds == "texts":
        yield "source", "first_tokens", "of each text"
        yield "tokens_min", 8, ""
        yield "tokens_max", 8, ""
    elif holds == "pairs":
        yield "source", "pairs", "the prompts of the pairs"
    elif holds == "chats":
        yield "source", "messages", "chats that end with the user's turn, by the model's chat template"
    elif is_chat_model(answers.model):
        yield "source", "messages", "each prompt is the user's turn; `column` for a model without a chat template"
    else:
        yield "source", "column", "each prompt as it is; `messages` for a model with a chat template"
    if holds in {"prompts", "chats"}:
        yield "too_long", "drop", "or keep_end, keep_start"
    yield "count", 512 if answers.data == "grammar" else size["count"], "to train on, at most"
    yield "eval_count", 256 if answers.data == "grammar" else size["eval_count"], "held out, to judge the result on"


def _sampling(answers: Answers) -> Iterator[Line]:
    size = SIZES[answers.size]
    if answers.guess.holds != "pairs":
        yield "samples_per_prompt", 4, "the best and the worst of them make a pair"
    yield "total_tokens", total_tokens(answers), "prompt and answer together, at most"
    if answers.model != "train" and size["bf16"]:
        yield "precision", "bf16", ""


def _validation(answers: Answers) -> Iterator[Line]:
    if answers.guess.holds == "texts":
        return
    yield "max_length_ratio", 8, "answers differ in length more than continuations of a text do"
    if answers.reward == "judge":
        yield "min_gap", "1.0", "a point on the judge's scale"


def _dpo(answers: Answers) -> Iterator[Line]:
    size = SIZES[answers.size]
    if answers.model == "train":
        yield "loss", "hinge", "or sigmoid, ipo, robust, distill"
        yield "beta", 0.5, "lower: further from the base"
        yield "learning_rate", "3.0e-4" if answers.data == "grammar" else "1.0e-4", ""
        yield "steps", 150 if answers.data == "grammar" else 200, ""
        return
    yield "adapter", "lora", "low-rank matrices, merged at the end; none: every weight is trained"
    yield "loss", "sigmoid", "or hinge, ipo, robust"
    yield "beta", 0.1 if answers.guess.holds != "texts" else 0.3, "lower: further from the base"
    yield "learning_rate", "5.0e-5", ""
    yield "steps", size["steps"], ""
    yield "batch_size", size["pairs"], "pairs a step"
    if size["bf16"]:
        yield "precision", "bf16", ""


def total_tokens(answers: Answers) -> int:
    """Prompt and answer together: what the machine takes, the context of a model that lies here, and of one trained."""
    if answers.guess.holds == "texts":
        return min(64, _context(answers.model) or 64)
    return min(int(SIZES[answers.size]["total"]), _context(answers.model) or 10**6)


def is_chat_model(model: str) -> bool:
    """Whether a model has a chat template, as its folder shows or its name says."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return bool(CHAT_MODEL.search(model))
    named = _json(folder / "tokenizer_config.json").get("chat_template")
    return bool(named) or (folder / "chat_template.jinja").exists()


def _context(model: str) -> int | None:
    config = _json(Path(model).expanduser() / "config.json")
    named = (config.get(name) for name in CONTEXT_NAMES)
    return min((value for value in named if isinstance(value, int) and value > 1), default=None)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _group(name: str, rows: Iterable[Line]) -> Iterator[str]:
    for number, (field, value, note) in enumerate(rows):
        if not number:
            yield f"{name}:"
        text = f"  {field}: {_value(value)}"
        yield f"{text:<38} # {note}" if note else text


def _value(value: Any) -> str:
    """A value as YAML: quoted where a plain text would be something else."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_value(below)}' for name, below in value.items())}}}"
    text = str(value)
    return text if PLAIN.fullmatch(text) and text not in NULLS else json.dumps(text, ensure_ascii=False)
