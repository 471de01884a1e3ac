"""The smoke test of a registered model: it writes texts, and their mean reward is compared with the recorded one."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from alignment.config import AlignConfig
from alignment.config.policy import for_any_model
from alignment.judging.report import EvalReport, Record
from alignment.kinds import ENGINES, REWARDS

SAMPLES = 4  # per prompt
UNPROMPTED = 32  # texts from BOS alone, where no record names prompts
STANDARD_ERRORS = 4.0  # a sound model is refused once in some 16,000 times
MAX_EMPTY = 0.5  # fraction of the texts


class Asked(Record):
    """A prompt: its text, and where its record has them its token ids, its chat as messages and its row's columns."""

    prompt: str
    prompt_ids: tuple[int, ...] = ()
    messages: str = ""
    columns: str = ""


class Written(Record):
    """Texts, prompts included, `SAMPLES` per prompt, and the completions alone; `prompts` has each text's.

    `ids` are the completions' token ids, and `finished` says which of them came to an end.
    """

    prompts: tuple[Asked, ...]
    texts: tuple[str, ...]
    completions: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...] = ()
    finished: tuple[bool, ...] = ()

    @property
    def empty(self) -> int:
        """How many of them have no continuation."""
        return sum(not text.strip() for text in self.completions)


class SmokeResult(Record):
    """What a smoke test found, and the sentence that says so."""

    verdict: Literal["passed", "failed", "not comparable"]
    sentence: str
    texts: tuple[str, ...]
    reward_mean: float | None = None  # in the reward's own units
    recorded_mean: float | None = None  # in the reward's own units
    allowed: float | None = None  # largest difference of the two


def write(
    folder: Path, prompts: Sequence[Asked], config: AlignConfig, progress: Callable[[int, int], None] | None = None
) -> Written:
    """Continue each prompt `SAMPLES` times with the config's sampling; the model is one that `save_pretrained` wrote.

    Raises ModelError where the model cannot be loaded, or a prompt fills its context.
    """
    from alignment.models import load_base, require_context
    from alignment.sampling.engine import completion_text, request

    precision = config.sampling.precision
    loaded = load_base(folder, precision=precision, field="sampling.precision", name="the registered model")
    limit = min(config.sampling.total_tokens, loaded.conventions.longest or config.sampling.total_tokens)
    sampling = for_any_model(config.sampling).model_copy(update={"total_tokens": limit})
    encoded = loaded.encode([asked.prompt for asked in prompts])
    opening = loaded.conventions.opening
    ids = [list(asked.prompt_ids or of_text or opening) for asked, of_text in zip(prompts, encoded, strict=True)]
    require_context(loaded, max(map(len, ids)) + 1, "smoke: tokens of a prompt and one more")
    drawn = ENGINES.get(sampling.engine)(
        loaded,
        [
            request(prompt, sampling, seed=config.seed, purpose="smoke", prompt_id=str(number), index=index)
            for number, prompt in enumerate(ids)
            for index in range(SAMPLES)
        ],
        sampling,
        progress,
    )
    finished = [completion.finished for completion in drawn]
    whole = [[*ids[i // SAMPLES], *completion.ids] for i, completion in enumerate(drawn)]
    asked = tuple(prompt for prompt in prompts for _ in range(SAMPLES))
    texts = tuple(loaded.decode(whole, finished))
    return Written(
        prompts=asked,
        texts=texts,
        completions=tuple(
            completion_text(loaded, prompt.prompt, text, completion)
            for prompt, text, completion in zip(asked, texts, drawn, strict=True)
        ),
        ids=tuple(tuple(completion.ids) for completion in drawn),
        finished=tuple(finished),
    )


def score(
    folder: Path, written: Written, config: AlignConfig, kept: Path, scales: Mapping[str, float] = {}
) -> Sequence[float | None]:
    """The reward of each text by the configured kind, None for one without.

    `folder` is that of the stage `reward`, `kept` the one for what is paid for, and `scales` are the SDs that parts of
    a sum were divided by.
    """
    from alignment.rewards.checking import score as checked
    from alignment.rewards.protocol import Scoring

    samples = [
        {
            "prompt": asked.prompt,
            "text": text,
            "completion": completion,
            "ids": list(ids),
            "finished": finished,
            "messages": json.loads(asked.messages or "[]"),
            "columns": json.loads(asked.columns or "{}"),
        }
        for asked, text, completion, ids, finished in zip(
            written.prompts, written.texts, written.completions, written.ids, written.finished, strict=True
        )
    ]
    return checked(REWARDS.get(config.reward.kind)(config), samples, Scoring(folder, kept, scales=scales)).values


def judge_smoke(written: Written, rewards: Sequence[float | None] | None, report: EvalReport | None) -> SmokeResult:
    """Compare with the record: the mean reward may differ by four standard errors of the difference.

    The prompts are the independent draws on both sides: samples of one prompt are alike. `rewards` and `report` are
    None where the version has no record.
    """
    count = len(written.texts)
    if written.empty > MAX_EMPTY * count:
        sentence = f"{written.empty} of {count} continuations are empty"
        return SmokeResult(verdict="failed", sentence=sentence, texts=written.texts)
    if rewards is None or report is None or not report.has_reward:
        why = "what scored its evaluation is not in this store"
        if report is None or not report.has_reward:
            why = "its run had no reward" if report else "its version has no record of an evaluation"
        sentence = f"writes {count} texts; not comparable, since {why}"
        return SmokeResult(verdict="not comparable", sentence=sentence, texts=written.texts)
    found = np.asarray(rewards, dtype=np.float64).reshape(-1, SAMPLES)  # None becomes NaN
    means = np.array([row[~np.isnan(row)].mean() for row in found if not np.isnan(row).all()])
    if len(means) < 2:
        sentence = f"writes {count} texts; not comparable, since {len(means)} of the prompts have a text with a score"
        return SmokeResult(verdict="not comparable", sentence=sentence, texts=written.texts)
    mean, recorded = float(means.mean()), report.aligned.reward_mean
    error = math.hypot(
        float(means.std(ddof=1)) / math.sqrt(len(means)), report.aligned.reward_sd / math.sqrt(report.prompts)
    )
    allowed = STANDARD_ERRORS * error
    passed = abs(mean - recorded) <= allowed
    sentence = (
        f"mean reward {mean:+.2f} of {count} texts {'agrees with' if passed else 'is not'} the recorded "
        f"{recorded:+.2f}, give or take {allowed:.2f}"
    )
    return SmokeResult(
        verdict="passed" if passed else "failed",
        sentence=sentence,
        texts=written.texts,
        reward_mean=mean,
        recorded_mean=recorded,
        allowed=allowed,
    )
