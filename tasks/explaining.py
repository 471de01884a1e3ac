"""What a version or a run was made of, walked back from it to the data, and where each step still is.

`tasks.registry.reasons` tells why it was approved or refused; this tells what it came from.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from alignment.config import AlignConfig
from alignment.config.label import label
from alignment.config.policy import global_batch
from alignment.errors import RecordError
from alignment.judging import story as stories
from alignment.judging.formats import NONE, duration, plain, signed
from alignment.judging.links import is_link
from alignment.judging.model_card import base_of, data_of, reward_of
from alignment.judging.records import read_config
from alignment.judging.sections import Run, settings
from alignment.stages.store import StageRef
from tasks.home import home, store
from tasks.pipeline import STAGES
from tasks.registry import recorded, records
from tasks.registry.pages import version_page
from tasks.registry.recorded import Found

SHOWN = 8  # settings that differ from the defaults, in the step about them
ORDER = (
    "report",
    "gold",
    "ranking",
    "drift",
    "anchor",
    "after",
    "before",
    "policy",
    "reference",
    "validation",
    "pairs",
)
"""The stages behind the judgement, the last first; others follow in the order of the pipeline, the last first."""


class Told(BaseModel):
    """A frozen record."""

    model_config = ConfigDict(frozen=True)


class Step(Told):
    """One step on the way back: what it is, in lines; `where` is its folder, page or command.

    `digest` is the hash of its content, `counts` what it kept and dropped; `held` says whether this home's store still
    has the same content, None for what is no stage.
    """

    name: str
    title: str
    lines: tuple[str, ...]
    where: str = ""
    held: bool | None = None
    digest: str = ""
    key: str = ""
    counts: dict[str, int] = {}


class Explained(Told):
    """What a version or a run was made of."""

    title: str
    run_id: str
    home: str
    """The folder that the stages' folders are below."""
    steps: tuple[Step, ...]
    examples: tuple[stories.Example, ...] = ()
    story: stories.Story | None = None
    apart: tuple[stories.ToldPair, ...] = ()
    apart_total: int | None = None
    missing: str = ""
    """What cannot be told here, and why."""


def explain(found: Found, sample: str = "", quarantined: int = 0) -> Explained:
    """Walk back from a run, as far as its record goes and this home's store has it.

    Raises as `tasks.registry.recorded.read_run` does, InputError where nothing has the id `sample`.
    """
    run = recorded.read_run(found.run_id)
    held = {name: here for name, ref in run.stages.items() if (here := _held(ref)) is not None}
    folders = Folders(held)
    gone = [name for name in run.stages if name not in held]
    told = None
    if sample:
        told = _story(run, folders, sample)
    steps = (
        *_version(found),
        _run(run),
        _gates(run, found),
        *_stages(run, held),
        _settings(run),
        _code(run, held),
    )
    return Explained(
        title=found.title,
        run_id=found.run_id,
        home=str(home()),
        steps=steps,
        examples=() if sample or quarantined else tuple(_examples(run, folders)),
        story=told,
        apart=tuple(stories.quarantined(folders, quarantined)) if quarantined else (),
        apart_total=run.stages["validation"].counts.get("quarantined") if "validation" in run.stages else None,
        missing=_missing(run, gone),
    )


def _examples(run: Run, folders: Mapping[str, Path]) -> list[stories.Example]:
    """Ids that `_story` finds."""
    if "prompts" in folders or "pairs" in folders:
        return stories.examples(folders)
    return stories.recorded_examples(records.read_evaluated(run.id))


def _story(run: Run, folders: Mapping[str, Path], sample: str) -> stories.Story:
    """What became of a prompt by the store, or of a held-out one by what MLflow recorded of its samples."""
    if "prompts" in folders or "pairs" in folders:
        return stories.tell(folders, stories.find_prompt(folders, sample))
    evaluated = records.read_evaluated(run.id)
    return stories.recorded(evaluated, sample)


