"""What a judge is asked, and what its answer says: rubrics filled in with a text, and scores and verdicts read."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignment.config import JudgeConfig
from alignment.errors import ConfigError, DataError
from alignment.stages.store import digest

RUBRICS = Path(__file__).parent / "rubrics"
SCORE = RUBRICS / "score.txt"
COMPARE = RUBRICS / "compare.txt"

PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[^{}\s]+)?)\}")
FILLED = ("prompt", "conversation", "columns", "scale_min", "scale_max")
COLUMN = "columns."

NUMBER = re.compile(
    r"(?i)\bscore\b(?:[\s*_`\"]*=|[^:\n]*:)(?:[\s*_`\"\[(<$]|\\boxed\{)*([-+]?\d+(?:\.\d+)?)"
    r"(?![.,]?\d|[-–]\d|[ \t]*[-–][ \t]*\d+(?:\.\d+)?[ \t]*(?:$|[\n*_`\"\])>}/]|\.(?!\d)|(?:out )?of \d))"
)
"""The number behind `Score:` or `Score =`, also in **Score:** 7, Score (1 to 10): 7/10, "score": 7 and \\boxed{7}.

Neither 7,5 nor a range as in 7-8 and 7 – 8 out of 10; what stands on the next line, or has a noun behind its number as
in "8 – 2 issues", is no end of a range.
"""
OUT_OF = re.compile(r"[ \t]*(?:/|out of\b)[ \t]*(\d+(?:\.\d+)?)")
PREFERRED = re.compile(r"(?i)\bpreferred\b[^:\n]*:[\s*_`\"\[(<]*(A|B|tie)\b")
THOUGHT = "</think>"  # behind it stands the answer of a model that shows its reasoning

Verdict = Literal["first", "second", "tie"]
VERDICTS: Mapping[str, Verdict] = {"a": "first", "b": "second", "tie": "tie"}


def read_rubric(config: JudgeConfig) -> str:
    """The template for one completion. Raises ConfigError where its file cannot be read or lacks the completion."""
    text = _read(config.rubric, SCORE, "reward.judge.rubric")
    _require_known(text, (*FILLED, "completion"), "reward.judge.rubric")
    if not {"{completion}", "{conversation}"} & _named(text):
        raise ConfigError(
            f"reward.judge.rubric {config.rubric}: shows the judge no text; write {{completion}} where it belongs"
        )
    return text


def read_pair_rubric(config: JudgeConfig) -> str:
    """The template for two completions. Raises ConfigError where its file cannot be read or lacks one of them."""
    text = _read(config.pair_rubric, COMPARE, "reward.judge.pair_rubric")
    _require_known(text, (*FILLED, "first", "second"), "reward.judge.pair_rubric")
    if not {"{first}", "{second}"} <= _named(text):
        raise ConfigError(
            f"reward.judge.pair_rubric {config.pair_rubric}: has to show the judge both texts; write {{first}} and "
            "{second} where they belong"
        )
    return text


def judge_source(config: JudgeConfig, rubric: str) -> dict[str, Any]:
    """What decides a judge's numbers: the rubric's text, the model's name, and how it is asked and understood.

    Neither where the endpoint is, nor how fast, how often and how much it may be asked. Raises ConfigError where no
    model is named.
    """
    if not config.model:
        raise ConfigError("reward.judge.model: is empty; name the model at the endpoint that is to judge")
    return {
        "rubric": digest(rubric),
        "scale": [config.scale_min, config.scale_max],
        "pattern": config.pattern or NUMBER.pattern,
        "request": {name: value for name, value in request(config, "").items() if name != "messages"},
    }


def request(config: JudgeConfig, question: str) -> dict[str, Any]:
    """The body of a chat request: one user turn, and the settings that decide the answer."""
    body = {
        "model": config.model,
        "messages": [{"role": "user", "content": question.encode("utf-8", "replace").decode("utf-8")}],
        "temperature": config.temperature,
        "max_tokens": config.max_answer_tokens,
        "seed": config.seed,
    }
    return {name: value for name, value in (body | config.extra).items() if value is not None}


def fill(template: str, sample: Mapping[str, Any], config: JudgeConfig, **texts: str) -> str:
    """The template with a sample's texts in it; a placeholder that stands in one of these texts stays as it is.

    `texts` are those that the judge is to judge. For a chat `{prompt}` is all of its turns up to the completion, or the
    user's words where there is only one; `{conversation}` has the completion, if there is just one, as its last turn.
    Raises DataError where a column is missing.
    """
    messages: list[Mapping[str, Any]] = list(sample.get("messages") or ())
    answer = [{"role": "assistant", "content": texts["completion"]}] if "completion" in texts else []
    values = texts | {
        "prompt": _turns(messages) if messages else sample["prompt"],
        "conversation": _turns([*messages, *answer]) if messages else sample["prompt"] + texts.get("completion", ""),
        "columns": json.dumps(sample.get("columns") or {}, ensure_ascii=False, default=str),
        "scale_min": f"{config.scale_min:g}",
        "scale_max": f"{config.scale_max:g}",
    }

    def value(found: re.Match[str]) -> str:
        name = found[1]
        return _column(sample, name.removeprefix(COLUMN)) if name.startswith(COLUMN) else values[name]

    return PLACEHOLDER.sub(value, template)


def read_score(answer: str, config: JudgeConfig) -> float | None:
    """The score that an answer gives, or None where it gives none on the scale, as 7/100 is where 10 is the highest."""
    said = _said(answer)
    found = list(re.finditer(config.pattern or NUMBER, said))
    try:
        score = float(found[-1][1]) if found else math.nan
    except (ValueError, TypeError):  # a group that took no part in the match is None
        return None
    highest = OUT_OF.match(said, found[-1].end(1)) if found and not config.pattern else None
    if highest and float(highest[1]) != config.scale_max:
        return None
    return score if config.scale_min <= score <= config.scale_max else None


def read_verdict(answer: str) -> Verdict | None:
    """Which of two texts an answer prefers, or None where it does not say."""
    found = PREFERRED.findall(_said(answer))
    return VERDICTS[found[-1].lower()] if found else None


def _said(answer: str) -> str:
    """An answer without the reasoning before it; nothing where the reasoning never came to its end."""
    said = answer.rpartition(THOUGHT)[2]
    return "" if said.lstrip().startswith("<think>") else said


def _turns(messages: Sequence[Mapping[str, Any]]) -> str:
    if len(messages) == 1 and messages[0]["role"] == "user":
        return _said_in(messages[0])
    return "\n\n".join(f"{turn['role'].capitalize()}: {_said_in(turn)}" for turn in messages)


def _said_in(turn: Mapping[str, Any]) -> str:
    """A turn's text; of one without, such as an assistant's that calls a tool, its other fields as JSON."""
    others = {name: value for name, value in turn.items() if name not in ("role", "content")}
    return turn.get("content") or (json.dumps(others, ensure_ascii=False, default=str) if others else "")


def _column(sample: Mapping[str, Any], name: str) -> str:
    columns: Mapping[str, Any] = sample.get("columns") or {}
    if name not in columns:
        raise DataError(
            f"reward.judge: the rubric has {{columns.{name}}}, and the rows' columns are "
            f"{', '.join(columns) or 'none'}; name it in data.columns, or take it out of the rubric"
        )
    value = columns[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _named(text: str) -> set[str]:
    return {found[0] for found in PLACEHOLDER.finditer(text)}


def _require_known(text: str, known: Sequence[str], field: str) -> None:
    names = [found[1] for found in PLACEHOLDER.finditer(text)]
    unknown = [name for name in names if name not in known and not name.startswith(COLUMN)]
    if unknown:
        raise ConfigError(
            f"{field}: {{{unknown[0]}}} is no placeholder; it takes {', '.join(f'{{{name}}}' for name in known)} and "
            "{columns.NAME}"
        )


def _read(path: str, built_in: Path, field: str) -> str:
    try:
        text = (Path(path) if path else built_in).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{field} {path}: {error.strerror or error}; give a text file that you may read") from error
    except ValueError as error:
        raise ConfigError(f"{field} {path}: is not UTF-8 text; save it as that") from error
    if not text.strip():
        raise ConfigError(f"{field} {path}: is empty; write what the judge is asked, or leave the field out")
    return text
