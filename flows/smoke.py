"""The flow that tries a registered model: load, write, score, compare with what its evaluation recorded."""

from typing import Annotated

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from alignment.judging.smoke import SmokeResult
from alignment.stages.plan import keys as stage_keys
from flows.align import connect
from tasks.data import load_texts
from tasks.models import reward_model
from tasks.smoke import bring_in, record_smoke, require_sound, write_and_score


@flow(name="smoke", flow_run_name="smoke-{model_name}", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def smoke(
    model_name: Annotated[str, Field(min_length=1, max_length=200)] = "plumbline-quickstart",
    alias: Annotated[str, Field(min_length=1, max_length=100)] = "champion",
) -> SmokeResult:
    """Try a registered model: it must write, and earn the mean reward that its evaluation recorded.

    Args:
        model_name: Name of the registered model.
        alias: Alias of the version to try.
    """
    connect()
    subject = bring_in(model_name, alias)
    reward = None
    if subject.report is not None:
        config, keys = subject.config, stage_keys(subject.config)
        trained = config.reward.model == "train"
        reward = reward_model(config, keys, {"texts": load_texts(config, keys)} if trained else {})
    result = write_and_score(subject, reward)
    record_smoke(subject, result)
    require_sound(subject, result)
    return result