def _missing(run: Run, gone: list[str]) -> str:
    if not run.stages:
        return "The run's record has no lineage: an older release made it, so its stages are not known."
    if not gone:
        return ""
    return (
        f"Not in the store of this home ({home()}): {', '.join(gone)}. The folders were cleaned, or the run was made "
        "on another machine. What MLflow recorded of them is shown; the same run again computes them anew."
    )


class Folders(Mapping[str, Path]):
    """The folders of stages by name; of a store on other machines each is fetched when it is looked up."""

    def __init__(self, refs: Mapping[str, StageRef]) -> None:
        """Nothing is fetched yet."""
        self._refs = refs

    def __getitem__(self, name: str) -> Path:
        """The folder of a stage."""
        return self._refs[name].path

    def __contains__(self, name: object) -> bool:
        """Whether the store has it; it is not fetched for that."""
        return name in self._refs

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._refs)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._refs)


def _held(ref: StageRef) -> StageRef | None:
    """A stage in this home's store, where its content is the recorded one."""
    found = store().find(ref.stage, ref.key)
    return found if found is not None and found.digest == ref.digest else None


def _version(found: Found) -> tuple[Step, ...]:
    version = found.version
    if version is None:
        return ()
    when = datetime.fromtimestamp(version.created / 1_000, UTC).astimezone()
    aliases = f", {', '.join(version.aliases)}" if version.aliases else ""
    line = f"{version.uri}{aliases}, registered {when:%Y-%m-%d %H:%M}"
    where = version_page(version.name, version.version)
    return (Step(name="version", title="registered version", lines=(line,), where=where if is_link(where) else ""),)


def _run(run: Run) -> Step:
    began = f", began {run.started.astimezone():%Y-%m-%d %H:%M}" if run.started else ""
    took = f", took {duration(run.seconds)}" if run.seconds is not None else ""
    where = next((address for name, address in run.links if "MLflow" in name), "")
    return Step(name="run", title="MLflow run", lines=(f"{run.id} ({run.name}){began}{took}",), where=where)


def _gates(run: Run, found: Found) -> Step:
    gates = run.judgement.gates
    refused = [gate.name for gate in gates if not gate.passed]
    count = f"{len(gates) - len(refused)} of {len(gates)} gates passed"
    line = f"{count}; refused by {', '.join(refused)}" if refused else count
    subject = found.version.uri if found.version else found.run_id
    why = f"plumbline why {subject}"
    return Step(name="gates", title="gates", lines=(line,), where=f"each gate, and what was decided since: {why}")


def _stages(run: Run, held: Mapping[str, StageRef]) -> list[Step]:
    config = _config(run)
    names = [*(name for name in ORDER if name in run.stages), *reversed([n for n in run.stages if n not in ORDER])]
    return [_stage(run.stages[name], held.get(name), run, config) for name in names]


def _stage(ref: StageRef, held: StageRef | None, run: Run, config: AlignConfig) -> Step:
    lines = TOLD[ref.stage](run, config, ref) if ref.stage in TOLD else []
    return Step(
        name=ref.stage,
        title=STAGES[ref.stage].title if ref.stage in STAGES else ref.stage,
        lines=tuple(line for line in lines if line),
        where=f"not in this home's store ({ref.stage}/{ref.key})" if held is None else _where(held),
        held=held is not None,
        digest=ref.digest,
        key=ref.key,
        counts=ref.counts,
    )


def _where(held: StageRef) -> str:
    return f"{held.origin}, stage {held.stage}/{held.key}" if held.origin else str(held.folder)


def _report(run: Run, _: AlignConfig, __: StageRef) -> list[str]:
    gain = run.report.delta.get("reward_gain")
    told = "" if gain is None else f", reward gain {signed(gain)}"
    return [f"judged on {run.report.prompts:,} held-out prompts, {run.report.samples_per_prompt} samples each{told}"]


