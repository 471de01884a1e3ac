"""The reward `classifier`: the raw logit of the class to reward, by a sequence classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.config import AlignConfig
from alignment.errors import ModelError
from alignment.logits import class_logits
from alignment.models import Loaded
from alignment.rewards.checking import require_finite
from alignment.rewards.protocol import Progress, Scores, Scoring, reward
from alignment.rewards.reading import read_samples, read_texts
from alignment.rows import MODEL
from alignment.stages.kept import reward_model


@reward("classifier")
class Classifier:
    """Scores texts by the model that `classifier_model` trained or copied."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.positive_class` names the class to reward."""
        self.config = config.reward

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """The logit of each sample, read as `reward.reads` says, and how many are longer than the model reads.

        Raises ModelError where the class to reward is unknown, and as `score_texts` and `read_samples` do.
        """
        loaded = reward_model(work.folder / MODEL, self.config.precision, f"reward.model {self.config.model}")
        column = positive_class(loaded.model.config, self.config.positive_class)
        read = read_samples(loaded, samples, self.config.reads)
        values = class_logits(
            loaded, read.ids, batch_tokens=self.config.batch_tokens, types=read.types, progress=work.progress
        )
        return Scores(values[:, column].tolist(), read.truncated)


def score_texts(
    loaded: Loaded, texts: Sequence[str], *, column: int, batch_tokens: int = 0, progress: Progress | None = None
) -> NDArray[np.float64]:
    """The raw logit in `column` for each of N texts, shape [N]; batched by length, returned in the given order.

    Raises ModelError where the model lacks a token or cannot be run, SelfCheckError where a batch's logits are not
    those of its texts one by one, and ScoreError, naming the first text, where a score is NaN or infinite.
    """
    read = read_texts(loaded, texts)
    found = class_logits(loaded, read.ids, batch_tokens=batch_tokens, types=read.types, progress=progress)[:, column]
    require_finite(found.tolist(), texts)
    return found


def positive_class(config: Any, wanted: str) -> int:
    """The index of the logit that is the reward: a class's name, else an index, or `auto`; one output is a scalar head.

    A name goes before an index, for names that are digits. Raises ModelError where the class is unknown or not the
    only one of its name, or where `auto` cannot tell which one is positive.
    """
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if wanted == "auto":
        if len(names) == 1:
            return 0
        wanted = next((name for name in names.values() if name.upper() in {"POSITIVE", "POS"}), "")
        if not wanted and len(names) == 2 and set(names.values()) == {"LABEL_0", "LABEL_1"}:
            return 1
    found = [index for index, name in names.items() if name == wanted]
    found = found or [index for index in names if str(index) == wanted]
    if len(found) != 1:
        way_out = (
            f"{wanted} names several: give its index" if found else "set reward.positive_class to the one to reward"
        )
        raise ModelError(
            f"reward.positive_class: the reward model's classes are {', '.join(names.values())}; {way_out}"
        )
    return found[0]
