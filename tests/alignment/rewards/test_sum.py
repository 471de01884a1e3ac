"""The reward `sum`: weights, scales and parts by hand, and what becomes of a part that gives no score."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.errors import ScoreError
from alignment.kinds import REWARD_MODELS, REWARDS
from alignment.rewards.checking import score, score_batches
from alignment.rewards.parts import alone, described, is_trained, takes_model
from alignment.rewards.protocol import Batches, Scores, Scoring
from alignment.stages.job import Job

SAMPLES: list[dict[str, Any]] = [
    {"prompt": "", "text": text, "completion": text, "ids": [], "messages": [], "columns": {}}
    for text in ("a", "abc", "abcde")
]
RULES = (
    "def long(completions, **_):\n    return [len(c) for c in completions]\n"
    "def first(completions, **_):\n    return [1.0 if len(c) == 1 else 0.0 for c in completions]\n"
    "def unsure(completions, **_):\n    return [None if len(c) == 3 else 2.0 * len(c) for c in completions]\n"
    "def same(completions, **_):\n    return [7.0 for c in completions]\n"
)


def config(*parts: dict[str, Any]) -> AlignConfig:
    return build_config({"reward": {"kind": "sum", "parts": [{"kind": "function"} | part for part in parts]}})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run(*parts)`: the scores of three texts of 1, 3 and 5 signs; a part's `function` is one of those above."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text(RULES, encoding="utf-8")

    def scored(*parts: dict[str, Any], **scoring: Any) -> Scores:
        made = config(*({**part, "function": f"rules.py:{part['function']}"} for part in parts))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        REWARD_MODELS.get("sum")(Job(made, {}, out, tmp_path / "work", out))
        return score(REWARDS.get("sum")(made), SAMPLES, Scoring(out, out, **scoring))

    return scored


def test_parts_are_weighted_and_added_up_and_each_is_kept_as_it_was(run: Any) -> None:
    found = run({"name": "long", "function": "long", "weight": 2}, {"name": "first", "function": "first", "weight": -3})
    assert found.values == [2 * 1 - 3, 2 * 3, 2 * 5]
    assert found.parts == {"long": [1.0, 3.0, 5.0], "first": [1.0, 0.0, 0.0]}
    assert found.scales == {}


def test_a_sample_that_one_part_gives_no_score_has_none(run: Any) -> None:
    found = run({"name": "long", "function": "long"}, {"name": "unsure", "function": "unsure"})
    assert found.values == [1 + 2, None, 5 + 10]
    assert found.parts["unsure"] == [2.0, None, 10.0]


def test_a_part_is_divided_by_the_sd_of_the_scores_that_it_gave(run: Any) -> None:
    """The SDs are 2 of (1, 3, 5), and that of (2, 10) of the part that leaves one text out."""
    found = run(
        {"name": "long", "function": "long", "normalise": True},
        {"name": "unsure", "function": "unsure", "normalise": True, "weight": 4},
    )
    sd = statistics.stdev([2.0, 10.0])
    assert found.scales == pytest.approx({"long": 2.0, "unsure": sd})
    assert found.values[0] == pytest.approx(1 / 2 + 4 * 2 / sd)
    assert found.parts["long"] == [1.0, 3.0, 5.0]  # as it was


def test_later_samples_are_divided_by_the_sds_of_the_first(run: Any) -> None:
    found = run({"name": "long", "function": "long", "normalise": True}, scales={"long": 10.0})
    assert (found.values, found.scales) == (pytest.approx([0.1, 0.3, 0.5]), {"long": 10.0})


def test_a_part_without_spread_cannot_be_normalised(run: Any) -> None:
    assert run({"name": "plain", "function": "same"}).values == [7.0] * 3
    with pytest.raises(
        ScoreError, match=r"^reward\.parts: flat gives 3 of the base's samples scores that do not differ"
    ):
        run({"name": "flat", "function": "same", "normalise": True})


def test_progress_counts_every_part(run: Any) -> None:
    told: list[tuple[int, int]] = []
    run(
        {"name": "long", "function": "long"},
        {"name": "first", "function": "first"},
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(3, 6), (6, 6)]


def test_counts_are_given_once_though_the_last_batch_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part reads one text of each batch in part and makes two calls for it; of the sum each is told once."""

    class Part:
        def __init__(self, _: AlignConfig) -> None: ...

        def score(self, samples: Any, work: Scoring) -> Scores:
            return Scores([1.0 for _ in samples], truncated=1, counts={"calls": 2})

    kind = REWARDS.get("sum")(config({"name": "own", "function": "rules.py:long"}))
    monkeypatch.setattr(REWARDS, "get", lambda name: Part)
    batches = Batches(3, lambda: iter([SAMPLES[:2], SAMPLES[2:], []]))
    found = list(score_batches(kind, batches, Scoring(Path(), Path())))
    assert [scores.values for scores in found] == [[1.0, 1.0], [1.0], []]
    assert [(scores.truncated, scores.counts) for scores in found] == [(0, {}), (0, {}), (3, {"own_calls": 6})]


# Parts as rewards by themselves


def test_a_part_may_be_a_model_in_a_folder_of_its_own(reward_folder: Path, tmp_path: Path) -> None:
    one = {"name": "kind", "kind": "classifier", "model": str(reward_folder)}
    made = config(one, one | {"name": "unkind", "positive_class": "NEGATIVE", "weight": 0.5})
    counts = REWARD_MODELS.get("sum")(Job(made, {}, tmp_path, tmp_path / "work", tmp_path))
    assert counts == {"parts": 2, "kind_copied": 1, "unkind_copied": 1}
    found = score(REWARDS.get("sum")(made), SAMPLES, Scoring(tmp_path, tmp_path))
    folder = tmp_path / "parts" / "kind"
    for name, wanted in (("kind", "POSITIVE"), ("unkind", "NEGATIVE")):
        plain = build_config({"reward": {"positive_class": wanted}})
        alone_found = score(REWARDS.get("classifier")(plain), SAMPLES, Scoring(folder, tmp_path)).values
        assert found.parts[name] == pytest.approx(alone_found)


def test_a_part_is_run_as_the_reward_and_keeps_the_settings_of_trainings() -> None:
    made = config({"name": "first", "kind": "classifier"}, {"name": "rule", "function": "rules.py"})
    first = alone(made, made.reward.parts[0])
    assert (first.reward.kind, first.reward.parts, first.reward.steps) == ("classifier", (), made.reward.steps)
    assert described(made) == made.reward.parts
    assert described(first) == (first.reward,)
    assert [is_trained(part) for part in made.reward.parts] == [True, False]
    assert not takes_model(made.reward)
