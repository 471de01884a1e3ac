"""The flow `shards`: shards of one stage as a job, for the run that started it and waits for them."""

from typing import Any, Literal

from prefect import unmapped
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed, Failed

from alignment.config import AlignConfig
from alignment.errors import ConfigError, Interrupted, PlumblineError
from alignment.stages.job_file import config_of_json
from alignment.stages.plan import Pipeline
from alignment.transient import is_transient
from flows.flow import named_flow
from flows.submission import require_allowed_endpoints, require_no_code
from tasks.home import prepare_environment, store
from tasks.pipeline import STAGES
from tasks.placing import one_place
from tasks.pools import require_deployments
from tasks.runners import TAG, runner, shards_per_job
from tasks.slots import GPU_SLOT
from tasks.stopping import stopping_as_one
from tasks.workers import PART, look_up


@named_flow("shards", (TAG,))
def shards(
    stage: str,
    ranges: list[tuple[int, int]],
    kind: Literal["run", "frontier"],
    config: dict[str, Any],
    refs: dict[str, dict[str, str]],
    made_of: dict[str, Any],
) -> State[Any]:
    """Compute shards of a stage for another run. A run with PLUMBLINE_RUNNER=jobs starts it; nobody else needs it.

    Args:
        stage: Name of the stage.
        ranges: The shards, each as its first item and the one after its last.
        kind: What the configuration is of.
        config: The whole configuration of the run.
        refs: The finished stages that it reads, each as its stage, key and digest.
        made_of: The lineage that the run's key is made of.
    """
    prepare_environment()
    try:
        with stopping_as_one():
            _compute(stage, ranges, config_of_json(kind, config), refs, made_of)
    except Interrupted:
        raise
    except PlumblineError as error:
        if is_transient(error):  # the run starts another one, in a while
            return Crashed(message=str(error).partition("\n")[0])
        # the state's name tells the run which error it is
        return Failed(name=type(error).__name__, message=str(error).partition("\n")[0], data=error)
    return Completed(message=f"Shards of {stage}: {len(ranges)}")


def _compute(
    name: str,
    ranges: list[tuple[int, int]],
    config: AlignConfig,
    refs: dict[str, dict[str, str]],
    made_of: dict[str, Any],
) -> None:
    stage = STAGES.get(name)
    if stage is None or stage.parts is None:
        raise ConfigError(f"stage {name}: is computed in no shards; a run asks for those that are")
    require_no_code(config)
    require_allowed_endpoints(config)
    found = look_up(refs)
    if not set(map(tuple, ranges)) <= set(stage.parts.split(config, found)):
        raise ConfigError(f"{name}: {ranges} are no shards of this configuration; let a run ask for them")
    task = PART.with_options(
        name=stage.parts.title,
        task_run_name=f"{stage.parts.title} {{part}}",
        tags=[GPU_SLOT] if stage.slots(config) else None,
    )
    with one_place():
        task.map(
            ranges,
            name=unmapped(name),
            config=unmapped(config),
            refs=unmapped(found),
            made_of=unmapped(made_of),
            is_placed=unmapped(False),
        ).result()


def require_startable(pipeline: Pipeline, config: AlignConfig) -> None:
    """Raise now what workers or jobs of a run would refuse once it has come to its shards, unless none are left."""
    chosen = runner()
    if chosen == "threads" or not any(
        item.stage.parts and item.found is None for item in pipeline.plan(config, store())
    ):
        return
    if chosen == "ray":
        from tasks import ray_workers

        ray_workers.require_startable()
    else:
        shards_per_job()
        require_no_code(config)
        require_deployments()
