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
from tasks.events import APPROVAL_REMINDED, APPROVAL_WAITING
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
    for place in (promote, promotion):
        monkeypatch.setattr(place, "emit", lambda _event, _name, payload: events.append(payload))
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


def wait_until(happened: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.1)


def paused_run(name: str, but: Any = None) -> Any:
    """The paused run of a model's promotion, once there is one whose form is written; not the run `but`."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    wanted = FlowRunFilter(name=FlowRunFilterName(like_=f"promote {name} version "))
    ends = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < ends:
            for run in client.read_flow_runs(flow_run_filter=wanted):
                if run.id != but and run.state is not None and run.state.is_paused():
                    return run
            time.sleep(0.1)
    pytest.fail(f"the promotion of {name} did not pause")


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


def answered(name: str, *answers: dict[str, Any]) -> tuple[Any, dict[str, Any], list[str]]:
    """The final state of a promotion that gets these answers, its form, and what Prefect said to those it refused."""
    from prefect.flow_runs import resume_flow_run

    forms: list[dict[str, Any]] = []
    refused: list[str] = []

    def give() -> None:
        run = paused_run(name)
        forms.append(read_form(run))
        for answer in answers:
            try:
                resume_flow_run(run.id, run_input=answer)
            except RuntimeError as refusal:
                refused.append(str(refusal))

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    state = promote.promote(name, return_state=True)
    thread.join()
    return state, forms[0], refused


def artifacts(run_id: Any) -> list[Any]:
    """What a flow run's page shows under Artifacts."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return [each for each in found if each.task_run_id is None]


def test_an_approved_version_becomes_champion(name: str, sent: list[dict[str, Any]]) -> None:
    state, form, _ = answered(name, {"approve": True, "approver": "Ann", "reason": "reads well"})
    assert state.is_completed()
    outcome = state.result()
    assert outcome.sentence == f"{name} version 2 is the champion, after version 1; approved by Ann: reads well"
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    assert versions.get_version(name, "2").tags["promotion.approver"] == "Ann"
    assert [payload["version"] for payload in sent] == ["2", "2"]
    fields = form["schema"]["properties"]
    assert list(fields) == ["approver", "approve", "reason"]
    assert fields["approve"]["default"] is False


def test_the_dialog_is_short_and_the_run_s_page_has_everything(name: str) -> None:
    """The dialog shows some ten lines without scrolling."""
    from prefect.flow_runs import resume_flow_run

    shown: list[Any] = []

    def give() -> None:
        run = paused_run(name)
        shown.append((read_form(run)["description"], artifacts(run.id), run))
        resume_flow_run(run.id, run_input={"approve": True, "approver": "Ann"})

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    promote.promote(name)
    thread.join()
    (asked, [before], run) = shown[0]
    lines = [line for line in asked.splitlines() if line]
    assert len(lines) == 7
    assert lines[0] == f"**{name} version 2 passed its 6 gates.**"
    assert lines[1:6] == [
        "- reward gain: **+1.50 (+1.40 to +1.60)**",
        "- prompts won: **93.0% (90.0% to 96.0%)**",
        "- perplexity, ratio to the base's: **×1.08**",
        "- KL from the base, nats per token: **0.050**",
        "- length, change in tokens: **+3.0**",
    ]
    assert lines[6].startswith("It would replace version 1; the two were not compared. Answer by ")
    assert f"/artifacts/artifact/{before.id}" in lines[6]
    assert f"# {name} version 2 as champion?" in before.data
    assert "- win rate 0.93, bound ≥ 0.55: passed" in before.data
    assert "## Samples: worst" in before.data
    [after] = artifacts(run.id)
    assert after.id == before.id
    assert after.data.startswith("# Promoted")
    assert "## Samples: worst" in after.data


def test_a_name_alone_rejects(name: str) -> None:
    before = read_aliases(name)
    state, _, _ = answered(name, {"approver": "Ann"})
    assert (state.type.value, state.name) == ("COMPLETED", "Rejected")
    assert state.result().decision == "rejected"
    assert read_aliases(name) == before
    assert versions.get_version(name, "2").tags["promotion.decision"] == "rejected"


def test_an_answer_without_a_name_is_not_taken(name: str) -> None:
    """Neither with the name left as it is, nor empty, nor of blanks; the question stays."""
    nameless = {"approve": True, "reason": "fine"}
    empty, blank = nameless | {"approver": ""}, nameless | {"approver": "  "}
    state, _, refused = answered(name, nameless, empty, blank, nameless | {"approver": "Ann"})
    assert state.result().approver == "Ann"
    assert len(refused) == 3
    assert "'approver' is a required property" in refused[0]


def test_what_the_form_knows_is_filled_in_under_the_same_bounds() -> None:
    form = promote.dialog("why", "Ann", "reads well").model_json_schema()
    assert "required" not in form
    assert (
        form["properties"]["approver"] | {"default": "Ann", "minLength": 1, "pattern": r"\S"}
        == (form["properties"]["approver"])
    )
    assert form["properties"]["reason"] | {"default": "reads well", "maxLength": 2_000} == form["properties"]["reason"]
    assert promote.dialog("why", "", "").model_json_schema()["required"] == ["approver"]


