"""What a notification says: a title, a line or two of text and a link, for each event that people are told of."""

from collections.abc import Sequence
from datetime import datetime

from alignment.judging.comparison import ANCHOR
from alignment.judging.headline import headlines
from alignment.judging.report import EvalReport, Judgement
from tasks.registry.candidates import Candidate, would_replace

Notice = dict[str, str]
"""`title`, `text` and `link`, as events carry them."""


def notice(title: str, *lines: str, link: str = "") -> Notice:
    """A notice; lines that are empty are left out."""
    return {"title": title, "text": "\n".join(filter(None, lines)), "link": link}


def figures(report: EvalReport | None) -> str:
    """The few figures of a report in one line; empty without one."""
    return "" if report is None else "; ".join(f"{each.title} {each.short}" for each in headlines(report))


def waiting(candidate: Candidate, until: datetime, others: Sequence[str] = (), link: str = "") -> Notice:
    """A promotion waits for a person; `others` are the titles of promotions that wait as well."""
    return _asking(f"{candidate.title} waits for your approval", candidate, until, others, link)


def reminder(
    candidate: Candidate, since: datetime, until: datetime, others: Sequence[str] = (), link: str = ""
) -> Notice:
    """A promotion still waits."""
    title = f"{candidate.title} still waits for your approval, since {moment(since)}"
    return _asking(title, candidate, until, others, link)


def changed(title: str, sentence: str, report: EvalReport | None = None, link: str = "") -> Notice:
    """Another version is the champion; `sentence` says how that came about."""
    return notice(title, sentence, figures(report), link=link)


def rejected(title: str, approver: str, reason: str, link: str = "") -> Notice:
    """A person, or nobody in time, said no to a version."""
    return notice(f"{title} was rejected by {approver}", reason or "No reason was given.", link=link)


def reverted(title: str, champion: str | None, refusal: str, link: str = "") -> Notice:
    """A version that was made champion by hand is champion no more."""
    now = f"version {champion} is the champion again" if champion else "there is no champion now"
    return notice(
        f"{title} was made champion by hand, and is not any more",
        f"It may not be the champion: {refusal}",
        f"{now[0].upper()}{now[1:]}.",
        link=link,
    )


def refused(name: str, judgement: Judgement, report: EvalReport | None, link: str = "") -> Notice:
    """A gate refused what a run trained."""
    what = "has drifted too far from its anchor" if is_drift(judgement) else "was refused by the gates"
    return notice(f"{name}: the new model {what}", judgement.sentence, figures(report), link=link)


def is_drift(judgement: Judgement) -> bool:
    """Whether a gate that measures the drift from the anchor, the first base of several rounds, has failed."""
    return any(not gate.passed and gate.name.startswith(ANCHOR) for gate in judgement.gates)


def moment(when: datetime) -> str:
    """A time for people, as in Sun 29 Nov 2026, 14:05 UTC; `when` is in UTC."""
    return f"{when:%a} {when.day} {when:%b %Y, %H:%M} UTC"


def _asking(title: str, candidate: Candidate, until: datetime, others: Sequence[str], link: str) -> Notice:
    also = f" Also waiting: {', '.join(others)}." if others else ""
    deadline = f"{would_replace(candidate)} Without an answer by {moment(until)} it is rejected.{also}"
    return notice(title, figures(candidate.report), deadline, link=link)
