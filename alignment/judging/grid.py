"""A sweep as data: the points of its grid, what became of each, and the best of those that passed the gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from alignment.config import AlignConfig, GridConfig, build_config, merge
from alignment.judging.report import EvalReport, Judgement


@dataclass(frozen=True)
class Point:
    """One point of the grid; `report` and `judgement` are None where its training failed, and `sentence` says why."""

    loss: str
    beta: float
    learning_rate: float
    run_id: str
    report: EvalReport | None
    judgement: Judgement | None
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return self.judgement is not None and self.judgement.verdict == "pass"

    @property
    def refused_by(self) -> tuple[str, ...]:
        """The gates that refused it."""
        return tuple(gate.name for gate in self.judgement.gates if not gate.passed) if self.judgement else ()

    @property
    def short(self) -> str:
        """Beta and learning rate, as they are written beside a point."""
        return f"β {self.beta:g}, lr {self.learning_rate:g}"


def grid_configs(config: AlignConfig, grid: GridConfig) -> list[AlignConfig]:
    """One configuration per point; they differ under `dpo` alone, so all stages before the policy are shared.

    Raises ConfigError where a combination contradicts the rest of the configuration.
    """
    values = config.model_dump()
    return [
        build_config(
            merge(values, {"dpo": {"loss": loss, "beta": beta, "learning_rate": rate}}),
            source=f"sweep, {loss}, beta {beta:g}, learning rate {rate:g}",
        )
        for loss, beta, rate in dict.fromkeys(product(grid.losses, grid.betas, grid.learning_rates))
    ]


def best_point(points: Sequence[Point]) -> Point | None:
    """Of the points that passed, the one whose gain is surest: the highest lower end of its interval.

    Without a reward the accuracy on held-out pairs takes its place.
    """
    passed = [point for point in points if point.passed and point.report is not None]
    return max(passed, key=_surest, default=None)


def _surest(point: Point) -> float:
    report = point.report
    interval = report and (
        report.delta.interval("reward_gain") or (report.preferences and report.preferences.accuracy_ci)
    )
    return interval[0] if interval else 0.0


def point_rows(points: Sequence[Point]) -> list[dict[str, str]]:
    """The points as rows of a table, in the order of the grid; their numbers, from 1, are those of the plot."""
    return [{"point": str(number)} | _row(point) for number, point in enumerate(points, 1)]


def _row(point: Point) -> dict[str, str]:
    row = {"loss": point.loss, "beta": f"{point.beta:g}", "learning rate": f"{point.learning_rate:g}"}
    if point.report is None:
        return row | {
            "reward gain": "–",
            "win rate": "–",
            "KL per token": "–",
            "perplexity ratio": "–",
            "verdict": "failed",
            "refused by": "",
            "why": point.sentence,
        }
    delta = point.report.delta
    gain, interval, won = delta.get("reward_gain"), delta.interval("reward_gain"), delta.get("win_rate")
    return row | {
        "reward gain": "–"
        if gain is None or interval is None
        else f"{gain:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})",
        "win rate": "–" if won is None else f"{won:.3f}",
        "KL per token": f"{delta.kl_per_token:.3f}",
        "perplexity ratio": f"{delta.perplexity_ratio:.2f}",
        "verdict": "passed" if point.passed else "refused",
        "refused by": ", ".join(point.refused_by),
        "why": "" if point.passed else point.sentence,
    }
