"""A version that may become the champion: its gates, judged again from its run's record, and the card for people."""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

from alignment.aliases import ANCHOR, CHALLENGER
from alignment.errors import ModelError, PromotionError, RecordError, TrackingError
from alignment.judging.card import gates_list, result_list, samples_list
from alignment.judging.gates import judge
from alignment.judging.report import EvalReport, Judgement, SampleRow
from tasks.registry import records, runs, versions
from tasks.registry.aliases import Standing, read_standing
from tasks.registry.versions import RegisteredVersion

GATES = ("gates",)  # of the configuration: a promotion asks for nothing else
SAMPLES = 2  # of each kind on the card
JUDGED_AGAIN = "plumbline.judged_again"
"""A version's tag: the refusal of a later run, whose gates its policy did not pass."""


class Candidate(BaseModel):
    """A version, who is champion while it is looked at, what its run recorded, and why it is refused, if it is."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    champion: str | None
    refusal: str
    settled: bool = False  # it is the champion already, in every respect
    base: str = ""
    where: str = ""
    report: EvalReport | None = None
    judgement: Judgement | None = None
    samples: tuple[SampleRow, ...] = ()

    @property
    def title(self) -> str:
        """The version as people name it."""
        return f"{self.name} version {self.version}"


def choose(name: str, version: int | None) -> tuple[RegisteredVersion, Standing]:
    """The version that was named, or the challenger; raises ModelError where there is none."""
    standing = read_standing(name)
    wanted = str(version) if version is not None else standing.challenger
    if wanted is None:
        raise ModelError(f"models:/{name}@{CHALLENGER}: no version has this alias; name the version to promote")
    found = versions.find(name, wanted)
    if found is None:
        raise ModelError(f"models:/{name}/{wanted}: no such version; name one that MLflow's registry shows")
    return found, standing


def examine(version: RegisteredVersion, champion: str | None) -> Candidate:
    """Judge a version again from the record of its run; what it finds against it is in `refusal`.

    Raises NewerRecordError where a newer release wrote the record: that speaks neither for nor against the version.
    """
    candidate = Candidate(name=version.name, version=version.version, champion=champion, refusal="")
    tags = versions.find_run_tags(version.run_id) if version.run_id else None
    report: EvalReport | None = None
    judgement: Judgement | None = None
    samples: tuple[SampleRow, ...] = ()
    if tags is not None and versions.was_judged(version.run_id):
        try:
            config, report, rows = records.read_record(version.run_id, GATES)
            judgement, samples = judge(report, config.gates), tuple(rows)
        except TrackingError as error:
            if not records.is_missing(error):
                raise
        except RecordError:  # written by hand
            report = None
    return candidate.model_copy(
        update={
            "refusal": why_not(version, tags, judgement),
            "base": (tags or {}).get("plumbline.base", ""),
            "where": "" if tags is None else runs.run_url(version.run_id),
            "report": report,
            "judgement": judgement,
            "samples": samples,
        }
    )


def why_not(version: RegisteredVersion, run_tags: Mapping[str, str] | None, judgement: Judgement | None) -> str:
    """Why a version may not become the champion; empty where it may.

    `run_tags` are those of the run that it came from, `judgement` the gates applied again to what that run recorded;
    None where there is no such run or record.
    """
    if reason := tags_against(version):
        return reason
    if run_tags is None:
        return "the run that it came from is not in MLflow, so its gates cannot be checked"
    if run_tags.get("plumbline.model_uri") != version.source:
        return "its model is not the one that its run judged"
    if judgement is None:
        return "its run has no readable record of an evaluation, so its gates cannot be checked"
    if judgement.verdict != "pass":
        return f"judged again, it fails. {judgement.sentence}"
    return ""


def tags_against(version: RegisteredVersion) -> str:
    """What the version's own tags say against it; empty where it passed."""
    if version.tags.get("plumbline.kind") == ANCHOR:
        return "it is the anchor, kept to measure drift, and no candidate"
    verdict = version.tags.get("plumbline.verdict")
    if verdict is None:
        return "it never passed the gates: it has no verdict"
    failed = sorted(tag.removeprefix("gate.") for tag, value in version.tags.items() if _is_failed_gate(tag, value))
    if failed or verdict != "pass":
        return f"it failed the gates{': ' if failed else ''}{', '.join(failed)}"
    if again := version.tags.get(JUDGED_AGAIN):
        return f"judged again, it failed. {again}"
    return ""


def require_promotable(candidate: Candidate) -> None:
    """Raise PromotionError where the version was refused, or was judged against a champion that is none any more."""
    if candidate.refusal:
        raise PromotionError(f"{candidate.title} is not promoted: {candidate.refusal}")
    base = _version_of(candidate.base, candidate.name)
    if base is not None and candidate.champion not in (None, base, candidate.version):
        raise PromotionError(
            f"{candidate.title} is not promoted: it was judged against version {base}, and the champion is now "
            f"version {candidate.champion}; run retrain again"
        )


def card(candidate: Candidate) -> str:
    """What a person decides by, as Markdown: the result, the gates, and sample texts."""
    champion = f"It would replace version {candidate.champion}." if candidate.champion else "There is no champion yet."
    if candidate.champion and _version_of(candidate.base, candidate.name) is None:
        champion += f" It was judged against its own base, not against version {candidate.champion}."
    sections = [f"# {candidate.title} as champion?", champion]
    if candidate.judgement is not None and candidate.report is not None:
        sections += [
            candidate.judgement.sentence,
            f"## Result\n\n{result_list(candidate.report)}",
            f"## Gates\n\n{gates_list(candidate.judgement)}",
        ]
    for heading, key in KINDS.items():
        rows = sorted(candidate.samples, key=key, reverse=True)
        if rows:
            sections.append(f"## Samples: {heading}\n\n{samples_list(rows, SAMPLES)}")
    if candidate.where:
        link = candidate.where.startswith("http")
        sections.append(f"[The run in MLflow]({candidate.where})" if link else f"The run: `{candidate.where}`")
    return "\n\n".join(sections)


KINDS: Mapping[str, Callable[[SampleRow], float]] = {
    "best": lambda row: row.aligned_reward,
    "worst": lambda row: -row.aligned_reward,
    "most changed": lambda row: abs(row.aligned_reward - row.base_reward),
}


def _is_failed_gate(tag: str, value: str) -> bool:
    return tag.startswith("gate.") and value != "passed"


def _version_of(uri: str, name: str) -> str | None:
    """The version that an address names, where it is one of `name`."""
    head, _, version = uri.rpartition("/")
    return version if head == f"models:/{name}" else None