def test_others_that_wait_are_named_and_a_reminder_is_sent(
    name: str, configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.flow_runs import resume_flow_run

    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(promote, "emit", lambda event, _name, payload: told.append((event, payload)))
    configure(f"remind_hours: {1 / 3_600}")
    make_version(name, alias="third")
    reminded = threading.Event()
    forms: list[str] = []

    def give() -> None:
        first = paused_run(name)
        second = threading.Thread(target=copy_context().run, args=(promote.promote, name, 3))
        second.start()
        run = paused_run(name, but=first.id)
        forms.append(read_form(run)["description"])
        wait_until(lambda: APPROVAL_REMINDED in [event for event, _ in told])
        for each in (run, first):
            resume_flow_run(each.id, run_input={"approver": "Ann"})
        second.join()
        reminded.set()

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    promote.promote(name, 2)
    thread.join()
    assert reminded.is_set()
    assert f"Also waiting: [{name} version 2](" in forms[0]
    waiting = [payload for event, payload in told if event == APPROVAL_WAITING]
    assert [payload["title"] for payload in waiting] == [
        f"{name} version 2 waits for your approval",
        f"{name} version 3 waits for your approval",
    ]
    figures, until = waiting[1]["text"].splitlines()
    assert figures.startswith("reward gain +1.50; prompts won 93.0%; ")
    assert until.endswith(f"it is rejected. Also waiting: {name} version 2.")
    assert "/runs/flow-run/" in waiting[1]["link"]
    reminder = next(payload for event, payload in told if event == APPROVAL_REMINDED)
    assert "still waits for your approval, since" in reminder["title"]


def test_nobody_s_answer_is_a_rejection(
    name: str, sent: list[dict[str, Any]], configure: Callable[[str], None]
) -> None:
    configure(f"timeout_hours: {2 / 3_600}")
    state = promote.promote(name, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Rejected")
    assert "nobody answered in 0.000555556 h" in str(state.message)
    assert versions.get_version(name, "2").tags["promotion.reason"].startswith("nobody answered in")
    assert versions.get_version(name, "2").tags["promotion.approver"] == "Plumbline"
    assert [payload["title"] for payload in sent if "title" in payload][
        -1
    ] == f"{name} version 2 was rejected by Plumbline"
    assert read_aliases(name).champion == "1"


def test_a_champion_that_changed_while_it_was_asked_stops_the_promotion(name: str) -> None:
    from prefect.flow_runs import resume_flow_run

    make_version(name, alias="third")
    asked: list[Any] = []

    def give() -> None:
        run = paused_run(name)
        asked.append(run.id)
        read_form(run)
        candidate = promotion.find_candidate(name, 3)
        promotion.make_champion.fn(candidate, "quicker", "Bob")
        resume_flow_run(run.id, run_input={"approve": True, "approver": "Ann", "reason": ""})

    thread = threading.Thread(target=copy_context().run, args=(give,))
    thread.start()
    with pytest.raises(PromotionError, match="changed from version 1 to version 3"):
        promote.promote(name, 2)
    thread.join()
    assert read_aliases(name).champion == "3"
    [shown] = artifacts(asked[0])
    assert shown.data.startswith("# Ended without a decision")
    assert "changed from version 1 to version 3" in shown.data
    assert shown.description == f"{name} version 2: ended without a decision"


def test_a_run_that_is_stopped_while_it_waits_waits_no_more_on_its_page(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.runtime import flow_run

    asked: list[Any] = []

    def cancelled(*_: Any, **__: Any) -> None:
        asked.append(flow_run.id)
        [shown] = artifacts(flow_run.id)
        assert shown.description == f"{name} version 2 waits for an approval"
        raise KeyboardInterrupt

    monkeypatch.setattr(promote, "pause_flow_run", cancelled)
    with pytest.raises(KeyboardInterrupt):
        promote.promote(name)
    [shown] = artifacts(asked[0])
    assert shown.data.startswith("# Ended without a decision\n\nThe run was stopped before")
    assert "## Samples: worst" in shown.data


def test_that_it_cannot_be_shown_does_not_hide_why_a_run_ended(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise RuntimeError("no page")

    def ended() -> None:
        with promote.told_if_undecided(promotion.find_candidate(name, 2)):
            raise PromotionError("the champion changed")

    monkeypatch.setattr("tasks.approvals.show", broken)
    with pytest.raises(PromotionError, match="the champion changed"):
        ended()


@pytest.mark.parametrize(("every", "within", "found"), [(24, 72, [24, 24]), (24, 73, [24, 24, 24]), (0, 72, [])])
def test_a_reminder_comes_now_and_then_but_not_at_the_end(every: float, within: float, found: list[float]) -> None:
    assert list(promote.reminders(every, within)) == found


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
    assert "prompts won" in shown
    assert f"{name} version 2 is the champion, after version 1; approved by Ann: reads well" in shown
    assert read_aliases(name).champion == "2"


def test_a_person_rejects_in_the_terminal(name: str, terminal: Callable[..., None], settings: Path) -> None:
    terminal("", "Ann", "it rambles")
    assert promote_command(model_name=name, config=settings) == 3
    tags = versions.get_version(name, "2").tags
    assert tags["promotion.decision"] == "rejected"
    assert (tags["promotion.approver"], tags["promotion.reason"]) == ("Ann", "it rambles")


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
