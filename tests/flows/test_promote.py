"""Promotion as people meet it: paused in Prefect until they answer, or asked for in a terminal."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import InputError, PromotionError
from flows import promote
from flows.align import connect
from flows.cli.registry import promote_command, rollback_command
from tasks.registry import connection, promotion, versions
from tasks.registry.aliases import Aliases, read_aliases
from tests.registered import make_version, report

_names = (f"film-{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def place(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = connection._place
    connect()
    monkeypatch.setattr(promote, "LOOK_EVERY", 0.2)
    yield
    connection._place = before


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Settings of the promotion in the place of those that are shipped."""

    def write(text: str) -> None:
        (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
        monkeypatch.setattr(promote, "PROMOTION", tmp_path / "settings.yaml")

    return write


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(promotion, "emit", lambda _event, _name, payload: events.append(payload))
    return events


@pytest.fixture
def name(sent: list[dict[str, Any]], configure: Callable[[str], None]) -> str:
    """A model with version 1 as champion and version 2 as challenger; `yes` is allowed."""
    name = next(_names)
    configure("automatic: true")
    make_version(name)
    promote.promote(name, 1, yes=True)
    make_version(name)
    sent.clear()
    return name


def paused_run(name: str) -> Any:
    """The paused run of a model's promotion, once there is one whose form is written."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    wanted = FlowRunFilter(name=FlowRunFilterName(any_=[f"promote-{name}"]))
    ends = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < ends:
            for run in client.read_flow_runs(flow_run_filter=wanted):
                if run.state is not None and run.state.is_paused():
                    return run
            time.sleep(0.1)
    pytest.fail(f"promote-{name} did not pause")


def read_form(run: Any) -> dict[str, Any]:
    """What Prefect's form shows: the card, and the schema of the fields."""
    from prefect.input import read_flow_run_input

    keys = run.state.state_details.run_input_keyset
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        found = {part: read_flow_run_input(keys[part], flow_run_id=run.id) for part in ("description", "schema")}
        if all(found.values()):
            return found
        time.sleep(0.1)
    pytest.fail("the pause has no form")


def answered(name: str, *answers: dict[str, str]) -> tuple[Any, list[dict[str, Any]]]:
    """The final state of a promotion that gets these answers, one a pause, and the forms that asked for them."""
    from prefect.flow_runs import resume_flow_run

    forms: list[dict[str, Any]] = []

    def give() -> None:
        for answer in answers:
            run = paused_run(name)
            forms.append(read_form(run))
            resume_flow_run(run.id, run_input=answer)

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    state = promote.promote(name, return_state=True)
    thread.join()
    return state, forms


def test_an_approved_version_becomes_champion(name: str, sent: list[dict[str, Any]]) -> None:
    state, [form] = answered(name, {"decision": "approve", "approver": "Ann", "reason": "reads well"})
    assert state.is_completed()
    outcome = state.result()
    assert outcome.sentence == f"{name} version 2 is the champion, after version 1; approved by Ann: reads well"
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    assert versions.get_version(name, "2").tags["promotion.approver"] == "Ann"
    assert [payload["version"] for payload in sent] == ["2"]
    assert f"# {name} version 2 as champion?" in form["description"]
    assert "It would replace version 1" in form["description"]
    assert "- win rate 0.93, bound ≥ 0.55: passed" in form["description"]
    assert "## Samples: worst" in form["description"]
    fields = form["schema"]["properties"]
    assert fields["decision"]["default"] == "reject"
    assert fields["decision"]["enum"] == ["reject", "approve"]


def test_an_answer_left_as_it_is_rejects(name: str, sent: list[dict[str, Any]]) -> None:
    before = read_aliases(name)
    state, _ = answered(name, {})
    assert (state.type.value, state.name) == ("COMPLETED", "Rejected")
    assert state.result().decision == "rejected"
    assert read_aliases(name) == before
    assert versions.get_version(name, "2").tags["promotion.decision"] == "rejected"
    assert sent == []


def test_an_approval_without_a_name_is_asked_for_again(name: str) -> None:
    nameless = {"decision": "approve", "approver": " ", "reason": "fine"}
    state, [first, second] = answered(name, nameless, nameless | {"approver": "Ann"})
    assert state.result().approver == "Ann"
    assert "needs your name" not in first["description"]
    assert "needs your name" in second["description"]
    assert second["schema"]["properties"]["reason"]["default"] == "fine"


def test_nobody_s_answer_is_a_rejection(
    name: str, sent: list[dict[str, Any]], configure: Callable[[str], None]
) -> None:
    configure(f"timeout_hours: {2 / 3_600}")
    state = promote.promote(name, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Rejected")
    assert "nobody answered in 0.000555556 h" in str(state.message)
    assert versions.get_version(name, "2").tags["promotion.reason"].startswith("nobody answered in")
    assert read_aliases(name).champion == "1"


def test_a_champion_that_changed_while_it_was_asked_stops_the_promotion(name: str) -> None:
    from prefect.flow_runs import resume_flow_run

    make_version(name, alias="third")

    def give() -> None:
        run = paused_run(name)
        read_form(run)
        candidate = promotion.find_candidate(name, 3)
        promotion.make_champion.fn(candidate, "quicker", "Bob")
        resume_flow_run(run.id, run_input={"decision": "approve", "approver": "Ann", "reason": ""})

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    with pytest.raises(PromotionError, match="changed from version 1 to version 3"):
        promote.promote(name, 2)
    thread.join()
    assert read_aliases(name).champion == "3"


def test_yes_needs_a_configuration_that_allows_it(name: str, configure: Callable[[str], None]) -> None:
    configure("automatic: false")
    with pytest.raises(PromotionError, match=r"promotion\.automatic = false"):
        promote.promote(name, yes=True)
    assert read_aliases(name).champion == "1"
    configure("automatic: true")
    outcome = promote.promote(name, yes=True)
    assert isinstance(outcome, promotion.Outcome)
    assert (outcome.version, outcome.approver) == ("2", "automatic")


def test_a_version_that_failed_is_refused_before_anybody_is_asked(name: str) -> None:
    make_version(name, found=report(win_rate=0.2))
    with pytest.raises(PromotionError, match="version 3 is not promoted: it failed the gates: win_rate"):
        promote.promote(name)


def test_a_version_judged_against_a_former_champion_is_stale(name: str) -> None:
    make_version(name, run_tags={"plumbline.base": f"models:/{name}/1"})
    promote.promote(name, 2, yes=True)
    with pytest.raises(
        PromotionError, match="judged against version 1, and the champion is now version 2; run retrain"
    ):
        promote.promote(name, 3)


def test_who_starts_a_run_cannot_allow_it_to_themselves() -> None:
    from prefect.utilities.callables import parameter_schema

    assert set(parameter_schema(promote.promote).properties) == {"model_name", "version", "reason", "approver", "yes"}


def test_a_rejection_that_comes_late_leaves_the_champion_s_record(name: str) -> None:
    """It waited in the UI, while somebody else promoted the same version."""
    candidate = promotion.find_candidate(name, 2)
    promote.promote(name, 2, yes=True, approver="Ann")
    outcome = promotion.record_rejection.fn(candidate, "nobody answered", "")
    assert outcome.decision == "unchanged"
    assert versions.get_version(name, "2").tags["promotion.approver"] == "Ann"
    assert versions.get_version(name, "2").tags["promotion.decision"] == "promoted"


def test_the_champion_again_is_a_no_op_and_asks_nobody(name: str, sent: list[dict[str, Any]]) -> None:
    outcome = promote.promote(name, 1)
    assert isinstance(outcome, promotion.Outcome)
    assert outcome.sentence == f"{name} version 1 is the champion already; nothing was changed"
    assert sent == []


def test_a_rollback_and_its_undoing_and_the_artifact(name: str) -> None:
    from prefect.client.orchestration import get_client

    promote.promote(name, yes=True)
    assert promote.rollback(name, "it rambles", "Bob").version == "1"
    assert read_aliases(name) == Aliases("1", "2", None, "1")
    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
    assert f"{name} version 1 is the champion again, after version 2; rolled back by Bob: it rambles" in str(
        shown["promotion"].data
    )
    assert promote.rollback(name).version == "2"


# The terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Callable[..., None]:
    """A terminal in which a person types these lines."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    monkeypatch.setattr("flows.cli.registry.quieten", lambda: None)

    def type_in(*lines: str) -> None:
        left = iter(lines)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda *_: next(left))

    return type_in


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "promotion.yaml"
    path.write_text("automatic: true\n", encoding="utf-8")
    return path


def test_a_person_approves_in_the_terminal(
    name: str, terminal: Callable[..., None], settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal("y", "Ann")
    assert promote_command(model_name=name, reason="reads well", config=settings) == 0
    shown = capsys.readouterr().out
    assert "It would replace version 1" in shown
    assert "win rate" in shown
    assert f"{name} version 2 is the champion, after version 1; approved by Ann: reads well" in shown
    assert read_aliases(name).champion == "2"


def test_a_person_rejects_in_the_terminal(name: str, terminal: Callable[..., None], settings: Path) -> None:
    terminal("", "Ann")
    assert promote_command(model_name=name, config=settings) == 3
    assert versions.get_version(name, "2").tags["promotion.decision"] == "rejected"
    assert versions.get_version(name, "2").tags["promotion.approver"] == "Ann"


def test_with_yes_nobody_is_asked(name: str, terminal: Callable[..., None], settings: Path) -> None:
    assert promote_command(model_name=name, yes=True, config=settings) == 0
    assert read_aliases(name).champion == "2"
    assert rollback_command(model_name=name) == 0
    assert read_aliases(name).champion == "1"


def test_without_a_terminal_and_without_yes_the_way_out_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, settings: Path
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(InputError, match=r"no terminal to ask in: .* or pass --yes"):
        promote_command(model_name=name, config=settings)
