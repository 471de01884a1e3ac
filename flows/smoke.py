"""The flow `smoke`, which tests a registered model: it generates texts, and their reward must be the recorded one."""

from typing import Annotated, Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from alignment.aliases import CHAMPION
from alignment.errors import PromotionError
from alignment.judging.smoke import SmokeResult
from flows.align import connect
from flows.flow import REGISTRY, named_flow, work_begins
from flows.settings import MODEL_NAME
from tasks.run_names import name_run
from tasks.smoke import load_version, record_smoke, require_sound, reward_of, sentence, write_and_score


@named_flow("smoke", REGISTRY, run_name="smoke test of {model_name}, {alias}")
def smoke(
    model_name: Annotated[str, Field(min_length=1, max_length=200)] = MODEL_NAME,
    alias: Annotated[str, Field(min_length=1, max_length=100)] = CHAMPION,
) -> SmokeResult | State[Any]:
    """Test a registered model: its texts must get the mean reward that its evaluation recorded.

    Args:
        model_name: Name of the registered model.
        alias: Alias of the version to test.
    """
    connect()
    subject = load_version(model_name, alias)
    name_run(f"smoke test of {subject.name} version {subject.version}")
    work_begins()
    result = write_and_score(subject, reward_of(subject))
    record_smoke(subject, result)
    try:
        require_sound(subject, result)
    except PromotionError as unsound:  # a finding about the model, wherever it was asked for
        return Failed(message=str(unsound), data=unsound)
    return Completed(message=sentence(subject, result), data=result)
