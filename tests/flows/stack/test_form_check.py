"""The check of what people submit: every fault at once, at its field, and everything else left to Prefect."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from alignment.errors import Fault
from flows.align import align
from flows.frontier import frontier
from flows.stack import form_check
from flows.stack.form_check import FormCheck, at_fields, listed
from flows.sweep import sweep

DEPLOYMENT = "0f000000-0000-4000-8000-000000000000"
RUN = f"/api/deployments/{DEPLOYMENT}/create_flow_run"
FIELDS = "/api/ui/schemas/validate"
PAGE = f"http://127.0.0.1:4200/deployments/deployment/{DEPLOYMENT}/run"
FIVE: dict[str, Any] = {
    "seed": -1,
    "reward": {"model": "/nowhere/reward"},
    "base": {"model": "/nowhere/model"},
    "prompts": {"count": 40},
    "dpo": {"beta": 99},
}


class Prefect:
    """An application that has one deployment, and takes whatever it is asked for."""

    def __init__(self, flow: Any, parameters: Mapping[str, Any]) -> None:
        self.deployment: dict[str, Any] = {
            "parameters": parameters,
            "parameter_openapi_schema": flow.parameters.model_dump(exclude_unset=True),
        }
        self.taken: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found: Any = {"taken": True}
        if scope["method"] == "GET":
            assert b"accept-encoding" not in dict(scope["headers"]), "a compressed answer could not be read"
            found = self.deployment
        else:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            self.taken.append(json.loads(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})


def post(prefect: Prefect, path: str, value: Mapping[str, Any], page: str = PAGE) -> tuple[int, Any]:
    """What a browser gets for a request, which comes in two pieces."""
    body = json.dumps(value).encode()
    pieces = [
        {"type": "http.request", "body": body[:9], "more_body": True},
        {"type": "http.request", "body": body[9:], "more_body": False},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", str(len(body)).encode()), (b"accept-encoding", b"gzip"), (b"referer", page.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(FormCheck(prefect)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.fixture
def prefect() -> Prefect:
    return Prefect(align, {"start_from": "tiny"})


def test_a_submission_with_five_faults_is_refused_and_names_five(prefect: Prefect) -> None:
    status, answer = post(prefect, RUN, {"parameters": FIVE})
    assert status == 409
    assert answer["detail"].splitlines()[0] == "5 faults, nothing was started:"
    assert [line.split()[1].rstrip(":") for line in answer["detail"].splitlines()[1:]] == [
        "seed",
        "dpo.beta",
        "prompts.count",
        "base.model",
        "reward.model",
    ]
    assert prefect.taken == []


def test_each_fault_stands_at_its_field(prefect: Prefect) -> None:
    """`valid`, so that the form goes on and shows the refusal of the run in a message as well."""
    status, answer = post(prefect, FIELDS, {"schema": {}, "values": FIVE})
    assert (status, answer["valid"]) == (200, True)
    told = {error["property"]: error["errors"] for error in answer["errors"]}
    assert set(told) == set(FIVE)
    assert told["seed"] == ["seed = -1: input should be greater than or equal to 0"]
    assert [below["property"] for below in told["dpo"]] == ["beta"]


@pytest.mark.parametrize("path", [RUN, FIELDS])
def test_a_sound_one_goes_on_to_prefect_as_it_came(prefect: Prefect, path: str) -> None:
    """With what a form sends for what nobody touched."""
    values = {"dpo": {"beta": 0.25}, "gates": None, "prompts": {"chat_template_kwargs": {"__prefect_kind": "json"}}}
    sent = {"parameters": values, "values": values, "schema": {}}
    assert post(prefect, path, sent) == (200, {"taken": True})
    assert prefect.taken == [sent]


def test_a_retraining_is_not_asked_for_a_base_that_the_champion_replaces() -> None:
    app = Prefect(align, {"start_from": "quickstart"})
    lost = {"parameters": {"base": {"model": "/nowhere/model"}}}
    assert post(app, RUN, lost)[0] == 409
    app.deployment["entrypoint"] = "flows/retrain.py:retrain"
    assert post(app, RUN, lost)[0] == 200


def test_pressing_run_without_a_form_is_checked_too() -> None:
    deployed = Prefect(align, {"start_from": "tiny", "prompts": {"count": 40}})
    assert post(deployed, RUN, {})[0] == 409
    assert post(deployed, RUN, {"parameters": {"prompts": {"count": 64}}})[0] == 200


def test_a_grid_is_a_part_of_the_form() -> None:
    status, answer = post(Prefect(sweep, {"start_from": "tiny"}), RUN, {"parameters": {"grid": {"betas": [99]}}})
    assert status == 409
    assert "betas.0 = 99" in answer["detail"]
    given = {"parameters": {"frontier": {"evaluate_every": 0}}}
    status, answer = post(Prefect(frontier, {"start_from": "tiny"}), RUN, given)
    assert (status, "frontier: evaluate_every = 0" in answer["detail"]) == (409, True)


def test_every_training_of_a_frontier_or_a_sweep_has_to_be_one_that_can_run() -> None:
    cold = {"parameters": {"sampling": {"temperature": 0.5}}}
    status, answer = post(Prefect(frontier, {"start_from": "tiny"}), RUN, cold)
    assert (status, "sampling.temperature = 0.5" in answer["detail"]) == (409, True)
    assert post(Prefect(align, {"start_from": "tiny"}), RUN, cold)[0] == 200, "a single run may sample as it likes"
    given = {"parameters": {"dpo": {"divergence": "forward_kl"}, "grid": {"losses": ["sigmoid", "ipo"]}}}
    status, answer = post(Prefect(sweep, {"start_from": "tiny"}), RUN, given)
    assert (status, "does not go with the ipo loss" in answer["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("path", "value", "page"),
    [
        (RUN, {"parameters": FIVE, "enforce_parameter_schema": False}, PAGE),  # "Validate parameters" is not ticked
        (RUN, {"parameters": FIVE | {"seed": {"__prefect_kind": "workspace_variable", "variable_name": "x"}}}, PAGE),
        (FIELDS, {"values": FIVE}, PAGE.replace("/run", "/edit")),
        (FIELDS, {"values": FIVE}, ""),
        ("/api/flow_runs/", FIVE, PAGE),
    ],
)
def test_what_it_cannot_judge_is_left_to_prefect(prefect: Prefect, path: str, value: Any, page: str) -> None:
    assert post(prefect, path, value, page) == (200, {"taken": True})
    assert prefect.taken == [value]


def test_a_deployment_of_another_kind_is_none_of_its_business(prefect: Prefect) -> None:
    prefect.deployment["parameter_openapi_schema"] = {"properties": {"model_name": {}}}
    assert post(prefect, RUN, {"parameters": FIVE})[0] == 200


def test_where_it_fails_the_run_may_start_and_the_log_says_so(
    prefect: Prefect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a mistake in here")

    monkeypatch.setattr(form_check, "faults_in", fail)
    assert post(prefect, RUN, {"parameters": FIVE}) == (200, {"taken": True})
    assert "a form was not checked before its run (RuntimeError: a mistake in here)" in caplog.text


def test_the_start_of_the_server_is_prefect_s_and_imports_what_a_check_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    imported: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        started.append(scope)

    async def nothing(*_: Any) -> Any:
        return {}

    monkeypatch.setattr(form_check, "import_module", imported.append)
    asyncio.run(FormCheck(app)({"type": "lifespan"}, nothing, nothing))
    assert (started, imported) == ([{"type": "lifespan"}], ["flows.submission"])


def test_faults_are_listed_a_line_each() -> None:
    one, two = Fault(("dpo.beta",), "dpo.beta = 99: too much"), Fault((), "something else")
    assert listed([one]) == "One fault, nothing was started:\n1. dpo.beta = 99: too much"
    assert listed([one, two]).splitlines()[1:] == ["1. dpo.beta = 99: too much", "2. something else"]


def test_a_fault_stands_at_the_group_that_is_closed_over_its_field() -> None:
    beta, count = Fault(("dpo.beta",), "beta"), Fault(("prompts.count", "validation.min_pairs"), "count")
    whole = Fault((), "something else")
    opened = {"dpo": {"beta": 99}, "prompts": None}
    assert at_fields([beta, count, whole], opened) == [
        {"property": "dpo", "errors": [{"property": "beta", "errors": ["beta"]}]},
        {"property": "prompts", "errors": ["count"]},
        "something else",
    ]
