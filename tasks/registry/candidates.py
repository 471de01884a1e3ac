"""A candidate for promotion: its gates, applied again to its run's record, the reasons to refuse it, and its card."""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

from alignment.aliases import ANCHOR, CHALLENGER
from alignment.errors import ModelError, PromotionError, RecordError, TrackingError
from alignment.judging.card import gates_list, result_list, samples_list
from alignment.judging.gates import judge
from alignment.judging.headline import headlines
from alignment.judging.links import is_link
from alignment.judging.report import EvalReport, Judgement, SampleRow
from tasks.registry import marks, pages, records, runs, versions
from tasks.registry.aliases import Aliases, read_aliases
from tasks.registry.versions import RegisteredVersion

GATES = ("gates",)  # of the configuration: a promotion asks for nothing else
SAMPLES = 2  # of each kind on the card


class Candidate(BaseModel):
    """A version, the champion at the time, what the version's run recorded, and the reason to refuse it, if any."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    champion: str | None
    refusal: str
    settled: bool = False  # it is the champion already, and nothing is left to do
    base: str = ""
    where: str = ""
    page: str = ""  # where the run's whole report is, if it has one
    report: EvalReport | None = None
    judgement: Judgement | None = None
    samples: tuple[SampleRow, ...] = ()

    @property
    def title(self) -> str:
        """The version by name and number, for messages."""
        return f"{self.name} version {self.version}"


def choose(name: str, version: int | None) -> tuple[RegisteredVersion, Aliases]:
    """The version with this number, or the challenger, and the aliases. Raises ModelError if there is none."""
    aliases = read_aliases(name)
    wanted = str(version) if version is not None else aliases.challenger
    if wanted is None:
        raise ModelError(f"models:/{name}@{CHALLENGER}: no version has this alias; name the version to promote")
    found = versions.find(name, wanted)
    if found is None:
        raise ModelError(f"models:/{name}/{wanted}: no such version; name one that MLflow's registry shows")
    return found, aliases


def examine(version: RegisteredVersion, champion: str | None) -> Candidate:
    """Apply the gates again to the record of a version's run; a reason against the version is in `refusal`.

    Raises NewerRecordError if a newer release wrote the record, which says nothing for or against the version.
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
            "page": _page(version.run_id) if report is not None else "",
            "report": report,
            "judgement": judgement,
            "samples": samples,
        }
    )


def why_not(version: RegisteredVersion, run_tags: Mapping[str, str] | None, judgement: Judgement | None) -> str:
    """Why a version may not become the champion; empty if it may.

    `run_tags` are those of the run that it came from, `judgement` the gates applied again to what that run recorded;
    None if there is no such run or record.
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
    """The reason against a version that its own tags hold; empty if it passed."""
    if version.tags.get(marks.KIND) == ANCHOR:
        return "it is the anchor, kept to measure drift, and no candidate"
    verdict = version.tags.get(marks.JUDGED)
    if verdict is None:
        return "it never passed the gates: it has no verdict"
    failed = sorted(tag.removeprefix(marks.GATE) for tag, value in version.tags.items() if _is_failed_gate(tag, value))
    if failed or verdict != "pass":
        return f"it failed the gates{': ' if failed else ''}{', '.join(failed)}"
    if again := version.tags.get(marks.JUDGED_AGAIN):
        return f"judged again, it failed. {again}"
    return ""


def require_promotable(candidate: Candidate) -> None:
    """Raise PromotionError if the version is refused, or was judged against a champion that is no longer champion."""
    if candidate.refusal:
        raise PromotionError(f"{candidate.title} is not promoted: {candidate.refusal}")
    base = _version_of(candidate.base, candidate.name)
    if base is not None and candidate.champion not in (None, base, candidate.version):
        raise PromotionError(
            f"{candidate.title} is not promoted: it was judged against version {base}, and the champion is now "
            f"version {candidate.champion}; run retrain again"
        )


def card(candidate: Candidate) -> str:
    """What a person bases the decision on, as Markdown: the few figures, gates, all results, sample texts, links."""
    sections = [f"# {candidate.title} as champion?", would_replace(candidate)]
    if candidate.judgement is not None and candidate.report is not None:
        sections += [
            candidate.judgement.sentence,
            figures_list(candidate.report),
            f"## Gates\n\n{gates_list(candidate.judgement)}",
            f"## Result\n\n{result_list(candidate.report)}",
        ]
    scored = [row for row in candidate.samples if row.aligned_reward is not None and row.base_reward is not None]
    if candidate.samples and not scored:
        sections.append(f"## Samples\n\n{samples_list(candidate.samples, SAMPLES)}")
    for heading, key in KINDS.items() if scored else ():
        sections.append(f"## Samples: {heading}\n\n{samples_list(sorted(scored, key=key, reverse=True), SAMPLES)}")
    if candidate.where:
        sections.append(links(candidate))
    return "\n\n".join(sections)


def figures_list(report: EvalReport) -> str:
    """The few figures of a report, a line of Markdown for each."""
    return "\n".join(f"- {each.title}: **{each.text}**" for each in headlines(report))


def would_replace(candidate: Candidate) -> str:
    """Which version it would replace, and whether the two were compared."""
    if not candidate.champion:
        return "There is no champion yet."
    apart = _version_of(candidate.base, candidate.name) is None
    return f"It would replace version {candidate.champion}{'; the two were not compared' if apart else ''}."


def links(candidate: Candidate) -> str:
    """The run, its report and the version in MLflow: links, or the command that serves the run."""
    if not is_link(candidate.where):
        return f"The run: `{candidate.where}`"
    version = pages.version_page(candidate.name, candidate.version)
    found = {"The full report": candidate.page, "The run in MLflow": candidate.where, "The version in MLflow": version}
    return " · ".join(f"[{title}]({page})" for title, page in found.items() if page)


KINDS: Mapping[str, Callable[[SampleRow], float]] = {
    "best": lambda row: row.aligned_reward or 0.0,
    "worst": lambda row: -(row.aligned_reward or 0.0),
    "most changed": lambda row: abs((row.aligned_reward or 0.0) - (row.base_reward or 0.0)),
}
"""Which samples are shown, of those that have rewards from both models."""


def _page(run_id: str) -> str:
    """Where the report of a run is; runs of earlier releases have none."""
    return runs.artifact_url(run_id, runs.PAGE) if records.has_artifact(run_id, runs.PAGE) else ""


def _is_failed_gate(tag: str, value: str) -> bool:
    return tag.startswith(marks.GATE) and value != "passed"


def _version_of(uri: str, name: str) -> str | None:
    """The version in a model's address, if the model is `name`."""
    head, _, version = uri.rpartition("/")
    return version if head == f"models:/{name}" else None
