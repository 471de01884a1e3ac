"""The smoke test of a registered model: it writes texts, and their mean reward is compared with the recorded one."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from alignment.config import AlignConfig
from alignment.judging.report import EvalReport, Record
from alignment.kinds import ENGINES, REWARDS

SAMPLES = 4  # per prompt
UNPROMPTED = 32  # texts from BOS alone, where no record names prompts
STANDARD_ERRORS = 4.0  # a sound model is refused once in some 16,000 times
MAX_EMPTY = 0.5  # fraction of the texts


class Written(Record):
    """Texts, prompts included, `SAMPLES` per prompt, and how many have no continuation; `prompts` has each text's."""

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    empty: int


class SmokeResult(Record):
    """What a smoke test found, and the sentence that says so."""

    verdict: Literal["passed", "failed", "not comparable"]
    sentence: str
    texts: tuple[str, ...]
    reward_mean: float | None = None  # logits
    recorded_mean: float | None = None  # logits
    allowed: float | None = None  # largest difference of the two


def write(
    folder: Path, prompts: Sequence[str], config: AlignConfig, progress: Callable[[int, int], None] | None = None
) -> Written:
    """Continue each prompt `SAMPLES` times with the config's sampling; the model is one that `save_pretrained` wrote.

    Raises ModelError where the model cannot be loaded, or a prompt fills its context.
    """
    from alignment.models import load_base, require_context
    from alignment.sampling.engine import request

    loaded = load_base(folder, precision=config.sampling.precision, name="the registered model")
    limit = min(config.sampling.total_tokens, loaded.conventions.longest or config.sampling.total_tokens)
    sampling = config.sampling.model_copy(update={"total_tokens": limit})
    ids = [encoded or list(loaded.conventions.opening) for encoded in loaded.encode(prompts)]
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
    continuations = loaded.decode([completion.ids for completion in drawn], finished)
    asked = tuple(prompt for prompt in prompts for _ in range(SAMPLES))
    return Written(
        prompts=asked,
        texts=tuple(loaded.decode(whole, finished)),
        empty=sum(not text.strip() for text in continuations),
    )


def score(folder: Path, written: Written, config: AlignConfig) -> Sequence[float]:
    """The reward of each text by the configured kind; `folder` is that of the stage `reward`."""
    from alignment.rewards.checking import score as checked

    samples = [{"prompt": prompt, "text": text} for prompt, text in zip(written.prompts, written.texts, strict=True)]
    return checked(REWARDS.get(config.reward.kind)(config), folder, samples).values


def judge_smoke(written: Written, rewards: Sequence[float] | None, report: EvalReport | None) -> SmokeResult:
    """Compare with the record: the mean reward may differ by four standard errors of the difference.

    The prompts are the independent draws on both sides: samples of one prompt are alike. `rewards` and `report` are
    None where the version has no record.
    """
    count = len(written.texts)
    if written.empty > MAX_EMPTY * count:
        sentence = f"{written.empty} of {count} continuations are empty"
        return SmokeResult(verdict="failed", sentence=sentence, texts=written.texts)
    if rewards is None or report is None:
        sentence = f"writes {count} texts; not comparable, since its version has no record of an evaluation"
        return SmokeResult(verdict="not comparable", sentence=sentence, texts=written.texts)
    means = np.asarray(rewards, dtype=np.float64).reshape(-1, SAMPLES).mean(axis=1)
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