def _policy(_: Run, config: AlignConfig, __: StageRef) -> list[str]:
    return [f"{label(config)}, at most {config.dpo.steps:,} steps of {global_batch(config.dpo)}"]


def _validation(run: Run, _: AlignConfig, __: StageRef) -> list[str]:
    """How many pairs broke what, in counts that sum where the run recorded them so."""
    applied = [check for check in run.checks if not check.get("not_applied")]
    failed = [check["name"].replace("_", " ") for check in applied if check["scope"] == "set" and not check["passed"]]
    checks = f"{len(applied)} checks of rows and of the whole set" if applied else ""
    broken = run.drawn.get("broken") or {
        check["name"].replace("_", " "): check["failed_rows"] for check in applied if check["scope"] == "row"
    }
    reasons = ", ".join(f"{count:,} for {reason}" for reason, count in broken.items() if count)
    return [
        f"{checks}; failed by the whole set: {', '.join(failed)}" if failed else checks,
        f"quarantined: {reasons}" if reasons else "",
    ]


def _pairs(_: Run, config: AlignConfig, __: StageRef) -> list[str]:
    how = f", {config.pairs.strategy}" if config.pairs.source == "samples" else ""
    return [f"from {config.pairs.source}{how}"]


def _reward(run: Run, config: AlignConfig, _: StageRef) -> list[str]:
    accuracy = run.report.reward_validation_accuracy
    return [reward_of(config) + ("" if accuracy is None else f", accuracy {100 * accuracy:.1f}% on held-out texts")]


def _base(run: Run, config: AlignConfig, _: StageRef) -> list[str]:
    perplexity = run.report.base_validation_perplexity
    return [base_of(config) + ("" if perplexity is None else f", perplexity {plain(perplexity)} of held-out texts")]


def _samples(_: Run, config: AlignConfig, __: StageRef) -> list[str]:
    sampling = config.sampling
    return [
        f"{sampling.samples_per_prompt} a prompt, temperature {sampling.temperature:g}, at most "
        f"{sampling.total_tokens} tokens with the prompt"
    ]


TOLD: Mapping[str, Callable[[Run, AlignConfig, StageRef], list[str]]] = {
    "report": _report,
    "policy": _policy,
    "validation": _validation,
    "pairs": _pairs,
    "reward": _reward,
    "base": _base,
    "samples": _samples,
    "texts": lambda _, config, __: [data_of(config)],
}
"""What is told of a stage beside its counts, by its name."""


def _config(run: Run) -> AlignConfig:
    """The run's configuration; the defaults where this release cannot read it."""
    try:
        return read_config(records.read_artifact(run.id, "config.yaml"), AlignConfig.model_fields)
    except RecordError:
        return AlignConfig()


def _settings(run: Run) -> Step:
    known = settings(run)
    other = [each for each in known if each.differs]
    told = [f"{each.name} {each.value} (default {each.default or NONE})" for each in other[:SHOWN]]
    more = [f"and {len(other) - SHOWN} more"] if len(other) > SHOWN else []
    head = f"{len(other)} of {len(known)} fields differ from the defaults" if known else "not recorded"
    return Step(
        name="settings",
        title="settings",
        lines=(head, *told, *more),
        where="config.yaml, an artifact of the MLflow run",
    )


def _code(run: Run, held: Mapping[str, StageRef]) -> Step:
    """The versions of the libraries, and the hash of the training's code, which its stage's manifest has."""
    libraries = run.drawn.get("libraries") or {}
    told = ", ".join(f"{name} {version}" for name, version in libraries.items())
    policy = held.get("policy")
    code = store().manifest(policy.stage, policy.key)["inputs"].get("code", "") if policy else ""
    lines = [told or "the record names no versions", f"code of the training: {code}" if code else ""]
    return Step(name="code", title="code", lines=tuple(line for line in lines if line))
