"""Two runs compared by every sample that their evaluations recorded, or by fresh ones on the same prompts."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.errors import InputError, ModelError
from alignment.judging import beside
from alignment.judging.evaluated import READ, Evaluated, gather, of_written
from alignment.judging.paired import Paired
from alignment.judging.sections import Run
from alignment.kinds import REWARD_FUNCTIONS, REWARDS
from alignment.rewards.parts import normalises
from alignment.rows import EVALUATED, GOLD, JUDGED, PART, PROMPTS, SCALES
from alignment.stages.sides import held_out
from alignment.stages.stage import Refs
from alignment.stages.store import MANIFEST, StageRef, digest, digest_file
from tasks.home import home, store
from tasks.registry import downloads, recorded, records
from tasks.registry.recorded import Found


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, their samples paired by prompt, and what keeps their figures from being compared."""

    one: Run
    two: Run
    paired: Paired
    warnings: tuple[str, ...]

    @property
    def page(self) -> str:
        """All of it as one HTML page."""
        from alignment.judging.page import compare_page

        return compare_page(self.one, self.two, self.paired)


def compare(one: Found, two: Found, fresh: int = 0) -> Comparison:
    """Compare two runs: by what they recorded, or, for `fresh` above 0, by samples that both write now to so many of
    the held-out prompts of the first, scored by its reward where this home's store has that.

    Raises InputError where both are the same run, and as `tasks.registry.recorded.read_run` does.
    """
    if one.run_id == two.run_id:
        raise InputError(f"compare: both are run {one.run_id} ({one.title}); name two different runs or versions")
    a, b = (recorded.with_samples(recorded.read_run(each.run_id)) for each in (one, two))
    found = _freshly(a, b, fresh) if fresh else beside.paired(a, b)
    return Comparison(a, b, found, tuple(beside.incomparable(a, b)))


def gathered(refs: Refs) -> Evaluated:
    """The samples of both models, with what they were scored by, of a run's finished stages."""
    before, after = (_samples(refs[name].path) for name in ("before", "after"))
    messages = {
        row["prompt_id"]: row["messages"]
        for batch in PROMPTS.batches(refs["prompts"].path, ["prompt_id", "messages"])
        for row in batch.to_pylist()
        if row["messages"]
    }
    gold = pq.read_table(refs["gold"].path / GOLD.file) if "gold" in refs else None
    return gather(before, after, messages, gold, reward=scored_by(refs["after"], refs), base=refs["base"].digest)


def scored_by(side: StageRef, refs: Refs) -> str:
    """A digest of whatever decides a score: the reward's model, its settings or code, and the SDs that parts of a sum
    were divided by, as the manifest of the samples has them.
    """
    inputs = json.loads((side.path / MANIFEST).read_text(encoding="utf-8"))["inputs"]
    scales = digest_file(refs["scores"].path / SCALES) if "scores" in inputs["parents"] else ""
    of_rewards = (f"{REWARDS.group}.", f"{REWARD_FUNCTIONS.group}.")
    brought = {
        name: kind for name, kind in inputs["kinds"].items() if name.startswith(of_rewards) and "package" in kind
    }
    return digest([inputs["parents"]["reward"], inputs["config"]["reward"], brought, scales])


def _samples(folder: Path) -> pa.Table:
    names = pq.read_schema(folder / EVALUATED.file).names
    return pq.read_table(folder / EVALUATED.file, columns=[*READ, *(n for n in names if n.startswith((JUDGED, PART)))])


def _freshly(a: Run, b: Run, count: int) -> Paired:
    """Both models on the same prompts now, with the sampling and the reward of the first one."""
    from alignment.judging.smoke import SAMPLES, Asked, score, write
    from tasks.smoke import READ as OF_CONFIG
    from tasks.smoke import reward_only

    config, _, _ = records.read_record(a.id, OF_CONFIG)
    asked = [Asked(**{name: row[name] for name in Asked.model_fields}) for row in _prompts(a)[:count]]
    if not asked:
        raise InputError(f"compare --sample: neither this home's store nor the record of {a.title} has its prompts")
    own = asked if not beside.differs(a, b, "base") else [each.model_copy(update={"prompt_ids": ()}) for each in asked]
    tags = recorded.get_run(a.id).data.tags
    local, _ = downloads.with_local_models(reward_only(config, tags.get("plumbline.reward")), home() / "models")
    written = [write(_model(run), prompts, local) for run, prompts in ((a, asked), (b, own))]
    reward, scores = (_held(a, name) for name in ("reward", "scores"))
    notes = [f"Fresh samples: both wrote {SAMPLES} texts to each of {len(asked)} prompts, with the sampling of A."]
    rewards: list[Any] = [None, None]
    if reward is None or (normalises(local) and scores is None):
        notes.append(
            "They have no scores: what scored the evaluation of A is not in the store of this home; its run again "
            "computes it."
        )
    else:
        sds = records.read_json(scores.path / SCALES) if scores is not None and normalises(local) else {}
        rewards = [score(reward.path, each, local, store().kept, sds) for each in written]
    if len(asked) < count:
        notes.append(f"{len(asked)} of the {count} prompts that were asked for are known.")
    both = [of_written(each, found, SAMPLES) for each, found in zip(written, rewards, strict=True)]
    found = beside.paired(a, b, (both[0], both[1]))
    return replace(found, notes=(*notes, *found.notes))


def _prompts(run: Run) -> list[dict[str, Any]]:
    """The held-out prompts of a run: all of them from the store, or those whose samples were recorded as texts."""
    held = _held(run, "prompts")
    if held is not None:
        return [dict(row) for row in held_out(held.path)]
    return [row.model_dump() for row in run.samples]


def _held(run: Run, stage: str) -> StageRef | None:
    """A stage of a run, where the store of this home has the same result."""
    ref = run.stages.get(stage)
    found = store().find(stage, ref.key) if ref is not None else None
    return found if ref is not None and found is not None and found.digest == ref.digest else None


def _model(run: Run) -> Path:
    """A local folder with the aligned model of a run. Raises ModelError where the run kept none."""
    uri = recorded.get_run(run.id).data.tags.get("plumbline.model_uri")
    if not uri:
        raise ModelError(f"{run.title}: its run kept no model, so it writes nothing; compare without --sample")
    return downloads.local_model(uri, home() / "models")
