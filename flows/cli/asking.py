"""Promotion, rollback and smoke test from a terminal: the card is shown there, and the answer given there."""

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.prompt import Confirm, Prompt

from alignment.errors import REFUSED, InputError
from flows.cli.console import make_console, quieten
from tasks.home import home

if TYPE_CHECKING:
    from flows.promote import Approval
    from tasks.registry.candidates import Candidate
    from tasks.registry.promotion import Outcome


def promote(name: str, version: int | None, config: Path, yes: bool, reason: str, approver: str) -> int:
    """Show the version, ask, and carry the answer out; returns 0 if it is the champion, 3 if it was rejected.

    Raises InputError where there is nobody to ask.
    """
    if not yes and not sys.stdin.isatty():
        raise InputError(
            "promote asks for an approval, and there is no terminal to ask in: run it in one, start `promote` from "
            "Prefect's UI, or pass --yes where promotion.automatic allows it"
        )
    console = make_console()
    with prefect():
        from flows.promote import approve_automatically, promote_answered
        from tasks.registry.promotion import find_candidate, load_promotion

        policy = load_promotion(config)
        given = approve_automatically(policy, approver, reason) if yes else None
        candidate = find_candidate(name, version)
        answer = given or ask(candidate, reason, approver, console)
        number = int(candidate.version)
        state: Any = promote_answered(name, number, candidate.champion, answer, return_state=True)
        return _report(state.result(), console)


def rollback(name: str, reason: str, approver: str) -> int:
    """Go back to the previous champion; returns 0."""
    with prefect():
        from flows.promote import rollback as rollback_flow

        return _report(rollback_flow(name, reason, approver or getpass.getuser()), make_console())


def smoke(name: str, alias: str) -> int:
    """Try the version that the alias points at; returns 0 unless it fails, which raises PromotionError."""
    with prefect():
        from flows.smoke import smoke as smoke_flow

        result = smoke_flow(name, alias)
    make_console().print(
        f"{name}@{alias} {result.verdict}: {result.sentence}", highlight=False, soft_wrap=True, markup=False
    )
    return 0


def ask(candidate: "Candidate", reason: str, approver: str, console: Console) -> "Approval":
    """Show the card and have the person decide; what the command line says is not asked for again."""
    from flows.promote import Approval
    from tasks.registry.candidates import card

    if candidate.settled:
        return Approval(decision="approve", approver=approver, reason=reason)
    console.print(Markdown(card(candidate)))
    console.print()
    approved = Confirm.ask(f"approve {escape(candidate.title)}?", default=False, console=console)
    name = approver or Prompt.ask("your name", default=getpass.getuser(), console=console)
    return Approval(decision="approve" if approved else "reject", approver=name, reason=reason)


@contextmanager
def prefect() -> Iterator[None]:
    """The stack of this home where one is up, else a Prefect server of its own; and an MLflow that answers."""
    from flows.stack.presence import join
    from flows.stack.server import prefect_server

    quieten()
    join(home())
    with prefect_server(home()) as server_is_ready:
        from flows.align import connect

        connect()
        server_is_ready()
        yield


def _report(outcome: "Outcome", console: Console) -> int:
    colour = "red" if outcome.decision == "rejected" else "green"
    console.print(f"[bold {colour}]{escape(outcome.sentence)}[/]", highlight=False, soft_wrap=True)
    return REFUSED if outcome.decision == "rejected" else 0
