"""The commands on registered models: promote, rollback, smoke; a promotion shows its card and asks in the terminal."""

import getpass
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from alignment.aliases import CHAMPION
from alignment.errors import REFUSED, InputError
from flows.cli.console import BAD, GOOD, make_console, quieten, say
from flows.cli.servers import servers_for_a_flow
from flows.settings import MODEL_NAME, PROMOTION, load_promotion

if TYPE_CHECKING:
    from flows.promote import Approval
    from tasks.registry.candidates import Candidate
    from tasks.registry.promotion import Outcome

ModelName = Annotated[str, Parameter(help="Name of the registered model")]
Reason = Annotated[str, Parameter(help="Why; kept on the version")]
Approver = Annotated[str, Parameter(help="Who decides it [asked for, or your user name]", show_default=False)]


def promote_command(
    *,
    model_name: ModelName = MODEL_NAME,
    version: Annotated[int | None, Parameter(help="Number of the version [the challenger's]")] = None,
    yes: Annotated[bool, Parameter(help="Skip the question, where promotion.automatic allows it", negative=())] = False,
    reason: Reason = "",
    approver: Approver = "",
    config: Annotated[
        Path, Parameter(help="YAML file with the promotion's settings [promotion.yaml]", show_default=False)
    ] = PROMOTION,
) -> int:
    """Make a version the champion, if its gates pass again and you approve.

    It ends with 0, or 3 where it was refused or rejected.
    """
    if not yes and not sys.stdin.isatty():
        raise InputError(
            "promote asks for an approval, and there is no terminal to ask in: run it in one, start `promote` from "
            "Prefect's UI, or pass --yes where promotion.automatic allows it"
        )
    policy = load_promotion(config)
    console = make_console()
    quieten()
    with servers_for_a_flow():
        from flows.promote import approve_automatically, promote_answered
        from tasks.registry.promotion import find_candidate

        given = approve_automatically(policy, approver, reason) if yes else None
        candidate = find_candidate(model_name, version)
        answer = given or ask_approval(candidate, reason, approver, console)
        number = int(candidate.version)
        state: Any = promote_answered(model_name, number, candidate.champion, answer, return_state=True)
        return _report(state.result(), console)


def rollback_command(*, model_name: ModelName = MODEL_NAME, reason: Reason = "", approver: Approver = "") -> int:
    """Exchange champion and previous; a second rollback undoes the first.

    It ends with 0, or 3 where there is no previous version.
    """
    quieten()
    with servers_for_a_flow():
        from flows.promote import rollback

        return _report(rollback(model_name, reason, approver or getpass.getuser()), make_console())


def smoke_command(
    *,
    model_name: ModelName = MODEL_NAME,
    alias: Annotated[str, Parameter(help="Alias of the version to test")] = CHAMPION,
) -> int:
    """Test whether a registered model still writes as well as when it was judged.

    It ends with 0 where its texts get the reward that its evaluation recorded, 3 where they do not.
    """
    quieten()
    with servers_for_a_flow():
        from flows.smoke import smoke

        result = smoke(model_name, alias)
    say(make_console(), escape(f"{model_name}@{alias} {result.verdict}: {result.sentence}"))
    return 0


def ask_approval(candidate: "Candidate", reason: str, approver: str, console: Console) -> "Approval":
    """Show the candidate on one screen and ask for a decision and a name; what the flags say is not asked for."""
    from rich.prompt import Confirm, Prompt

    from flows.promote import Approval

    if candidate.settled:
        return Approval(approve=True, approver=approver.strip() or getpass.getuser(), reason=reason)
    show_candidate(candidate, console)
    console.print()
    approved = Confirm.ask(f"approve {escape(candidate.title)}?", default=False, console=console)
    name = approver.strip() or Prompt.ask("your name", default=getpass.getuser(), console=console).strip()
    why = reason or Prompt.ask("why (the version keeps it)", default="", show_default=False, console=console).strip()
    return Approval(approve=approved, approver=name or getpass.getuser(), reason=why)


def show_candidate(candidate: "Candidate", console: Console) -> None:
    """Print what it would replace, the verdict, the few figures, and where there is more."""
    from flows.cli.result import show_lines, show_verdict
    from tasks.registry.candidates import would_replace

    say(console, f"[bold]{escape(candidate.title)}[/] as champion? {escape(would_replace(candidate))}")
    console.print()
    if candidate.judgement is not None and candidate.report is not None:
        show_verdict(candidate.judgement, candidate.report, console)
        console.print()
    report = f"plumbline report {quote(f'models:/{candidate.name}/{candidate.version}')}"
    lines = {"Report": report, "Look at it": candidate.where}
    show_lines({heading: text for heading, text in lines.items() if text}, console)


def _report(outcome: "Outcome", console: Console) -> int:
    colour = BAD if outcome.decision == "rejected" else GOOD
    say(console, f"[bold {colour}]{escape(outcome.sentence)}[/]")
    return REFUSED if outcome.decision == "rejected" else 0
