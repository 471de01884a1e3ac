"""The samples of an evaluation in MLflow's pages, and what people say of them there."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from alignment.judging.ratings import summarise
from alignment.judging.review import Comparison
from tasks.registry import connection, review, runs
from tests.tasks.registry.judged import CONFIG, run_of

pytestmark = pytest.mark.usefixtures("local")

CHAT = '[{"role": "user", "content": "How was it?"}]'
ROWS = [
    Comparison(f"p{n}", f"film {n}", CHAT if n == 3 else "", f" bad {n}", f" good {n}", {"reward_gain": float(n - 1)})
    for n in range(4)
]


def assess(run_id: str, row: Comparison, value: Any, who: str = "ann", name: str = "better") -> None:
    """Rate as MLflow's page does: a feedback by a person, with no run and no span."""
    from mlflow.entities import AssessmentSource, Feedback

    source = AssessmentSource(source_type="HUMAN", source_id=who)
    made = Feedback(name=name, value=value, source=source)
    made.trace_id = review._trace_id(run_id, row)
    review._store().log_assessment(made.trace_id, made)


def traces(run_id: str) -> list[Any]:
    where = run_of(run_id).info.experiment_id
    return list(connection.client().search_traces(locations=[where], run_id=run_id))


@pytest.fixture(scope="module")
def offered(home: Any) -> str:
    """A run whose samples were offered twice, as by a task that is tried again."""
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    run_id = runs.start_run(CONFIG, "reviewed")
    for _ in range(2):
        review.offer(run_id, ROWS)
    connection._place = before
    return run_id


def test_each_prompt_is_a_trace_of_the_run_with_its_scores(offered: str) -> None:
    found = traces(offered)
    assert len(found) == len(ROWS)
    assert [trace.info.request_preview for trace in found] == ["film 0", "film 1", "film 2", "How was it?"]
    first = next(trace for trace in found if trace.info.request_preview == "film 2")
    assert [(each.name, each.value, each.source.source_type) for each in first.info.assessments] == [
        ("reward_gain", 1.0, "CODE")
    ]
    assert [span.name for span in first.data.spans] == ["comparison", "base model", "aligned model"]
    assert first.data.spans[0].inputs == {"prompt": "film 2"}
    assert first.data.spans[0].outputs == ROWS[2].texts(offered)


def test_the_prompts_are_a_data_set_which_two_runs_share(offered: str) -> None:
    other = runs.start_run(CONFIG, "the same prompts")
    review.offer(other, [replace(row, aligned=f"{row.aligned}!") for row in ROWS])
    assert runs.REVIEW_RUN not in run_of(other).data.tags, "other texts are rated by themselves"
    where = run_of(offered).info.experiment_id
    (found,) = connection.client().search_datasets(experiment_ids=[where], filter_string="name LIKE 'held-out%'")
    with connection.fluent():
        records = connection.client().get_dataset(found.dataset_id).to_df()
    assert len(records) == len(ROWS)
    assert {"prompt": "film 1"} in list(records["inputs"])


def test_a_queue_asks_which_text_is_better(offered: str) -> None:
    tag = run_of(offered).data.tags[runs.REVIEW]
    queue = review._store()._get_review_queue(tag)
    assert queue.name == f"reviewed ({offered[:8]})"
    assert len(review._store()._list_review_queue_items(tag)) == len(ROWS)
    (schema,) = (review._store()._get_label_schema(each) for each in queue.schema_ids)
    assert (schema.name, schema.input.options) == ("better", ["A", "B", "equal"])
    assert tag in runs.rating_url(offered)
    runs.conclude(offered, "pass", "It passed.", told="x")
    note = run_of(offered).data.tags["mlflow.note.content"]
    assert f"review-queue?workflowType=genai&selectedQueueId={tag}" in note


def test_what_people_say_is_read_back_by_who_wrote_which_text(offered: str) -> None:
    """The last answer of a person counts, another's beside it; other assessments and other answers do not."""
    aligned = {row.prompt_id: row.letter_of_aligned(offered) for row in ROWS}
    assess(offered, ROWS[0], "equal")
    assess(offered, ROWS[0], aligned["p0"])
    assess(offered, ROWS[0], "A", name="other")
    assess(offered, ROWS[2], "AB"[aligned["p2"] == "A"].lower())
    assess(offered, ROWS[2], "equal", who="bo")
    assess(offered, ROWS[3], "both")
    rated, unreadable = review.read_ratings(offered)
    votes = {each.prompt or "chat": each.votes for each in rated}
    assert votes == {"film 0": {"ann": "aligned"}, "film 1": {}, "film 2": {"ann": "base", "bo": "equal"}, "chat": {}}
    assert unreadable == 1
    assert {each.aligned for each in rated} == {row.aligned for row in ROWS}
    assert next(each.messages for each in rated if each.messages) == CHAT
    assert summarise(rated).agreement["reward"].prompts == 2


def test_offered_again_what_people_said_stays(offered: str) -> None:
    assess(offered, ROWS[1], "equal", who="cy")
    review.offer(offered, ROWS)
    assert any("cy" in each.votes for each in review.read_ratings(offered)[0])


def test_a_run_with_the_very_same_samples_shares_the_queue_and_what_people_said(offered: str) -> None:
    again = runs.start_run(CONFIG, "made again")
    for _ in range(2):
        review.offer(again, ROWS)
    tags, first = run_of(again).data.tags, run_of(offered)
    assert (tags[runs.REVIEW], tags[runs.REVIEW_RUN]) == (first.data.tags[runs.REVIEW], offered)
    assert runs.REVIEW_RUN not in first.data.tags
    assert traces(again) == []
    assert review.read_ratings(again) == review.read_ratings(offered)
    runs.conclude(again, "pass", "It passed.", told="x")
    note = run_of(again).data.tags["mlflow.note.content"]
    assert first.data.tags[runs.REVIEW] in note
    assert offered in note, "the samples are shown where they can be rated"


def refusing(code: int) -> Any:
    """A function that MLflow's client has, on a server that answers with an error."""
    from mlflow.exceptions import MlflowException

    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("no", code)

    return refuse


def test_a_server_that_takes_no_reviews_keeps_the_rest(
    run_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.tracing.client import TracingClient

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "plumbline"):
        patch.setattr(TracingClient, "_get_label_schema_by_name", refusing(PERMISSION_DENIED))
        review.offer(run_id, ROWS[:2])
    assert (len(traces(run_id)), runs.REVIEW in run_of(run_id).data.tags) == (2, False)
    assert "did not take its samples into a review queue" in caplog.text
    assert "/traces" in runs.rating_url(run_id)


def test_whatever_keeps_samples_from_being_shown_keeps_no_run_from_its_end(
    run_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy server, one that is too old, and a text that PostgreSQL cannot hold."""
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
    from mlflow.tracing.client import TracingClient

    def fail(error: Exception) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise error

        return refuse

    old, nul = NotImplementedError("too old"), ValueError("A string literal cannot contain NUL (0x00) characters.")
    for refuse in (refusing(TEMPORARILY_UNAVAILABLE), fail(old), fail(nul)):
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "plumbline"):
            patch.setattr(TracingClient, "log_spans", refuse)
            review.offer(run_id, ROWS[:2])
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "MLflow did not take its samples as traces, so people cannot rate them there"
    ] * 3
    assert "too old" in caplog.text
    assert "NUL (0x00)" in caplog.text
    assert not traces(run_id)
