"""The samples of an evaluation in MLflow's own pages: a trace a prompt with its scores, a data set, and a review queue.

What is written again is the same: the ids of traces, spans and assessments follow from the run and the prompt. Where
MLflow does not take a part of this, a warning says so, and the run goes on.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from alignment.judging.ratings import Preferred, Rated
from alignment.judging.review import LETTERS, Comparison, cut, preview
from alignment.stages.store import digest
from tasks.addresses import shown
from tasks.registry.connection import client, error_code, fluent, guard, place
from tasks.registry.runs import REVIEW, REVIEW_RUN, tag

if TYPE_CHECKING:
    from mlflow.entities import Feedback, Span, TraceInfo

logger = logging.getLogger("plumbline")

QUESTION = "better"
"""What people are asked, which is the name of their answers."""
EQUAL = "equal"
INSTRUCTION = "Which text is better? Which of the two models wrote A is drawn anew for each prompt."
SCORES = "plumbline"  # the source of the assessments that are scores
ALIGNED, PROMPT_ID = "plumbline.aligned", "plumbline.prompt_id"  # of a trace: which letter, which prompt
OFFERED = "plumbline.offered"
"""The tag of a run with a hash of the samples that it offered."""
ITEMS_PER_CALL = 100
TRACES_PER_PAGE = 500
MAX_NAME = 200  # characters of a queue's name


def offer(run_id: str, rows: Sequence[Comparison]) -> None:
    """Show the samples in MLflow: as traces of the run, as a data set, and in a queue for people to rate.

    A run that has the very samples of an earlier one, as a run that is made again has, is given that one's queue, so
    that nobody rates a text twice. May be called again. Raises TrackingError where MLflow has no such run or cannot be
    reached.
    """
    if not rows:
        return
    with guard():
        run = client().get_run(run_id)
    where, name = str(run.info.experiment_id), f"{run.info.run_name} ({run_id[:8]})"
    what = digest(list(map(asdict, rows)))
    if before := _offered_before(where, run_id, what):
        tag(run_id, before)
        return
    if not _taken("its samples as traces", lambda: _write_traces(where, run_id, rows, run.info.start_time)):
        return
    ids = [_trace_id(run_id, row) for row in rows]
    _taken("its prompts as a data set", lambda: _write_prompts(where, rows))
    _taken(
        "its samples into a review queue",
        lambda: tag(run_id, {REVIEW: _write_queue(where, name[-MAX_NAME:], ids), OFFERED: what}),
    )


def _offered_before(where: str, run_id: str, what: str) -> dict[str, str]:
    """The tags of a run whose samples another run of the experiment has offered; none where it is the first."""
    with guard():
        found = client().search_runs([where], f"tags.`{OFFERED}` = '{what}'", order_by=["attributes.start_time"])
    others = [run for run in found if run.info.run_id != run_id]
    if not others or len(others) < len(found):  # it offered them itself, and is tried again
        return {}
    return {REVIEW: others[0].data.tags[REVIEW], REVIEW_RUN: others[0].info.run_id}


def read_ratings(run_id: str) -> tuple[list[Rated], int]:
    """What was offered with people's answers, the last one of each person; and how many answers were no answer.

    Raises TrackingError where there is no such run.
    """
    found, unreadable = [], 0
    with guard(), fluent():
        run = client().get_run(run_id)
        where, offered_by = str(run.info.experiment_id), run.data.tags.get(REVIEW_RUN, run_id)
        token = None
        while True:
            page = client().search_traces(
                locations=[where], run_id=offered_by, max_results=TRACES_PER_PAGE, page_token=token
            )
            for trace in page:
                if (letter := trace.info.trace_metadata.get(ALIGNED, "")) in LETTERS:
                    votes, broken = _votes(trace.info.assessments, letter)
                    unreadable += broken
                    found.append(_rated(trace, letter, votes))
            token = page.token
            if not token:
                return found, unreadable


def _write_traces(where: str, run_id: str, rows: Sequence[Comparison], started: int) -> None:
    store = _store()
    store.log_spans(where, [span for row in rows for span in _spans(run_id, row, started)])
    for number, row in enumerate(rows):
        # MLflow lists the newest first, so the first prompt is the newest
        store.start_trace(_trace(where, run_id, row, started + len(rows) - number))


def _write_prompts(where: str, rows: Sequence[Comparison]) -> None:
    """The prompts as a data set of the experiment, once for each set of prompts."""
    name = f"held-out prompts {digest([row.prompt_id for row in rows])[:8]}"
    with fluent():
        if client().search_datasets(experiment_ids=[where], filter_string=f"name = '{name}'", max_results=1):
            return
        made = client().create_dataset(name, experiment_id=[where])
        made.merge_records([{"inputs": _inputs(row), "tags": {"prompt_id": row.prompt_id}} for row in rows])


def _write_queue(where: str, name: str, ids: Sequence[str]) -> str:
    """A queue with one question about each trace; returns its id."""
    from mlflow.genai.label_schemas import InputCategorical

    store = _store()
    question = _made_once(
        lambda: store._get_label_schema_by_name(where, QUESTION),
        lambda: store._create_label_schema(
            where,
            name=QUESTION,
            type="feedback",
            input=InputCategorical([*LETTERS, EQUAL]),
            instruction=INSTRUCTION,
            enable_comment=True,
        ),
    )
    queue = _made_once(
        lambda: store._get_review_queue_by_name(where, name),
        lambda: store._create_review_queue(
            where, name=name, queue_type="custom", users=[], schema_ids=[question.schema_id]
        ),
    )
    for start in range(0, len(ids), ITEMS_PER_CALL):
        store._add_items_to_review_queue(queue.queue_id, item_ids=list(ids[start : start + ITEMS_PER_CALL]))
    return str(queue.queue_id)


def _made_once(find: Callable[[], Any], make: Callable[[], Any]) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return find()
    except MlflowException as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        return make()
    except MlflowException as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # by another run at the same time
            raise
        return find()


def _taken(what: str, write: Callable[[], None]) -> bool:
    """Whether MLflow took it; False, with a warning, where it did not, for whatever reason.

    The run's record does not rest on it, so nothing that fails here may keep a trained model from being registered.
    """
    try:
        with guard():
            write()
    except Exception as error:  # noqa: BLE001 - an old server, a refusal, a text that its database cannot hold, ...
        logger.warning(
            "MLflow did not take %s, so people cannot rate them there (%s); the run is recorded with its samples all "
            "the same, and offers them again if it is run again",
            what,
            shown(str(error)) or type(error).__name__,
        )
        return False
    return True


def _store() -> Any:
    """MLflow's client of traces: the public one writes a trace by several calls, through a queue of its own."""
    from mlflow.tracing.client import TracingClient

    return TracingClient(place().uri)


