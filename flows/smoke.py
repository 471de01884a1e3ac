"""The flow `smoke`, which tests a registered model: it generates texts, and their reward must be the recorded one."""

from typing import Annotated

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from alignment.aliases import CHAMPION
from alignment.judging.smoke import SmokeResult
from flows.align import connect
from flows.settings import MODEL_NAME
from tasks.smoke import load_version, record_smoke, require_sound, reward_of, write_and_score


@flow(name="smoke", flow_run_name="smoke-{model_name}", task_runner=ThreadPoolTaskRunner(max_workers=1))  # type: ignore[arg-type]
def smoke(
    model_name: Annotated[str, Field(min_length=1, max_length=200)] = MODEL_NAME,
    alias: Annotated[str, Field(min_length=1, max_length=100)] = CHAMPION,
) -> SmokeResult:
    """Test a registered model: its texts must get the mean reward that its evaluation recorded.

    Args:
        model_name: Name of the registered model.
        alias: Alias of the version to test.
    """
    connect()
    subject = load_version(model_name, alias)
    result = write_and_score(subject, reward_of(subject))
    record_smoke(subject, result)
    require_sound(subject, result)
    return result
