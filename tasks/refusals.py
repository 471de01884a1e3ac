"""Has people told that the gates refused what a run trained."""

from prefect.runtime import flow_run

from alignment.judging.report import EvalReport, Judgement
from tasks.addresses import flow_run_url
from tasks.events import MODEL_DRIFTED, RUN_REFUSED, emit
from tasks.notices import is_drift, notice, refused


def announce_refusal(model_name: str, judgement: Judgement, report: EvalReport, where: str) -> None:
    """Send the event of a refused model; too much drift from the anchor is told as that, and not twice.

    `where` is linked outside of a flow run.
    """
    event = MODEL_DRIFTED if is_drift(judgement) else RUN_REFUSED
    emit(event, model_name, refused(model_name, judgement, report, _page(where)) | {"reason": judgement.sentence})


def announce_refused_sweep(model_name: str, told: str, where: str) -> None:
    """Send the event of a sweep in which no model passed the gates; `told` says how many points there were."""
    payload = notice(f"{model_name}: no model of the sweep passed the gates", f"{told}.", link=_page(where))
    emit(RUN_REFUSED, model_name, payload | {"reason": told})


def _page(where: str) -> str:
    return flow_run_url(flow_run.id) if flow_run.id else where
