"""The form: a parameter a group of the configuration, as Prefect draws, bounds and explains them."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from alignment.config import AlignConfig, DPOConfig, GridConfig, build_config
from alignment.errors import ConfigError
from flows.align import align
from flows.form import config_flow, form
from flows.frontier import frontier
from flows.retrain import retrain
from flows.settings import load_config
from flows.start_from import offered
from flows.sweep import sweep

FLOWS: dict[str, Any] = {"align": align, "retrain": retrain, "sweep": sweep, "frontier": frontier}
OWN = {"sweep": "grid", "frontier": "frontier"}
"""What a flow takes beside the configuration."""
GROUPS = {name: info.annotation for name, info in AlignConfig.model_fields.items() if name != "seed"}


@pytest.fixture(params=FLOWS)
def flow(request: pytest.FixtureRequest) -> Any:
    return FLOWS[request.param]


def of_group(schema: Any, name: str) -> dict[str, Any]:
    """The definition that a parameter of the schema points at, once it is opened."""
    entry = schema.properties[name]
    reference = entry["anyOf"][1]["$ref"] if "anyOf" in entry else entry["$ref"]
    found: dict[str, Any] = schema.definitions[reference.rpartition("/")[2]]
    return found


def without(flow: Any, values: dict[str, Any]) -> list[str]:
    """What Prefect's own check of the form's schema says of parameters."""
    return [error.message for error in validate(values, flow.parameters.model_dump(exclude_unset=True))]


def test_a_form_begins_with_the_start_and_has_a_group_a_stage_in_their_order(flow: Any) -> None:
    parameters = inspect.signature(flow.fn).parameters
    others = [OWN[flow.name]] if flow.name in OWN else []
    assert list(parameters) == ["start_from", *AlignConfig.model_fields, *others]
    assert list(flow.parameters.properties) == list(parameters)
    assert [entry["position"] for entry in flow.parameters.properties.values()] == list(range(len(parameters)))
    preset, recorded = flow.parameters.properties["start_from"]["anyOf"]
    assert preset["enum"] == list(offered())
    assert recorded == {"title": "Version or run", "type": "string"}


def test_a_flow_with_other_options_has_the_same_form(flow: Any) -> None:
    assert flow.with_options(name="another").parameters == flow.parameters


def test_a_group_is_closed_and_a_field_is_empty_until_somebody_changes_it(flow: Any) -> None:
    """Nothing is sent for a field that nobody touched: none has a default, and a switch has a third position."""
    for name in GROUPS:
        entry = flow.parameters.properties[name]
        assert entry["default"] is None
        assert entry["anyOf"][0] == {"type": "null", "title": "As in start_from"}
    for name, definition in flow.parameters.definitions.items():
        if name in {"GridConfig", "FrontierConfig"}:
            continue
        for field, schema in definition["properties"].items():
            assert schema.get("default") is None, field
            assert schema.get("type") != "boolean", field
            assert schema["title"] == field
    assert flow.parameters.required == []


def test_every_group_and_field_is_described_with_its_bounds_and_default(flow: Any) -> None:
    for name, group in GROUPS.items():
        assert group is not None
        fields = of_group(flow.parameters, name)["properties"]
        assert list(fields) == list(group.model_fields)
        for field, info in group.model_fields.items():
            assert fields[field]["description"].startswith(str(info.description)), field
        assert flow.parameters.properties[name]["description"] == group.__doc__
    beta = of_group(flow.parameters, "dpo")["properties"]["beta"]["description"]
    assert beta == "Strength of the pull towards the reference [over 0, at most 10; default 0.5]"
    seed = flow.parameters.properties["seed"]["description"]
    assert seed == "Seed of every random draw [at least 0, at most 2,147,483,647; default 0]"


def test_the_bounds_are_in_the_form(flow: Any) -> None:
    beta = of_group(flow.parameters, "dpo")["properties"]["beta"]
    assert (beta["exclusiveMinimum"], beta["maximum"]) == (0, 10)
    losses = of_group(flow.parameters, "dpo")["properties"]["loss"]["enum"]
    assert losses == ["sigmoid", "hinge", "ipo", "robust", "distill"]
    assert of_group(flow.parameters, "dpo")["properties"]["gradient_checkpointing"]["enum"] == [True, False]
    seed = flow.parameters.properties["seed"]
    assert (seed["minimum"], seed["maximum"]) == (0, 2**31 - 1)


def test_the_grid_is_bounded_too() -> None:
    fields = of_group(sweep.parameters, "grid")["properties"]
    assert (fields["betas"]["minItems"], fields["betas"]["maxItems"]) == (1, 16)
    assert fields["learning_rates"]["items"]["maximum"] == 1
    assert set(fields["losses"]["items"]["enum"]) == {"sigmoid", "hinge", "ipo", "robust", "distill"}


@pytest.mark.parametrize(
    "values",
    [{"dpo": {"beta": 99}}, {"dpo": {"betta": 1}}, {"seed": -1}, {"evaluation": {"bootstrap": "many"}}],
    ids=str,
)
def test_prefect_by_itself_refuses_a_value_out_of_bounds(flow: Any, values: dict[str, Any]) -> None:
    assert without(flow, values)


def test_what_forms_and_requests_send_is_what_prefect_takes(flow: Any) -> None:
    """A form that was opened and left, one that changes two fields, and every value, as older releases send them."""
    opened = dict.fromkeys(GROUPS) | {"start_from": "tiny", "reward": {"judge": None}}
    whole = AlignConfig().model_dump(mode="json")
    for values in (opened, {"start_from": "models:/mine/3", "seed": 3, "dpo": {"beta": 0.4}}, whole):
        assert without(flow, values) == []


@pytest.mark.parametrize("values", [{"betas": []}, {"betas": [0.5, 99]}, {"losses": ["dpo"]}], ids=str)
def test_a_grid_out_of_bounds_is_refused_before_the_run(values: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        sweep.validate_parameters({"grid": values})
    with pytest.raises(ParameterTypeError):
        frontier.validate_parameters({"frontier": values})


# The wrapper itself


class Seen(BaseModel):
    config: AlignConfig
    extra: int


@form
def _body(config: AlignConfig, extra: int = 7) -> Seen:
    """What it does.

    More of it.
    """
    return Seen(config=config, extra=extra)


def test_the_body_gets_one_configuration_and_its_own_parameters() -> None:
    dpo = AlignConfig.model_validate({"dpo": {"beta": 0.25}}).dpo
    assert _body() == Seen(config=AlignConfig(), extra=7)
    assert _body(dpo=dpo, extra=8) == Seen(config=AlignConfig(dpo=dpo), extra=8)
    assert _body("", 5).config.seed == 5
    with pytest.raises(TypeError):
        _body(config=AlignConfig())


def test_a_whole_configuration_may_come_first_instead_of_its_groups() -> None:
    config = AlignConfig.model_validate({"seed": 3, "dpo": {"beta": 0.25}})
    assert _body(config) == Seen(config=config, extra=7)
    assert _body(config, 8) == _body(config, extra=8) == Seen(config=config, extra=8)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((8, 9), {}), ((8,), {"extra": 9}), ((), {"seed": 4}), ((), {"start_from": "tiny"})], ids=str
)
def test_beside_a_whole_configuration_nothing_of_it_is_given(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match="beside a whole configuration"):
        _body(AlignConfig(), *args, **kwargs)


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("as_groups", [False, True], ids=["whole", "groups"])
def test_a_flow_is_called_with_a_configuration_or_its_groups(as_groups: bool) -> None:
    """The run is named after the model, and the body gets the same configuration and what else was given."""
    seen: list[tuple[AlignConfig, GridConfig]] = []

    @config_flow("look")
    def look(config: AlignConfig, grid: GridConfig = GridConfig()) -> str:  # noqa: B008 - as Prefect draws it
        """Look."""
        seen.append((config, grid))
        return str(flow_run.name)

    config = AlignConfig.model_validate({"seed": 3, "registry": {"model_name": "mine"}})
    grid = GridConfig(betas=(0.1,))
    groups = {name: getattr(config, name) for name in AlignConfig.model_fields}
    name = look(**groups, grid=grid) if as_groups else look(config, grid=grid)
    assert name.startswith("look mine, ")
    assert seen == [(config, grid)]
    assert look.with_options(name="again")(config).startswith("look mine, ")


def test_the_flows_keep_their_names_and_the_tags_of_their_deployments() -> None:
    for name, made in FLOWS.items():
        assert (made.name, made.run_tags) == (name, ("plumbline", "alignment"))


def test_what_is_given_is_laid_over_the_start_field_by_field() -> None:
    """As a form sends it: null for a group or a field that nobody touched."""
    start = load_config("tiny")
    sent = {"dpo": {"beta": 0.25, "steps": None}, "seed": 3, "reward": {"judge": None}, "gates": None}
    assert _body(start_from="tiny", **sent).config == load_config("tiny", {"dpo": {"beta": 0.25}, "seed": 3})
    assert _body(start_from="tiny").config == start
    assert _body(start_from="tiny", dpo=DPOConfig(beta=0.25)).config == load_config("tiny", {"dpo": {"beta": 0.25}})


def test_every_value_of_an_older_release_counts_whatever_the_start() -> None:
    config = AlignConfig.model_validate({"dpo": {"beta": 0.25}})
    assert _body(start_from="tiny", **config.model_dump(mode="json")).config == config


def test_a_run_that_cannot_succeed_names_every_fault_before_anything_is_done() -> None:
    """Values out of bounds and a count that is never reached: none hides another."""
    with pytest.raises(ConfigError) as raised:
        _body(start_from="quickstart", dpo={"beta": 99}, seed=-1, prompts={"count": 40})
    assert [fault.fields[0] for fault in raised.value.faults] == ["seed", "dpo.beta", "prompts.count"]


def test_with_a_start_that_is_none_no_value_is_held_against_defaults_that_nobody_chose() -> None:
    with pytest.raises(ConfigError) as raised:
        _body(start_from="own_pairz", dpo={"beta": 99}, seed=-1, sampling={"total_tokens": 500})
    assert [fault.fields[0] for fault in raised.value.faults] == ["start_from", "seed", "dpo.beta"]
    assert "start_from = own_pairz: no preset (tiny, quickstart, " in str(raised.value)


def test_a_later_round_may_have_lost_the_base_that_it_does_not_start_from() -> None:
    def body(config: AlignConfig) -> AlignConfig:
        return config

    lost = {"base": {"model": "/nowhere/model"}}
    with pytest.raises(ConfigError, match="no such folder"):
        form(body)(start_from="quickstart", **lost)
    assert form(body, own_base=False)(start_from="quickstart", **lost).base.model == "/nowhere/model"


def test_a_fault_of_the_start_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.start_from.read_yaml", lambda _: {"prompts": {"count": 40}})
    with pytest.raises(ConfigError, match=r"^seed = -1: .*; tiny: prompts\.count = 40 can never reach"):
        _body(start_from="tiny", seed=-1)


def test_groups_that_contradict_each_other_are_refused_in_one_line_when_run() -> None:
    """Each group is fine by itself, so the form cannot know."""
    prompts = AlignConfig.model_validate({"prompts": {"tokens_max": 50}}).prompts
    sampling = AlignConfig.model_validate({"sampling": {"total_tokens": 20}}).sampling
    with pytest.raises(ConfigError) as raised:
        _body(prompts=prompts, sampling=sampling)
    assert "sampling.total_tokens = 20 leaves no room after prompts of 50 tokens: raise it, or lower" in str(
        raised.value
    )
    assert "\n" not in str(raised.value)


def test_a_body_without_a_configuration_is_a_mistake() -> None:
    def body(seed: int) -> None: ...

    with pytest.raises(TypeError, match="expected an AlignConfig"):
        form(body)


@pytest.mark.usefixtures("at_home")
def test_a_contradiction_ends_the_flow_as_failed_with_that_line() -> None:
    values = AlignConfig.model_validate({"sampling": {"total_tokens": 20}, "prompts": {"tokens_max": 19}})
    longer = values.prompts.model_copy(update={"tokens_max": 20})
    given = values.model_copy(update={"prompts": longer})
    groups = {name: getattr(given, name) for name in AlignConfig.model_fields}
    state: Any = run_flow(
        align, parameters=align.validate_parameters(groups), return_type="state"
    )  # as a worker runs it
    assert state.is_failed()
    assert "leaves no room after prompts of 20 tokens" in state.message
    assert "ConfigError" not in state.message


# A file of code


FILES: dict[str, dict[str, Any]] = {
    "the reward": {"reward": {"kind": "function", "function": "rule.py:brief"}},
    "a part": {"reward": {"kind": "sum", "parts": [{"name": "a", "kind": "function", "function": "rule.py:brief"}]}},
    "a gold judge": {"evaluation": {"gold": [{"name": "a", "kind": "function", "function": "rule.py:brief"}]}},
}


@config_flow("seen")
def _seen(config: AlignConfig) -> str:
    """The function that came through."""
    scoring = (config.reward, *config.reward.parts, *config.evaluation.gold)
    return next(each.function for each in scoring if each.function)


@config_flow("outer")
def _outer(config: AlignConfig) -> str:
    """A flow that calls another with what it does not come from."""
    found: str = _seen(build_config(FILES["the reward"]))
    return found


@pytest.fixture
def _rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, where relative paths count from."""
    (tmp_path / "rule.py").write_text(
        "def brief(texts):\n    return [-len(text) for text in texts]\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("at_home", "_rule")
@pytest.mark.parametrize("values", FILES.values(), ids=FILES)
def test_a_file_of_code_is_taken_from_the_process_that_calls_the_flow_and_from_no_form(values: dict[str, Any]) -> None:
    config = build_config(values)
    assert _seen(config) == "rule.py:brief"
    groups = {name: getattr(config, name) for name in AlignConfig.model_fields}
    with pytest.raises(
        ConfigError, match=r"^reward\.function = rule\.py:brief: a file of code is taken from the command"
    ):
        run_flow(_seen, parameters=_seen.validate_parameters(groups))  # as a worker runs it


@pytest.mark.usefixtures("at_home", "_rule")
def test_nor_from_a_flow_that_a_form_started() -> None:
    with pytest.raises(ConfigError, match="a file of code is taken from the command line"):
        run_flow(_outer, parameters={})


@pytest.mark.usefixtures("at_home")
def test_nor_from_the_earlier_run_that_a_form_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.submission.read_start", lambda _: FILES["the reward"])
    with pytest.raises(ConfigError, match="a file of code is taken from the command line"):
        run_flow(_seen, parameters={"start_from": "0" * 32})


# A judge's key


ELSEWHERE = "https://elsewhere.example/v1"
JUDGE = {"url": f"{ELSEWHERE}/", "model": "grader", "api_key_env": "VENDOR_API_KEY"}
ASKING: dict[str, dict[str, Any]] = {
    "the reward": {"reward": {"kind": "judge", "judge": JUDGE}},
    "pairs": {"reward": {"judge": JUDGE}, "pairs": {"source": "judged"}},
    "a part": {"reward": {"kind": "sum", "parts": [{"name": "a", "kind": "judge", "judge": JUDGE}]}},
    "a gold judge": {"evaluation": {"gold": [{"name": "a", "kind": "judge", "judge": JUDGE}]}},
}


@config_flow("asks")
def _asks(config: AlignConfig) -> str:
    """It came through."""
    return "asked"


def _as_a_worker(config: AlignConfig) -> Any:
    groups = {name: getattr(config, name) for name in AlignConfig.model_fields}
    return run_flow(_asks, parameters=_asks.validate_parameters(groups))


@pytest.fixture
def _with_a_key(at_home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_API_KEY", "sk-this-is-a-secret")
    monkeypatch.delenv("PLUMBLINE_JUDGE_URLS", raising=False)


@pytest.mark.usefixtures("_with_a_key")
@pytest.mark.parametrize("values", ASKING.values(), ids=ASKING)
def test_a_form_has_a_key_sent_to_an_endpoint_that_the_worker_s_environment_allows_and_to_no_other(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config(values)
    assert _asks(config) == "asked"  # whoever calls it has the key anyway
    with pytest.raises(ConfigError) as raised:
        _as_a_worker(config)
    assert str(raised.value) == (
        f"reward.judge.url = {ELSEWHERE}: the worker does not send the key in VENDOR_API_KEY there for a form or a "
        "request; add the address to PLUMBLINE_JUDGE_URLS in the worker's environment, or start the run from the "
        "command line"
    )
    monkeypatch.setenv("PLUMBLINE_JUDGE_URLS", "https://other.example/v1")
    with pytest.raises(ConfigError, match="add the address"):
        _as_a_worker(config)
    monkeypatch.setenv("PLUMBLINE_JUDGE_URLS", f"https://other.example/v1, {ELSEWHERE}/")
    assert _as_a_worker(config) == "asked"


@pytest.mark.usefixtures("_with_a_key")
def test_a_server_that_draws_samples_has_a_list_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"base_url": ELSEWHERE, "api_key_env": "VENDOR_API_KEY"}
    config = build_config({"sampling": {"engine": "endpoint", "endpoint": endpoint}})
    monkeypatch.setenv("PLUMBLINE_JUDGE_URLS", ELSEWHERE)
    with pytest.raises(ConfigError, match=r"sampling.endpoint.base_url = .*add the address to PLUMBLINE_SAMPLING_URLS"):
        _as_a_worker(config)
    monkeypatch.setenv("PLUMBLINE_SAMPLING_URLS", ELSEWHERE)
    assert _as_a_worker(config) == "asked"
    unused = build_config({"sampling": {"endpoint": endpoint | {"base_url": "https://other.example/v1"}}})
    assert _as_a_worker(unused) == "asked"


@pytest.mark.usefixtures("_with_a_key")
def test_a_form_may_name_any_endpoint_that_no_key_is_sent_to(monkeypatch: pytest.MonkeyPatch) -> None:
    local = {"reward": {"kind": "judge", "judge": JUDGE | {"url": "http://127.0.0.1:8000/v1"}}}
    assert _as_a_worker(build_config(local)) == "asked"
    unused = {"reward": {"kind": "classifier", "judge": JUDGE}}
    assert _as_a_worker(build_config(unused)) == "asked"
    monkeypatch.delenv("VENDOR_API_KEY")
    assert _as_a_worker(build_config(ASKING["the reward"])) == "asked"
