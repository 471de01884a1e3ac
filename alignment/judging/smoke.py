"""Whether a model that was loaded from where it is kept writes, and is rewarded, as its record says."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from alignment.config import AlignConfig
from alignment.judging.report import EvalReport, Record

SAMPLES = 4  # a prompt
UNPROMPTED = 32  # texts from BOS alone, where no record names prompts
STANDARD_ERRORS = 4.0  # a sound model is refused once in some 16,000 times
MAX_EMPTY = 0.5  # fraction of the texts


class Written(Record):
    """Texts, prompts included, `SAMPLES` a prompt in the order of the prompts, and how many have no continuation."""

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
    from alignment.sampling.local import generate

    loaded = load_base(folder, precision=config.sampling.precision, name="the registered model")
    limit = min(config.sampling.total_tokens, loaded.conventions.longest or config.sampling.total_tokens)
    sampling = config.sampling.model_copy(update={"total_tokens": limit})
    ids = [encoded or list(loaded.conventions.opening) for encoded in loaded.encode(prompts)]
    require_context(loaded, max(map(len, ids)) + 1, "smoke: tokens of a prompt and one more")
    drawn = generate(
        loaded.model,
        [
            request(prompt, sampling, seed=config.seed, purpose="smoke", prompt_id=str(number), index=index)
            for number, prompt in enumerate(ids)
            for index in range(SAMPLES)
        ],
        sampling,
        loaded.conventions,
        name=loaded.name,
        progress=progress,
    )
    finished = [completion.finished for completion in drawn]
    whole = [[*ids[i // SAMPLES], *completion.ids] for i, completion in enumerate(drawn)]
    continuations = loaded.decode([completion.ids for completion in drawn], finished)
    return Written(texts=tuple(loaded.decode(whole, finished)), empty=sum(not text.strip() for text in continuations))


def score(folder: Path, texts: Sequence[str], config: AlignConfig) -> list[float]:
    """The reward of each text in logits, by the reward model in `folder`."""
    from alignment.models import load_reward
    from alignment.rewards.classifier import positive_class, score_texts

    loaded = load_reward(folder)
    column = positive_class(loaded.model.config, config.reward.positive_class)
    scores: list[float] = score_texts(loaded, texts, column=column, batch_size=config.reward.batch_size * 8).tolist()
    return scores


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
