"""The page of Prefect that a newcomer reads first: a Markdown artifact, made and kept up to date by the bootstrap."""

from collections.abc import Mapping

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.settings import TINY, load_config
from flows.stack.changes import Change
from flows.stack.pages import FIRST_STEPS_KEY
from tasks.registry import pages

DESCRIPTION = "What to press first, where the result is, how a model is approved, and what can run by itself."
STATUS = (
    "A run that fails says why at the top of its page. In a terminal, `plumbline status` shows what runs, what waits "
    "for a person, and which schedules are active."
)


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

    steps = (
        f"**Start a small run.** Open [the form of align]({page('align', form=True)}), choose **tiny** under "
        "*start_from*, and press **Submit**. It trains a small model on the CPU, judges it, and registers it if it "
        "passes.",
        "**Watch it.** The run's page says which stage it is at and how long it will still take; its tab **Artifacts** "
        "has a link to its curves at once, and at the end the result: verdict, figures, samples before and after.",
        f"**See the curves.** In [MLflow]({pages.experiments_page()}), choose the experiment and then the run: **Model "
        "metrics** has the reward margin and the loss over the steps.",
        f"**Approve it.** Start [promote]({page('promote', form=True)}) with the model's name: after step 1, "
        f"**{load_config(TINY).registry.model_name}**. It waits for a person: press **Resume** on its page, "
        "read the figures, give your name and switch *Approve* on. The version is then the champion among "
        f"[the registered models]({pages.models_page()}).",
        "**Use your own model and data.** The same form takes another preset or an earlier run to start from, and the "
        "fields that differ; from a terminal, a file does: `plumbline run --config FILE`.",
        f"**Let it run by itself.** [retrain]({page('retrain')}) has a weekly schedule. It is shipped **paused**, "
        "because it would retrain the embedded example: once the deployment names your own model, switch it on there.",
    )
    numbered = (f"**{number}.** {step}" for number, step in enumerate(steps, start=1))
    return "\n\n".join(["# First steps", *numbered, STATUS])  # a line each: Prefect's page breaks where a line ends
