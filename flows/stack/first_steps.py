"""The page of Prefect that a newcomer reads first: a Markdown artifact, made and kept up to date by the bootstrap."""

from collections.abc import Mapping

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.stack.changes import Change
from flows.stack.pages import FIRST_STEPS_KEY
from tasks.registry import pages

DESCRIPTION = "What to press first, where the result is, how a model is approved, and what can run by itself."


def write_first_steps(client: SyncPrefectClient) -> Change:
    """Make the artifact, or bring it up to date; one that says the same already is left."""
    what = f"artifact {FIRST_STEPS_KEY}"
    ids = {deployment.name: str(deployment.id) for deployment in client.read_deployments()}
    text = first_steps(ids)
    found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[FIRST_STEPS_KEY])))
    if not found:
        client.create_artifact(ArtifactCreate(key=FIRST_STEPS_KEY, type="markdown", description=DESCRIPTION, data=text))
        return Change("made", what)
    if found[0].data == text:
        return Change("left", what)
    client.update_artifact(found[0].id, ArtifactUpdate(data=text, description=DESCRIPTION))
    return Change("changed", what)


def first_steps(deployments: Mapping[str, str]) -> str:
    """The text, with links to the deployments whose ids are given by their names, and to MLflow."""

    def page(name: str, *, form: bool = False) -> str:
        return f"/deployments/deployment/{deployments[name]}{'/run' if form else ''}" if name in deployments else "/"

    experiments, models = pages.experiments_page(), pages.models_page()
    return f"""\
# First steps

1. **Start a small run.** Open [the form of align]({page("align", form=True)}). In *start_from* choose **tiny**, leave
   everything else, and press **Submit**. It trains a small model on the CPU, judges it, and registers it if it passes.
2. **Watch it.** The run's page shows which stage it is at. Its tab **Artifacts** has the progress, the checks of the
   training pairs, and at the end the result: the verdict, its figures, and samples before and after.
3. **See the curves.** In [MLflow, experiments]({experiments}), choose the experiment and then the run: *Model metrics*
   has the reward and the loss over the steps.
4. **Approve it.** Start [promote]({page("promote", form=True)}). It waits for a person: press **Resume** on its page,
   read the figures, choose *approve* and give your name. The version is then the champion in
   [MLflow, models]({models}).
5. **Use your own model and data.** In the same form choose another preset, or give the fields that differ. An
   experienced hand starts the same from a file: `plumbline run --config FILE`.
6. **Let it run by itself.** [retrain]({page("retrain")}) has a weekly schedule, which is shipped **paused**: it would
   retrain the embedded example. Once it names your own model, switch the schedule on, at the right of its page.

Runs that fail say why at the top of their page. `plumbline status` in a terminal shows what runs, what waits for a
person, and the schedules.
"""
