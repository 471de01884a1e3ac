"""What became of one prompt: its samples with scores, the pairs that they made, and what validation said of those.

It is read from the folders of finished stages, by the stages' names; of those that are not there nothing is told.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from alignment.errors import InputError
from alignment.judging.formats import signed
from alignment.parquet import Table
from alignment.rows import ACCEPTED, EVALUATED, PAIRS, PART, PROMPTS, QUARANTINED, REFERENCED, SAMPLES, SCORES

if TYPE_CHECKING:
    from alignment.judging.evaluated import Evaluated

Folders = Mapping[str, Path]
SHORTEST = 4  # characters of an id that may stand for it
SIDES = {"before": "base", "after": "aligned"}


class Told(BaseModel):
    """A frozen record."""

    model_config = ConfigDict(frozen=True)


class ToldSample(Told):
    """One sample of the prompt; `writer` is the model that wrote it: `base`, or `aligned` for a held-out prompt.

    `logprob` is under that model, a sum in nats. `role` says what it became: `chosen`, `rejected`, both, or nothing.
    """

    id: str
    writer: str
    text: str
    reward: float | None = None
    parts: dict[str, float | None] = {}
    tokens: int | None = None
    finished: bool | None = None
    logprob: float | None = None
    role: str = ""


class ToldPair(Told):
    """One pair of the prompt, and what became of it: `accepted` or `quarantined` with the checks that it broke.

    `outcome` is empty where validation's folder is not there. The reference's log-probs are sums in nats.
    """

    id: str
    prompt_id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None
    gap: float | None = None
    chosen_tokens: int | None = None
    rejected_tokens: int | None = None
    strategy: str = ""
    fault: str = ""
    outcome: str = ""
    broken: tuple[str, ...] = ()
    reference_chosen: float | None = None
    reference_rejected: float | None = None


class Story(Told):
    """A prompt with everything that was made of it; `split` is `train` or `eval`, empty where that is not known."""

    prompt_id: str
    prompt: str
    split: str = ""
    messages: str = ""
    samples: tuple[ToldSample, ...] = ()
    pairs: tuple[ToldPair, ...] = ()


class Example(Told):
    """Something worth a look: what it is, in words, and the id by which it is found."""

    what: str
    id: str


def find_prompt(folders: Folders, wanted: str) -> str:
    """The id of the prompt that a prompt's, a sample's or a pair's id means, or the beginning of one.

    Raises InputError where nothing has this id, or prompts are more than one.
    """
    begin = wanted.strip()
    found: set[str] = set()
    if len(begin) >= SHORTEST:
        for stage, table in (("prompts", PROMPTS), ("pairs", PAIRS), ("before", EVALUATED)):
            if stage in folders:
                found |= {prompt for prompt, ids in _ids(folders[stage], table) if _means(begin, prompt, ids)}
    if len(found) == 1:
        return found.pop()
    if found:
        some = ", ".join(sorted(found)[:5])
        raise InputError(f"{wanted}: {len(found)} prompts have an id that begins so ({some}); give more of it")
    raise InputError(
        f"{wanted}: no prompt, sample or pair of this run has such an id; without --sample a few ids are listed"
    )


def _ids(folder: Path, table: Table[Any]) -> Iterator[tuple[str, str]]:
    """Each row's prompt, and the row's own id where it has one."""
    own = "pair_id" if "pair_id" in table.schema.names else "prompt_id"
    for batch in table.batches(folder, sorted({"prompt_id", own})):
        yield from zip(batch["prompt_id"].to_pylist(), batch[own].to_pylist(), strict=True)


def _means(begin: str, prompt: str | None, own: str | None) -> bool:
    if prompt is None:
        return False
    bare = begin.partition("-")[0]
    return begin == own or prompt == bare or (bare == begin and prompt.startswith(begin))


def tell(folders: Folders, prompt_id: str) -> Story:
    """Everything that the folders know of a prompt."""
    prompt = next(_rows(folders, "prompts", PROMPTS, prompt_id), {})
    pairs = list(_pairs(folders, prompt_id))
    roles: dict[str, list[str]] = {}
    for pair in pairs:
        _, *sides = pair.id.rsplit("-", 2)
        for role, index in zip(("chosen", "rejected"), sides, strict=False):
            roles.setdefault(f"{prompt_id}-{index}", []).append(role)
    samples = [
        _sample(row, "base", " and ".join(dict.fromkeys(roles.get(f"{prompt_id}-{row['index']}", []))))
        for row in _first_of(folders, prompt_id, (("scores", SCORES), ("samples", SAMPLES)))
    ]
    for stage, writer in SIDES.items():
        samples += [_sample(row, writer, "") for row in _rows(folders, stage, EVALUATED, prompt_id)]
    known: Mapping[str, Any] = prompt or (pairs[0].model_dump() if pairs else {})
    return Story(
        prompt_id=prompt_id,
        prompt=str(known.get("prompt") or ""),
        split=str(prompt.get("split", "")),
        messages=str(prompt.get("messages") or ""),
        samples=tuple(samples),
        pairs=tuple(pairs),
    )


def quarantined(folders: Folders, first: int) -> list[ToldPair]:
    """The first pairs that validation set apart, with the checks that each broke."""
    found: list[ToldPair] = []
    if "validation" in folders:
        for batch in QUARANTINED.batches(folders["validation"], rows=max(first, 1)):
            found += [_pair(row, "quarantined", {}) for row in batch.to_pylist()[: first - len(found)]]
            if len(found) >= first:
                break
    return found


def examples(folders: Folders, each: int = 2) -> list[Example]:
    """A few ids to begin with: accepted pairs by gap, a pair that was set apart, held-out prompts by their gain."""
    found: list[Example] = []
    if "validation" in folders:
        accepted = ACCEPTED.whole(folders["validation"], ["pair_id", "gap"])
        ordered = accepted.drop_null().sort_by([("gap", "descending")]).to_pylist()
        if not ordered:
            unscored = accepted["pair_id"].to_pylist()[:each]
            found += [Example(what="accepted, without scores", id=pair_id) for pair_id in unscored]
        found += [Example(what=f"a large gap, {row['gap']:.2f}", id=row["pair_id"]) for row in ordered[:each]]
        found += [Example(what=f"a small gap, {row['gap']:.2f}", id=row["pair_id"]) for row in ordered[each:][-1:]]
        apart = quarantined(folders, 1)
        found += [Example(what=f"set apart: {_words(pair.broken)}", id=pair.id) for pair in apart]
    if "before" in folders and "after" in folders:
        found += _held_out(*(EVALUATED.whole(folders[stage], ["prompt_id", "reward"]) for stage in SIDES))
    return found


def recorded_examples(evaluated: "Evaluated | None") -> list[Example]:
    """Those of held-out prompts, from what a run's record has of them."""
    return [] if evaluated is None else _held_out(*(evaluated.side(side) for side in SIDES.values()))