def _trace(where: str, run_id: str, row: Comparison, at: int) -> "TraceInfo":
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    return TraceInfo(
        trace_id=_trace_id(run_id, row),
        trace_location=TraceLocation.from_experiment_id(where),
        request_time=at,
        execution_duration=1,
        state=TraceState.OK,
        request_preview=cut(row.shown_prompt),
        response_preview=preview(row.texts(run_id)),
        trace_metadata={
            TraceMetadataKey.SOURCE_RUN: run_id,
            "mlflow.trace_schema.version": "3",
            ALIGNED: row.letter_of_aligned(run_id),
            PROMPT_ID: row.prompt_id,
        },
        tags={TraceTagKey.TRACE_NAME: "held-out prompt", TraceTagKey.SPANS_LOCATION: "TRACKING_STORE"},
        assessments=[_score(run_id, row, name, value, at) for name, value in row.figures.items()],
    )


def _score(run_id: str, row: Comparison, name: str, value: float, at: int) -> "Feedback":
    from mlflow.entities import AssessmentSource, Feedback
    from mlflow.tracing.constant import AssessmentMetadataKey

    made = Feedback(
        name=name,
        value=float(f"{value:.5g}"),  # MLflow's page shows every digit
        source=AssessmentSource(source_type="CODE", source_id=SCORES),
        span_id=_hex(run_id, row)[32:48],
        metadata={AssessmentMetadataKey.SOURCE_RUN_ID: run_id},
        create_time_ms=at,
        last_update_time_ms=at,
    )
    made.assessment_id = f"a-{hashlib.sha256(f'{_trace_id(run_id, row)} {name}'.encode()).hexdigest()[:32]}"
    return made


