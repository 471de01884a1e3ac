"""Which faults end one point of a sweep or a frontier, and which end all that share them."""

from typing import Any

import pytest

from alignment.config import FrontierConfig, PointConfig, build_config, frontier_configs
from alignment.errors import ModelError, PlumblineError, ScoreError, TrainingError
from flows import frontier
from flows.points import is_own
from tasks.pipeline import FRONTIER, PIPELINE
from tasks.registry import runs
from tests.flows.small import SMALL

CONFIG = build_config(SMALL)


@pytest.mark.parametrize(
    ("finished", "own"),
    [
        ("texts base reward prompts samples scores pairs validation reference", True),  # the policy comes next
        ("texts base reward prompts samples scores pairs validation reference policy", False),  # the base's evaluation
        ("texts base reward prompts samples scores pairs validation reference policy before", True),
        ("texts", False),
        (" ".join(stage.name for stage in PIPELINE.wanted(CONFIG)), True),
    ],
)
def test_a_fault_is_a_point_s_own_from_its_policy_on(finished: str, own: bool) -> None:
    refs: Any = dict.fromkeys(finished.split())
    assert is_own(PIPELINE, CONFIG, refs, "policy") == own


def points(betas: tuple[float, ...], seeds: tuple[int, ...]) -> list[PointConfig]:
    return frontier_configs(CONFIG, FrontierConfig(losses=("hinge",), betas=betas, seeds=seeds))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Seed and beta of every training that is begun; seed 0 has a base that is at fault, and beta 2 diverges."""
    begun: list[tuple[int, float]] = []

    def follow(given: PointConfig, _named: str, _parent: str, _place: Any, refs: dict[str, Any]) -> Any:
        begun.append((given.seed, given.dpo.beta))
        if given.seed == 0:
            raise ModelError("base.model: no tokenizer")
        refs |= dict.fromkeys(stage.name for stage in FRONTIER.wanted(given) if not stage.name.startswith("trajectory"))
        raise (TrainingError if given.dpo.beta == 2 else ScoreError)(f"beta {given.dpo.beta:g}")

    monkeypatch.setattr(frontier, "follow", follow)
    monkeypatch.setattr(runs, "tag", lambda *_: None)
    return begun


@pytest.mark.parametrize(
    ("seeds", "begun", "error", "told"),
    [
        ((0,), [(0, 1.0)], ModelError, "base.model: no tokenizer"),
        ((1,), [(1, 1.0), (1, 2.0)], TrainingError, "every training of the frontier failed: beta 1; beta 2"),
        (
            (0, 1),
            [(0, 1.0), (1, 1.0), (1, 2.0)],
            TrainingError,
            "every training of the frontier failed: base.model: no tokenizer; beta 1; beta 2",
        ),
    ],
)
def test_a_policy_at_fault_ends_its_point_and_a_base_at_fault_its_seed(
    tried: list[tuple[int, float]],
    seeds: tuple[int, ...],
    begun: list[tuple[int, float]],
    error: type[PlumblineError],
    told: str,
) -> None:
    with pytest.raises(error) as found:
        frontier.run_points(CONFIG, "run", points((1.0, 2.0), seeds))
    assert (type(found.value), str(found.value)) == (error, told)
    assert tried == begun
