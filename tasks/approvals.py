"""An approval as people meet it in Prefect: the card on the run's page, the short dialog, and who else waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from tasks import artifacts
from tasks.addresses import flow_run_url
from tasks.notices import moment
from tasks.registry.candidates import Candidate, figures_list, would_replace
from tasks.run_log import run_logger

FLOW = "promote"
LABEL = "plumbline.candidate"
KEY = "promotion"


@dataclass(frozen=True)
class Waiting:
    """A promotion that waits for a person: the title of its version, since when, and its run's page."""

    title: str
    since: datetime
    page: str


def artifact_page(artifact: UUID) -> str:
    """An artifact's page in Prefect."""
    return f"{PREFECT_UI_URL.value()}/artifacts/artifact/{artifact}"


def dialog(candidate: Candidate, until: datetime, others: Sequence[Waiting], card: str) -> str:
    """What the dialog says above its fields, in as many lines as it shows at once; `card` is the page of the card."""
    parts = []
    if candidate.judgement is not None and candidate.report is not None:
        passed = f"{candidate.title} passed its {len(candidate.judgement.gates)} gates."
        parts += [f"**{passed}**", figures_list(candidate.report)]
    everything = f" [Gates, samples, all figures]({card})" if card else ""
    parts.append(f"{would_replace(candidate)} Answer by {moment(until)}, or it is rejected.{everything}")
    if others:
        parts.append(told(others))
    return "\n\n".join(parts)


def told(others: Sequence[Waiting]) -> str:
    """The other promotions that wait, with links, in one sentence."""
    each = (f"[{other.title}]({other.page}), since {moment(other.since)}" for other in others)
    return f"Also waiting: {'; '.join(each)}."


def label_run(run: str, candidate: Candidate) -> None:
    """Label the flow run with its version, which neither its name nor its parameters may say."""
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(run), {LABEL: candidate.title})
    except (HTTPError, ObjectNotFound, OSError) as error:
        run_logger().warning("the run could not be labelled with %s: %s", candidate.title, error)


def others_waiting(run: str) -> list[Waiting]:
    """The promotions that wait beside the one of this flow run, the longest first; empty if Prefect is unreachable."""
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
                ),
            )
    except (HTTPError, OSError) as error:
        run_logger().warning("whether other promotions wait could not be read from Prefect: %s", error)
        return []
    waiting = [
        Waiting(str(each.labels.get(LABEL, each.name)), each.state.timestamp, flow_run_url(each.id))
        for each in found
        if each.state is not None and each.id != UUID(run)
    ]
    return sorted(waiting, key=lambda each: each.since)


def show(markdown: str, description: str) -> str:
    """Show Markdown on the page of the flow run at work, in place of what it showed before; returns where it is.

    If Prefect is unreachable, it logs a warning and returns "".
    """
    try:
        with get_client(sync_client=True) as client:
            return artifact_page(artifacts.put(client, UUID(flow_run.id), KEY, markdown, description))
    except (HTTPError, ObjectNotFound, OSError) as error:
        run_logger().warning("%s: not shown in Prefect: %s", description, error)
        return ""
