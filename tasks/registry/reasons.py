"""Why a version or a run was approved or refused: its gates, what stands against it now, and what happened to it."""

from datetime import UTC, datetime
from shlex import quote
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignment.errors import InputError, ModelError, NewerRecordError, RecordError, TrackingError
from alignment.judging.gates import judge
from alignment.judging.report import GateResult, Judgement
from tasks.registry import marks, recorded, records, runs, versions
from tasks.registry.candidates import GATES, examine
from tasks.registry.listing import verdict_of
from tasks.registry.versions import RegisteredVersion

Verdict = Literal["passed", "refused", "refused since", "anchor", "not judged"]
VERDICTS: dict[str, Verdict] = {"pass": "passed", "fail": "refused"}


class Entry(BaseModel):
    """Something that happened: when, and what in words."""

    model_config = ConfigDict(frozen=True)

    when: datetime | None
    what: str

    @property
    def day(self) -> str:
        """When, in this machine's time, as far as it is known."""
        return "" if self.when is None else f"{self.when.astimezone():%Y-%m-%d %H:%M}"


class Told(BaseModel):
    """What there is to tell of a version or a run."""

    model_config = ConfigDict(frozen=True)

    title: str
    run_id: str
    verdict: Verdict
    sentence: str
    """What the gates made of it when it was judged; of a run that was never judged, how it ended."""
    against: str = ""
    """Why the version may not become the champion now, beyond the sentence; empty if it may."""
    aliases: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    not_applied: dict[str, str] = {}
    history: tuple[Entry, ...] = ()
    next: dict[str, str] = {}
    """Where there is more, and commands."""


def tell(subject: str, number: int | None = None) -> Told:
    """What there is to tell of a registered model's version, by default the newest, or of a run.

    Raises ModelError where there is none, InputError for a number beside what names a version or a run already.
    """
    named = subject.removeprefix("models:/")
    name, apart, _ = named.partition("@") if "@" in named else named.partition("/")
    if apart or subject.startswith("models:/"):
        if number is not None:
            raise InputError(f"why {subject} {number}: {subject} names a version; leave the number out")
        found = recorded.find(subject).version
        if found is None:
            raise ModelError(f"{subject}: no such version")
        return of_version(found)
    all_of_them = versions.all_versions(name)
    if all_of_them:
        wanted = str(number) if number is not None else all_of_them[0].version
        for each in all_of_them:
            if each.version == wanted:
                return of_version(each)
        there = ", ".join(each.version for each in all_of_them)
        raise ModelError(
            f"models:/{name}/{wanted}: no such version; there {'is' if ',' not in there else 'are'} {there}"
        )
    if number is not None:
        raise ModelError(f"{subject}: no model is registered by this name; `plumbline models` lists them")
    return of_run(recorded.find(subject).run_id)


def of_version(version: RegisteredVersion) -> Told:
    """What there is to tell of a version: the gates of its run, what stands against it, and its history."""
    try:
        candidate = examine(version, None)
        judgement, refusal, where = candidate.judgement, candidate.refusal, candidate.where
    except NewerRecordError as error:
        judgement, refusal, where = None, str(error), ""
    listed = verdict_of(version)
    sentence = version.tags.get(marks.SENTENCE) or (judgement.sentence if judgement else "")
    return Told(
        title=recorded.describe(version),
        run_id=version.run_id,
        verdict=VERDICTS.get(listed, listed),
        sentence=sentence,
        against="" if refusal.endswith(sentence) and sentence else refusal,
        aliases=version.aliases,
        history=tuple(history(version)),
        next=_next(version.uri, where) | _serve(version),
        **_gates(judgement),
    )


def of_run(run_id: str) -> Told:
    """What there is to tell of a run: its gates, or how it ended before it came to them."""
    run = recorded.get_run(run_id)
    tags = run.data.tags
    title = f"run {run_id} ({run.info.run_name})"
    try:
        config, report, _ = records.read_record(run_id, GATES)
        judgement: Judgement | None = judge(report, config.gates)
    except TrackingError as error:
        if not records.is_missing(error):
            raise
        judgement = None
    except RecordError:
        judgement = None
    ended = " ".join(part for part in (f"It is {run.info.status}.", tags.get("plumbline.ended", "")) if part)
    sentence = tags.get("plumbline.reason") or (judgement.sentence if judgement else ended)
    started = datetime.fromtimestamp(run.info.start_time / 1_000, UTC)
    made = recorded.registered_as(run_id, tags)
    return Told(
        title=title,
        run_id=run_id,
        verdict="not judged" if judgement is None else VERDICTS[judgement.verdict],
        sentence=sentence,
        history=(
            Entry(when=started, what="the run began"),
            *([Entry(when=None, what=f"its model: {made}")] if made else []),
        ),
        next=_next(run_id, runs.run_url(run_id)) if judgement else {"Look at it": runs.run_url(run_id)},
        **_gates(judgement),
    )


def history(version: RegisteredVersion) -> list[Entry]:
    """What happened to a version, the earliest first: its registration, decisions, smoke test and later refusals."""
    tags = version.tags
    entries = [Entry(when=datetime.fromtimestamp(version.created / 1_000, UTC), what="registered")]
    lines = tags.get(marks.HISTORY, "").splitlines()
    if not lines and tags.get(marks.DECISION):  # cut off before its end
        who = tags.get(marks.APPROVER) or "no name given"
        why = f": {tags[marks.REASON]}" if tags.get(marks.REASON) else ""
        lines = [f"{tags.get(marks.TIME, '')} {tags[marks.DECISION]}, {who}{why}"]
    entries += [_entry(*line.partition(" ")[::2]) for line in lines]
    if tags.get(marks.SMOKE_VERDICT):
        mean = f", mean reward {tags[marks.SMOKE_REWARD]}" if tags.get(marks.SMOKE_REWARD) else ""
        entries.append(_entry(tags.get(marks.SMOKE_TIME, ""), f"smoke test {tags[marks.SMOKE_VERDICT]}{mean}"))
    undated = (
        [Entry(when=None, what=f"judged again and refused: {again}")] if (again := tags.get(marks.JUDGED_AGAIN)) else []
    )
    return [*sorted(entries, key=lambda entry: entry.when or datetime.max.replace(tzinfo=UTC)), *undated]


def _entry(when: str, what: str) -> Entry:
    try:
        return Entry(when=datetime.fromisoformat(when), what=what)
    except ValueError:
        return Entry(when=None, what=f"{when} {what}".strip())


def _gates(judgement: Judgement | None) -> dict[str, object]:
    return {} if judgement is None else {"gates": judgement.gates, "not_applied": judgement.not_applied}


def _next(subject: str, where: str) -> dict[str, str]:
    look = {"Look at it": where} if where else {}
    return look | {"Report": f"plumbline report {quote(subject)}"}


def _serve(version: RegisteredVersion) -> dict[str, str]:
    return {"Serve it": f"plumbline serve {quote(version.uri)}"}
