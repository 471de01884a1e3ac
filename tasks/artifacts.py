"""Artifacts of a flow run, wherever they are made: Prefect shows those of a task on the task's page alone."""

from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from tasks.run_log import run_logger

Kind = str
"""Of Prefect: `markdown`, `progress`, `table`, `image`, `link`."""


def show(key: str, data: Any, description: str, kind: Kind = "markdown") -> None:
    """Show an artifact on the page of the flow run at work. Outside of one, or without Prefect, nothing is shown."""
    run = flow_run.id
    if not run:
        return
    try:
        with get_client(sync_client=True) as client:
            create(client, UUID(run), key, data, description, kind)
    except (HTTPError, PrefectException, OSError) as error:
        run_logger().warning("the artifact %r could not be shown in Prefect: %s", key, error)


def create(
    client: SyncPrefectClient, run: UUID, key: str, data: Any, description: str, kind: Kind = "markdown"
) -> UUID:
    """Create an artifact of a flow run; returns its id."""
    wanted = ArtifactCreate(key=key, type=kind, description=description, data=data, flow_run_id=run)
    return client.create_artifact(wanted).id


def update(client: SyncPrefectClient, artifact: UUID, data: Any, description: str) -> None:
    """Replace what an artifact shows."""
    client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))