def _held_out(before: pa.Table, after: pa.Table) -> list[Example]:
    """The held-out prompts on which the aligned model gains most and least over the base."""
    means = _means_of(before), _means_of(after)
    gains = sorted(((means[1][each] - means[0][each], each) for each in means[0].keys() & means[1]), reverse=True)
    ends = [*gains[:1], *gains[1:][-1:]]
    return [Example(what=f"held out, gain {signed(gain)}", id=prompt) for gain, prompt in ends]


def _means_of(samples: pa.Table) -> dict[str, float]:
    """The mean reward of each prompt that has one."""
    means = samples.group_by("prompt_id").aggregate([("reward", "mean")])
    pairs = zip(means["prompt_id"].to_pylist(), means["reward_mean"].to_pylist(), strict=True)
    return {prompt: mean for prompt, mean in pairs if mean is not None}


def _words(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _pairs(folders: Folders, prompt_id: str) -> Iterator[ToldPair]:
    """The pairs of a prompt in the order that they were made in."""
    outcomes: dict[str, tuple[str, dict[str, Any]]] = {}
    reference = {row["pair_id"]: row for row in _rows(folders, "reference", REFERENCED, prompt_id)}
    for table, outcome in ((ACCEPTED, "accepted"), (QUARANTINED, "quarantined")):
        for row in _rows(folders, "validation", table, prompt_id):
            outcomes[row["pair_id"]] = outcome, row
    made = list(_rows(folders, "pairs", PAIRS, prompt_id)) or [row for _, row in outcomes.values()]
    for row in made:
        outcome, judged = outcomes.get(row["pair_id"], ("", row))
        yield _pair(judged, outcome, reference.get(row["pair_id"], {}))


def _pair(row: Mapping[str, Any], outcome: str, reference: Mapping[str, Any]) -> ToldPair:
    names = ToldPair.model_fields.keys() - {"id", "outcome", "broken", "reference_chosen", "reference_rejected"}
    return ToldPair(
        id=row["pair_id"],
        outcome=outcome,
        broken=tuple(row.get("broken") or ()),
        reference_chosen=reference.get("reference_chosen"),
        reference_rejected=reference.get("reference_rejected"),
        **{name: row[name] for name in names},
    )


def _sample(row: Mapping[str, Any], writer: str, role: str) -> ToldSample:
    return ToldSample(
        id=f"{row['prompt_id']}-{row['index']}",
        writer=writer,
        text=row["completion"],
        reward=row.get("reward"),
        parts={name.removeprefix(PART): value for name, value in row.items() if name.startswith(PART)},
        tokens=len(row["ids"]),
        finished=row["finished"],
        logprob=row["logprob"],
        role=role,
    )


def _first_of(folders: Folders, prompt_id: str, places: Sequence[tuple[str, Table[Any]]]) -> list[dict[str, Any]]:
    """The rows of a prompt in the first of some stages that has it."""
    for stage, table in places:
        if rows := list(_rows(folders, stage, table, prompt_id)):
            return rows
    return []


def _rows(folders: Folders, stage: str, table: Table[Any], prompt_id: str) -> Iterator[dict[str, Any]]:
    """The rows of a prompt in a stage's table, with every column; none where the stage is not there."""
    if stage in folders:
        for batch in table.batches(folders[stage]):
            yield from batch.filter(pc.equal(batch["prompt_id"], prompt_id)).to_pylist()


def recorded(evaluated: "Evaluated | None", wanted: str) -> Story:
    """What a run's record knows of a held-out prompt, where the store has nothing of the run.

    Raises InputError where the record has no such prompt.
    """
    rows = [] if evaluated is None else evaluated.table.to_pylist()
    begin = wanted.strip().partition("-")[0]
    ids = {row["prompt_id"] for row in rows if len(begin) >= SHORTEST and row["prompt_id"].startswith(begin)}
    if len(ids) != 1:
        raise InputError(
            f"{wanted}: the store of this home has none of the run's pairs, and {len(ids) or 'none'} of the held-out "
            "prompts that MLflow recorded have an id that begins so; explain it on the machine that made the run"
        )
    mine = [row for row in rows if row["prompt_id"] in ids]
    return Story(
        prompt_id=mine[0]["prompt_id"],
        prompt=mine[0]["prompt"] or "",
        split="eval",
        messages=mine[0]["messages"] or "",
        samples=tuple(
            ToldSample(
                id=f"{row['prompt_id']}-{row['index']}",
                writer=row["side"],
                text=row["completion"] or "",
                reward=row["reward"],
                tokens=row["tokens"],
                finished=row["finished"],
                logprob=row["logprob"],
            )
            for row in mine
        ),
    )
