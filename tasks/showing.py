"""What a run found, as artifacts on its page in Prefect: the checks of its pairs, and the result."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.judging.card import gates_list, in_markdown, result_list, samples_list, table
from alignment.judging.headline import headlines
from alignment.judging.links import is_link
from alignment.judging.report import EvalReport, Judgement, SampleRow
from alignment.stages.stage import Refs
from tasks import artifacts
from tasks.evaluation import read_report, read_samples
from tasks.figures import drawn

FIGURE = "rewards"
"""The figure that stands in the result, where there is one: small enough to be kept in the artifact itself."""
SAMPLES = 5


def show_result(
    config: AlignConfig, refs: Refs, judgement: Judgement, registered: str, links: Mapping[str, str]
) -> None:
    """The result as a Markdown artifact of the flow run.

    `registered` says what became of the model in the registry, empty where nothing did; `links` are pages by title.
    """
    report = read_report(refs["report"])
    pictures = [path for path in drawn(config, refs, report, judgement) if path.stem == FIGURE]
    samples = read_samples(refs["report"].path)
    markdown = result_markdown(report, judgement, registered, links, pictures, samples)
    verdict, told = _verdict(judgement), ", ".join(f"{each.title} {each.short}" for each in headlines(report)[:3])
    artifacts.show("result", markdown, f"{verdict}: {told}")


def result_markdown(
    report: EvalReport,
    judgement: Judgement,
    registered: str,
    links: Mapping[str, str],
    pictures: Sequence[Path],
    samples: Sequence[SampleRow],
) -> str:
    """The verdict and the few figures that tell it first, then the gates, all figures, and sample texts.

    Prefect shows a table in the width of the page and cuts off what is wider, so there is none.
    """
    parts = [
        f"# {_verdict(judgement)}",
        in_markdown(judgement.sentence),
        "\n".join(f"- {figure.title}: **{figure.text}**" for figure in headlines(report)),
        *([f"In MLflow's registry: {in_markdown(registered)}"] if registered else []),
        " · ".join(linked(title, page) for title, page in links.items()),
        *(f"![{path.stem} before and after]({data_uri(path)})" for path in pictures),
        "## Gates",
        gates_list(judgement),
        "## Every figure, before → after, change",
        result_list(report),
        f"## The first {SAMPLES} held-out prompts",
        samples_list(samples, SAMPLES),
    ]
    return "\n\n".join(parts)


def _verdict(judgement: Judgement) -> str:
    return "Passed" if judgement.verdict == "pass" else "Refused"


def show_checks(found: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """The checks of the pairs as a Markdown artifact of the flow run."""
    told = f"{counts['accepted']:,} pairs accepted, {counts['quarantined']:,} quarantined"
    artifacts.show("validation", checks_markdown(found, told), found["problem"] or told)


def checks_markdown(found: Mapping[str, Any], told: str) -> str:
    """What the checks found: first those of the whole set, one of which may stop a run, then those of single pairs."""
    checks: list[dict[str, Any]] = found["checks"]
    parts = [f"# {'The pairs are not fit to train on' if found['problem'] else 'The pairs are fit to train on'}"]
    if found["problem"]:
        parts.append(f"**{in_markdown(found['problem'])}**")
    parts.append(f"{told}.")
    for scope, title in (("set", "The whole set"), ("row", "Single pairs")):
        rows = [check for check in checks if check["scope"] == scope]
        rows.sort(key=lambda check: bool(check["passed"]))
        if rows:
            heading = "Observed" if scope == "set" else "Pairs set apart"
            parts += [f"## {title}", table(("Check", "", heading, "Bound"), map(_check, rows))]
    return "\n\n".join(parts)


def _check(check: Mapping[str, Any]) -> tuple[str, str, str, str]:
    name, bound = check["name"].replace("_", " "), check["bound"].replace("validation.", "")
    for words, sign in (("at least", "≥"), ("at most", "≤"), (" and ≤", ", ≤")):
        bound = bound.replace(words, sign)
    if why := check.get("not_applied"):
        return name, "not applied", "", why
    observed = check["observed"]
    return name, "passed" if check["passed"] else "FAILED", "" if observed is None else f"{observed:,.4g}", bound


def linked(title: str, page: str) -> str:
    """A link to a page; where no server shows it, the command that does."""
    return f"[{title}]({page})" if is_link(page) else f"{title}: `{page}`"


def data_uri(picture: Path) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{b64encode(picture.read_bytes()).decode()}"
