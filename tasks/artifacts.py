"""Artifacts of a flow run, wherever they are made: Prefect shows those of a task on the task's page alone."""

from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
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
            put(client, UUID(run), key, data, description, kind)
    except (HTTPError, PrefectException, OSError) as error:
        run_logger().warning("the artifact %r could not be shown in Prefect: %s", key, error)


def put(client: SyncPrefectClient, run: UUID, key: str, data: Any, description: str, kind: Kind = "markdown") -> UUID:
    """Show the artifact of a flow run, in place of one of the same key, as on a retry; returns its id."""
    same = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]), key=ArtifactFilterKey(any_=[key]))
    if found := client.read_artifacts(artifact_filter=same):
        update(client, found[0].id, data, description)
        return found[0].id
    wanted = ArtifactCreate(key=key, type=kind, description=description, data=data, flow_run_id=run)
    return client.create_artifact(wanted).id


def update(client: SyncPrefectClient, artifact: UUID, data: Any, description: str) -> None:
    """Replace what an artifact shows."""
    client.update_artifact(artifact, ArtifactUpdate(data=data, description=description))