def _spans(run_id: str, row: Comparison, at: int) -> "list[Span]":
    """The comparison, with the texts by their letters, and below it each model with its own."""
    key = _hex(run_id, row)
    root, inputs = key[32:48], _inputs(row)
    return [
        _span(run_id, row, root, "", "comparison", inputs, row.texts(run_id), "CHAIN", at),
        _span(run_id, row, key[44:60], root, "base model", inputs, {"text": row.base}, "LLM", at),
        _span(run_id, row, key[48:64], root, "aligned model", inputs, {"text": row.aligned}, "LLM", at),
    ]


def _span(
    run_id: str, row: Comparison, key: str, parent: str, name: str, inputs: Any, outputs: Any, kind: str, at: int
) -> "Span":
    from mlflow.entities import Span

    return Span.from_dict(
        {
            "trace_id": _base64(_hex(run_id, row)[:32]),
            "span_id": _base64(key),
            "parent_span_id": _base64(parent) if parent else None,
            "name": name,
            "start_time_unix_nano": at * 1_000_000,
            "end_time_unix_nano": (at + 1) * 1_000_000,
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                "mlflow.traceRequestId": json.dumps(_trace_id(run_id, row)),
                "mlflow.spanInputs": json.dumps(inputs, ensure_ascii=False),
                "mlflow.spanOutputs": json.dumps(outputs, ensure_ascii=False),
                "mlflow.spanType": json.dumps(kind),
            },
        }
    )


def _inputs(row: Comparison) -> dict[str, Any]:
    return {"messages": json.loads(row.messages)} if row.messages else {"prompt": row.prompt}


def _votes(assessments: Sequence[Any], letter: str) -> tuple[dict[str, Preferred], int]:
    """What each person answered last, and how many answers are none of those that were offered."""
    answers: dict[str, Any] = {}
    for each in sorted(assessments, key=lambda each: each.last_update_time_ms or 0):
        if each.name == QUESTION and each.source.source_type == "HUMAN" and each.feedback and each.valid is not False:
            answers[str(each.source.source_id or "")] = each.feedback.value
    meant: dict[str, Preferred] = {other.lower(): "base" for other in LETTERS}
    meant |= {letter.lower(): "aligned", EQUAL: "equal"}
    votes = {who: meant[said] for who, answer in answers.items() if (said := str(answer).strip().lower()) in meant}
    return votes, len(answers) - len(votes)


def _rated(trace: Any, letter: str, votes: dict[str, Preferred]) -> Rated:
    root = next(span for span in trace.data.spans if span.parent_id is None)
    other = next(each for each in LETTERS if each != letter)
    messages = root.inputs.get("messages")
    return Rated(
        prompt=str(root.inputs.get("prompt", "")),
        messages=json.dumps(messages, ensure_ascii=False) if messages else "",
        base=str(root.outputs[other]),
        aligned=str(root.outputs[letter]),
        figures={
            each.name: float(each.feedback.value)
            for each in trace.info.assessments
            if each.source.source_id == SCORES and each.feedback
        },
        votes=votes,
    )


def _trace_id(run_id: str, row: Comparison) -> str:
    return f"tr-{_hex(run_id, row)[:32]}"


def _hex(run_id: str, row: Comparison) -> str:
    return hashlib.sha256(f"{run_id} {row.prompt_id}".encode()).hexdigest()


def _base64(key: str) -> str:
    return base64.b64encode(bytes.fromhex(key)).decode()
