"""The scheduled flow: one more round, from the champion, on prompts that no round has used."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from alignment.config import AlignConfig
from alignment.errors import NothingNewError
from flows.align import AlignResult, connect, ended, run_name, run_stages, tracked
from flows.form import config_flow
from tasks.rounds import next_round


@config_flow("retrain", lambda config: f"retrain {run_name(config)}", own_base=False)
def retrain(config: AlignConfig) -> AlignResult | State[Any]:
    """Train a challenger from the champion's own samples, and judge it against the champion and the first base.

    Where there is no champion yet, the round starts from the configured base. Where no prompt is left that an earlier
    round has not used, the run ends as `Skipped`.
    """
    connect()
    try:
        return ended(tracked(next_round(config), run_stages))
    except NothingNewError as nothing:
        return Completed(name="Skipped", message=str(nothing))
