"""The stages one after the other on a shrunken default, without a scheduler, in folders of their own."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment.config import AlignConfig, build_config, merge
from alignment.stages.job import Job
from alignment.stages.parts import fill, summed
from alignment.stages.plan import key_of
from alignment.stages.store import StageRef, digest_folder
from tasks.pipeline import PIPELINE, STAGES

TEXTS, PROMPTS, HELD_OUT, STEPS = 300, 12, 6, 3
SIZE = {"layers": 1, "width": 16, "heads": 2, "context": 32, "batch_size": 4, "learning_rate": 1e-2}
SHRUNKEN: dict[str, dict[str, Any]] = {
    "data": {"rows": TEXTS},
    "base": SIZE | {"vocab_size": 300, "steps": 30},
    "reward": SIZE | {"steps": 10},
    "prompts": {"count": PROMPTS, "eval_count": HELD_OUT, "tokens_min": 4, "tokens_max": 6},
    "sampling": {"samples_per_prompt": 2, "total_tokens": 24, "top_k": 20, "batch_tokens": 168, "shard_prompts": 5},
    "validation": {
        "min_gap": 0.0,
        "min_tokens": 1,
        "min_chars": 1,
        "max_length_ratio": 1_000.0,
        "min_pairs": 1,
        "max_quarantined": 1.0,
        "chosen_longer_min": 0.0,
        "chosen_longer_max": 1.0,
        "max_length_correlation": 1.0,
        "min_distinct_prompts": 1,
    },
    "dpo": {"steps": STEPS, "batch_size": 2, "warmup_steps": 1, "log_every": 1},
    "evaluation": {"samples_per_prompt": 2, "bootstrap": 100, "judge": "grammar"},
}


def config(**changes: dict[str, Any]) -> AlignConfig:
    return build_config(merge(SHRUNKEN, changes))


@dataclass
class Chain:
    """Runs stages into folders of their own below `root`; keeps what each counted."""

    root: Path
    config: AlignConfig
    folders: dict[str, Path] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    earlier: dict[str, dict[str, int]] = field(default_factory=dict)
    """What stages counted whose folders were there before."""

    def run(
        self, name: str, folder: str = "", part: tuple[int, int] | None = None, parts: tuple[Path, ...] = ()
    ) -> Path:
        """Fill `folder`, by default the stage's own name, with a stage or a part of it.

        A stage in parts is made of these, in folders that are named after it and their first item.
        """
        stage = STAGES[name]
        if stage.parts and not part and not parts:
            ranges: Any = stage.parts.split(self.config, self.refs)
            parts = tuple(self.run(name, f"{folder or name} {first}", (first, last)) for first, last in ranges)
        out, work = self.root / (folder or name), self.root / f"work-{folder or name}"
        out.mkdir()
        work.mkdir()

        def progress(done: int, total: int) -> None:
            self.told[name] = (done, total)

        needed = {need: self.folders[need] for need in stage.needs(self.config)}
        job = Job(
            self.config,
            needed,
            out,
            work,
            self.root / "kept",
            {need: digest_folder(path) for need, path in needed.items()},
            progress,
            self.rows.append if name == "policy" else None,
            stage.reads(self.config),
            part or (0, 0),
            parts,
            summed((self.earlier | self.counts)[part.name] for part in parts),
        )
        self.counts[folder or name] = fill(stage, job)
        return out

    @property
    def refs(self) -> Any:
        """The finished stages, by what a split into parts asks of their references."""
        counts = self.earlier | self.counts
        return {
            name: SimpleNamespace(counts=counts.get(name, {}), path=folder) for name, folder in self.folders.items()
        }

    def sample(self, name: str, first: int, last: int) -> Path:
        return self.run("samples", name, (first, last))

    def other(self, root: Path, **changes: dict[str, Any]) -> "Chain":
        """The same folders so far, under another configuration."""
        return Chain(root, config(**changes), dict(self.folders), earlier=self.earlier | self.counts)


def keys(config: AlignConfig) -> dict[str, str]:
    """Every stage's key where each result differs as soon as its key does: the worst case."""
    refs: dict[str, StageRef] = {}
    for stage in PIPELINE.wanted(config):
        key = key_of(stage, config, refs)
        refs[stage.name] = StageRef(stage=stage.name, key=key, path=Path(), digest=key, counts={}, seconds=0.0)
    return {name: ref.key for name, ref in refs.items()}
