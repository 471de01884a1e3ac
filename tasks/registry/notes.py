"""The description of a run in MLflow: how it stands or ended, why, what to do, and where to look."""

from collections.abc import Mapping
from textwrap import wrap

from alignment.errors import PlumblineError
from alignment.judging.card import MAX_TEXT, in_markdown
from alignment.judging.headline import headlines
from alignment.judging.report import EvalReport, Judgement
from tasks.addresses import shown

Links = Mapping[str, str]
"""What is linked to, in words, and where."""


def running(links: Links) -> str:
    """A run that is not judged yet."""
    return _note("Running", links, "Its result will stand here.")


def concluded(verdict: str, sentence: str, told: str, links: Links) -> str:
    """A run with a verdict: its sentence, and what is `told` of it in Markdown."""
    return _note(verdict.capitalize(), links, _text(sentence), told)


def measured(sentence: str, links: Links) -> str:
    """A run that has no verdict: what it found."""
    return _note("Measured", links, _text(sentence))


def result(report: EvalReport, judgement: Judgement) -> str:
    """The few figures, and what the failed gates mean, where there are any."""
    figures = "\n".join(f"- {each.title}: {each.text}" for each in headlines(report))
    failed = [gate for gate in judgement.gates if not gate.passed]
    gates = "\n".join(f"- {gate.name.replace('_', ' ')}: {_text(gate.why)}" for gate in failed)
    return f"{figures}\n\nWhat the failed gates mean:\n\n{gates}" if failed else figures


def failed(error: BaseException, links: Links) -> str:
    """A run that an error ended: its message, and what to do."""
    explained = isinstance(error, PlumblineError)
    message = shown(str(error)).strip() or type(error).__name__
    quoted = "\n".join(f"> {_text(line)}" for line in message.splitlines())
    kind = "" if explained else f"It ended with {type(error).__name__}, and the log says where:"
    to_do = "Mend what the message names" if explained else "Mend the cause"
    again = f"{to_do}, then start the same run again: the stages that were finished are not computed again."
    return _note("Failed", links, kind, quoted, again)


def cancelled(links: Links) -> str:
    """A run that somebody stopped."""
    again = (
        "Somebody stopped it. Started again with the same settings, it goes on after the stages that were finished, "
        "and a training from its last checkpoint."
    )
    return _note("Cancelled", links, again)


def skipped(reason: str, links: Links) -> str:
    """A round that had nothing to do."""
    return _note("Skipped", links, _text(reason))


def lost(ended: str, links: Links) -> str:
    """A run whose process died before it could say why."""
    return _note("Failed", links, f"{_text(ended)}. The stages that were finished are not computed again.")


def _note(state: str, links: Links, *texts: str) -> str:
    """The state and the links on one line, since MLflow shows five lines and folds the rest away."""
    listed = (f"[{in_markdown(title)}]({where})" for title, where in links.items() if where)
    return "\n\n".join(filter(None, (" · ".join((f"**{state}**", *listed)), *texts)))


def _text(text: str) -> str:
    """A text that Markdown shows as it is, however long."""
    return " ".join(map(in_markdown, wrap(text, MAX_TEXT))) or text
