"""How a run is named, tagged, and ends: with its reason in its state, and no red run for what was asked in vain."""

from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flow_engine import run_flow
from prefect.states import Completed, Scheduled

from alignment.errors import ConfigError, Interrupted, PlumblineError, PromotionError, ValidationError
from flows.flow import REGISTRY, named_flow, work_begins
from tasks.run_names import is_free, name_run

pytestmark = pytest.mark.usefixtures("at_home")

SEEN: list[str] = []


def raising(error: BaseException, *, begun: bool = False) -> Any:
    @named_flow("raises", REGISTRY, run_name="try {subject}")
    def body(subject: str = "it") -> str:
        """Raise."""
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        SEEN.append(str(context.flow_run.id))
        if begun:
            work_begins()
        raise error

    return body


def last() -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(SEEN[-1])  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ConfigError("dpo.beta is 99\nand more"), PromotionError("no previous version")])
def test_what_a_person_at_a_terminal_cannot_have_is_no_failed_run(error: PlumblineError) -> None:
    body = raising(error)
    with pytest.raises(type(error)) as raised:
        body()
    assert raised.value is error
    with pytest.raises(type(error)):
        body(return_state=True)
    state = last().state
    assert state is not None
    assert (state.type, state.name) == ("COMPLETED", "NothingDone")
    assert state.message == str(error).partition("\n")[0]


def test_from_a_form_the_same_is_failed_with_the_reason_alone() -> None:
    state: Any = run_flow(raising(ConfigError("dpo.beta is 99")), return_type="state")  # as a worker runs it
    assert (state.name, state.message) == ("Failed", "dpo.beta is 99")


def test_what_fails_on_the_way_is_failed_wherever_it_was_started() -> None:
    with pytest.raises(ValidationError, match="too few pairs"):
        raising(ValidationError("too few pairs"))()
    state = last().state
    assert state is not None
    assert (state.name, state.message) == ("Failed", "too few pairs")


def test_what_a_run_cannot_go_on_with_once_its_work_has_begun_is_failed() -> None:
    """Such as a judge's wrong key, which shows when the first answer is asked for, after hours of other stages."""
    wrong = ConfigError("reward.judge.api_key_env: the endpoint refused the key\nand more")
    with pytest.raises(ConfigError) as raised:
        raising(wrong, begun=True)()
    assert raised.value is wrong
    state = last().state
    assert state is not None
    assert (state.name, state.message) == ("Failed", "reward.judge.api_key_env: the endpoint refused the key")
    with pytest.raises(ConfigError):
        raising(wrong)()
    state = last().state
    assert state is not None
    assert state.name == "NothingDone"  # what one run began is not taken for the next one's


@pytest.fixture
def lost_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's answers to the ends of runs are lost, and Prefect's client sends the same request again."""
    request = SyncPrefectClient.request

    def twice(client: SyncPrefectClient, method: Any, path: Any, **options: Any) -> Any:
        if path == "/flow_runs/{id}/set_state" and options["json"]["state"]["type"] in ("COMPLETED", "FAILED"):
            request(client, method, path, **options)
        return request(client, method, path, **options)

    monkeypatch.setattr(SyncPrefectClient, "request", twice)


@pytest.mark.usefixtures("lost_answers")
def test_a_run_has_its_result_though_the_server_s_answer_was_lost() -> None:
    assert works("mine") == "mine"
    assert works("mine", return_state=True).result() == "mine"
    with pytest.raises(ValidationError, match="too few pairs"):
        raising(ValidationError("too few pairs"))()
    with pytest.raises(ConfigError, match=r"dpo\.beta is 99"):
        raising(ConfigError("dpo.beta is 99"))()
    state: Any = raising(ValidationError("too few pairs"))(return_state=True)
    with pytest.raises(ValidationError, match="too few pairs"):
        state.result()


def test_an_interruption_is_not_taken_for_an_error() -> None:
    with pytest.raises(Interrupted):
        raising(Interrupted("asked to stop"))()
    state = last().state
    assert state is not None
    assert "asked to stop" in (state.message or "")


def test_a_mistake_of_the_program_keeps_prefect_s_message() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError("by zero"))()
    state = last().state
    assert state is not None
    assert (state.name, state.message) == ("Failed", "Flow run encountered an exception: ZeroDivisionError: by zero")


@named_flow("works", REGISTRY, run_name="work on {subject}")
def works(subject: str = "it") -> str | State[Any]:
    """Work."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    SEEN.append(str(context.flow_run.id))
    return Completed(name="Refused", message="a gate", data=subject)


def test_a_run_from_a_terminal_has_the_tags_of_the_deployment_and_is_named_after_what_it_does() -> None:
    assert works("mine") == "mine"
    run = last()
    assert {"plumbline", "registry"} <= set(run.tags)
    assert run.name.startswith("work on mine, ")
    assert run.state is not None
    assert (run.state.type, run.state.name, run.state.message) == ("COMPLETED", "Refused", "a gate")


def test_a_name_that_a_person_gave_is_kept() -> None:
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(works, parameters={"subject": "mine"}, name="beta-sweep of Friday")
    run_flow(works, flow_run=made, parameters={"subject": "mine"})
    assert last().name == "beta-sweep of Friday"


@named_flow("learns", REGISTRY, run_name="work on {subject}")
def learns(subject: str = "it") -> str:
    """Learn what it works on."""
    return name_run("work on the third")


def test_a_run_may_be_named_again_once_more_is_known_unless_a_person_named_it() -> None:
    assert learns().startswith("work on the third, ")
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(learns, name="beta-sweep of Friday")
    assert run_flow(learns, flow_run=made, parameters={}) == "beta-sweep of Friday"


def started(name: str, message: str | None) -> FlowRun:
    """A run of a deployment, as the server of the tests makes it."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow_from_name("named"), "named")
        return client.create_flow_run_from_deployment(deployment, name=name, state=Scheduled(message=message))


@pytest.mark.parametrize(
    ("name", "message", "free"),
    [
        ("hot-dog", "", False),
        ("pi-sirius", "", True),
        ("hot-dog", "Run from the Prefect UI with defaults", True),
        ("hot-dog", None, True),
        ("beta-sweep", None, False),
    ],
)
def test_a_name_of_the_server_s_words_was_typed_where_the_form_fills_in_its_own(
    name: str, message: str | None, free: bool
) -> None:
    """The form alone leaves the first state's message empty."""
    assert is_free(started(name, message)) is free
