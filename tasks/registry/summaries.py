"""What people read first in MLflow's registry: a version's verdict and decisions, and what a model is now."""

from collections.abc import Mapping
from datetime import UTC, datetime

from alignment.config import AlignConfig
from alignment.judging.card import in_markdown
from alignment.judging.headline import headlines
from alignment.judging.model_card import base_of, data_of, reward_of
from alignment.judging.report import EvalReport, Judgement
from tasks.registry import marks
from tasks.registry.pages import INSIDE, version_page
from tasks.registry.versions import RegisteredVersion

DECIDED = {
    "approved": "**Approved** {who}{why}. The aliases have not all moved yet.",
    "promoted": "**Promoted** {who}{after}{why}.",
    "rejected": "**Rejected** {who}{why}.",
    "rolled back": "**Rolled back** {who}{why}.",
    "failed": "**Its promotion failed midway**, {who}{why}.",
    "reverted": "**Taken back.** It was made the champion {who}, and {reason}.",
    "warned": "**Champion without the gates.** It was made the champion {who}, although {reason}.",
}
"""The last decision on a version, by what its tag says."""


def people_tags(config: AlignConfig, report: EvalReport, judgement: Judgement) -> dict[str, str]:
    """At most six tags that people read on a version: its verdict, the figures, its base and data."""
    figures = {marks.FIGURES[each.name]: each.short for each in headlines(report) if each.name in marks.FIGURES}
    verdict = marks.PASSED if judgement.verdict == "pass" else marks.REFUSED
    return {
        marks.VERDICT: verdict,
        **figures,
        marks.BASE: base_of(config).removesuffix(" from the data"),
        marks.DATA: data_of(config),
    }


def kept_tags(config: AlignConfig, judgement: Judgement) -> dict[str, str]:
    """What Plumbline remembers of a version's judgement."""
    gates = {f"{marks.GATE}{gate.name}": "passed" if gate.passed else "failed" for gate in judgement.gates}
    told = {marks.SENTENCE: judgement.sentence, marks.REWARD: reward_of(config)}
    return gates | told | {marks.JUDGED: judgement.verdict}


def version_summary(tags: Mapping[str, str]) -> str:
    """The verdict's sentence, then what happened since: a later refusal, the last decision, the last smoke test."""
    lines = [in_markdown(tags.get(marks.SENTENCE, ""))] if tags.get(marks.SENTENCE) else []
    if again := tags.get(marks.JUDGED_AGAIN):
        lines.append(f"**Refused since**, so it is not promoted. {in_markdown(again)}")
    if decided := decision(tags):
        lines.append(decided)
    if smoke := tags.get(marks.SMOKE_VERDICT):
        figure = f", mean reward {reward}" if (reward := tags.get(marks.SMOKE_REWARD)) else ""
        lines.append(f"Smoke test {smoke} {_on(tags.get(marks.SMOKE_TIME, ''))}{figure}.")
    return "\n\n".join(lines)


def decision(tags: Mapping[str, str]) -> str:
    """The last decision on a version: what, by whom, when and why; empty where nobody decided."""
    form = DECIDED.get(tags.get(marks.DECISION, ""))
    if form is None:
        return ""
    approver, reason = tags.get(marks.APPROVER, ""), tags.get(marks.REASON, "").strip().rstrip(".")
    who = approver if approver == marks.BY_HAND else f"by {approver or 'somebody who gave no name'}"
    before = tags.get(marks.BEFORE)
    return form.format(
        who=f"{in_markdown(who)} {_on(tags.get(marks.TIME))}".strip(),
        after=f", after version {before}" if before else "",
        why=f": {in_markdown(reason)}" if reason else "",
        reason=in_markdown(reason) if reason else "nothing says why",
    )


def model_summary(found: Mapping[str, RegisteredVersion]) -> str:
    """What a registered model is and who its champion is, since when.

    `found` has a version for each alias that is set.
    """
    champion = found.get("champion")
    lines = ["**No champion yet.**"]
    if champion is not None:
        since = at(champion.tags.get(marks.TIME))
        lines = [f"**Champion: {_named(champion)}**{f' since {since}' if since else ''}. {_verdict(champion)}"]
    lines += [
        f"{alias.capitalize()}: {_named(version)}. {_verdict(version)}"
        for alias, version in found.items()
        if alias in ("challenger", "previous")
    ]
    newest = champion or next(iter(found.values()), None)
    made = _made(newest.tags) if newest is not None else ""
    lines += [made] if made else []
    lines.append(
        "Each version's page names its source run, which has the whole report: figures, curves, samples and settings."
    )
    return "\n\n".join(line.strip() for line in lines)


def at(when: str | None) -> str:
    """A time of a tag as people read it; empty where there is none."""
    try:
        return f"{datetime.fromisoformat(when or '').astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return ""


def _on(when: str | None) -> str:
    time = at(when)
    return f"on {time}" if time else ""


def _named(version: RegisteredVersion) -> str:
    return f"[version {version.version}]({version_page(version.name, version.version, INSIDE)})"


def _verdict(version: RegisteredVersion) -> str:
    return in_markdown(version.tags[marks.SENTENCE]) if version.tags.get(marks.SENTENCE) else ""


def _made(tags: Mapping[str, str]) -> str:
    parts = {"base": tags.get(marks.BASE), "data": tags.get(marks.DATA), "reward": tags.get(marks.REWARD)}
    told = "; ".join(f"{name}: {in_markdown(value)}" for name, value in parts.items() if value)
    return f"A causal language model, aligned by preferences. {told[:1].upper()}{told[1:]}." if told else ""
