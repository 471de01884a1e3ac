"""The smoke test's arithmetic, by hand, and a tiny model that writes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import kinds
from alignment.config import AlignConfig, SamplingConfig
from alignment.errors import ModelError
from alignment.judging.smoke import SAMPLES, Asked, Written, judge_smoke, score, write
from alignment.rewards.protocol import Scores
from tests.registered import report

WRITTEN = Written(prompts=(), texts=("a film",) * 4 * SAMPLES, completions=(" film",) * 4 * SAMPLES)
REWARDS = [reward for mean in (1.0, 2.0, 3.0, 4.0) for reward in (mean - 0.5, mean + 0.5, mean - 0.1, mean + 0.1)]
# Four prompts with means 1, 2, 3, 4: SD sqrt(5/3), so a standard error of sqrt(5/3)/2 = 0.645. The record: 1.2 over
# sqrt(256) = 0.075. Together sqrt(5/12 + 0.005625) = 0.650, of which four are 2.599.
ALLOWED = 4 * math.sqrt(5 / 12 + 0.075**2)


def with_empty(count: int) -> Written:
    return WRITTEN.model_copy(update={"completions": (" ",) * count + WRITTEN.completions[count:]})


def recorded(mean: float) -> Any:
    found = report()
    return found.model_copy(update={"aligned": found.aligned.model_copy(update={"reward_mean": mean})})


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(2.5, "passed"), (2.5 + 2.59, "passed"), (2.5 - 2.59, "passed"), (2.5 + 2.61, "failed"), (2.5 - 2.61, "failed")],
)
def test_a_mean_reward_may_differ_by_four_standard_errors_over_prompts(mean: float, verdict: str) -> None:
    result = judge_smoke(WRITTEN, REWARDS, recorded(mean))
    assert result.verdict == verdict
    assert result.allowed == pytest.approx(ALLOWED)
    assert (result.reward_mean, result.recorded_mean) == (pytest.approx(2.5), mean)
    assert "\n" not in result.sentence


@pytest.mark.parametrize(("empty", "verdict"), [(8, "passed"), (9, "failed")])
def test_a_model_that_mostly_writes_nothing_fails(empty: int, verdict: str) -> None:
    result = judge_smoke(with_empty(empty), REWARDS, recorded(2.5))
    assert result.verdict == verdict
    assert ("9 of 16 continuations are empty" in result.sentence) == (verdict == "failed")


def test_without_a_record_there_is_nothing_to_compare_with() -> None:
    result = judge_smoke(WRITTEN, None, None)
    assert result.verdict == "not comparable"
    assert "no record" in result.sentence
    assert judge_smoke(with_empty(16), None, None).verdict == "failed"


@pytest.fixture
def folder(tmp_path: Path, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    tiny_gpt2(vocab_size=len(tiny_tokenizer), context=32).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_each_prompt_is_continued_within_the_model_s_context(folder: Path) -> None:
    """The config asks for 64 tokens, and the model sees 32."""
    written = write(folder, (Asked(prompt="a fine film"), Asked(prompt="")), AlignConfig())
    assert len(written.texts) == 2 * SAMPLES
    assert all(text.startswith("a fine film") for text in written.texts[:SAMPLES])
    assert len({*written.texts[:SAMPLES]}) > 1
    assert 0 <= written.empty < len(written.texts)
    assert write(folder, (Asked(prompt="a fine film"), Asked(prompt="")), AlignConfig()) == written


def test_a_recorded_prompt_is_continued_by_its_token_ids(folder: Path, tiny_tokenizer: Any) -> None:
    """The text of a chat's prompt lacks the special tokens that the template wrote."""
    ids = tuple(tiny_tokenizer("a fine film")["input_ids"])
    by_ids = write(folder, (Asked(prompt="for people", prompt_ids=ids),), AlignConfig())
    assert by_ids.texts == write(folder, (Asked(prompt="a fine film"),), AlignConfig()).texts


def test_a_reward_is_given_what_the_stages_give_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ids and ends too: a function may count tokens, and a judge may read the completion alone."""
    seen: list[Any] = []

    class Looks:
        def __init__(self, _: AlignConfig) -> None: ...

        def score(self, samples: Any, _: Any) -> Scores:
            seen.extend(samples)
            return Scores([0.0] * len(samples))

    monkeypatch.setattr(kinds.REWARDS, "get", lambda _: Looks)
    written = write(folder, (Asked(prompt="a fine film", columns='{"answer": 4}'),), AlignConfig())
    score(tmp_path, written, AlignConfig(), tmp_path)
    sample = seen[0]
    assert sample["text"] == sample["prompt"] + sample["completion"]
    assert sample["columns"] == {"answer": 4}
    assert len(sample["ids"]) > 0
    assert isinstance(sample["finished"], bool)


def test_texts_without_a_score_are_left_out_of_the_mean() -> None:
    some: list[float | None] = [*REWARDS]
    some[0] = None  # the first prompt's mean is that of 1.5, 0.9 and 1.1
    assert judge_smoke(WRITTEN, some, recorded(2.5)).reward_mean == pytest.approx((3.5 / 3 + 2 + 3 + 4) / 4)
    assert judge_smoke(WRITTEN, [None] * 16, recorded(2.5)).verdict == "not comparable"


def test_a_prompt_that_fills_the_context_is_refused(folder: Path) -> None:
    config = AlignConfig(sampling=SamplingConfig(total_tokens=64))
    with pytest.raises(ModelError, match="context of 32 tokens"):
        write(folder, (Asked(prompt="the plot was fine " * 20),), config)


def test_what_scored_the_evaluation_may_be_gone_and_a_run_may_have_had_no_reward() -> None:
    gone = judge_smoke(WRITTEN, None, recorded(2.5))
    assert gone.verdict == "not comparable"
    assert gone.sentence.endswith("not comparable, since what scored its evaluation is not in this store")
    none = judge_smoke(WRITTEN, None, recorded(2.5).model_copy(update={"compared": 0}))
    assert none.sentence.endswith("not comparable, since its run had no reward")
