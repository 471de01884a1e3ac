"""The bootstrap: made once, left the second time, changed where the files changed, never against a person."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import ConfigError

FLOW = '''
from prefect import flow

@flow
def greet(name: str = "you", times: int = 1) -> None:
    """Greet somebody."""
'''
WEEKLY = {"slug": "weekly", "cron": "0 3 * * 1", "timezone": "UTC", "active": True}
TRIGGER = {"type": "event", "name": "test: greet", "expect": ["test.arrived"], "threshold": 1, "within": 0}
DEPLOYMENT = {
    "name": "greet",
    "entrypoint": "greeting.py:greet",
    "tags": ["test"],
    "work_pool": {"name": "local"},
    "parameters": {"name": "world"},
    "concurrency_limit": {"limit": 2, "collision_strategy": "ENQUEUE"},
    "schedules": [WEEKLY],
    "triggers": [TRIGGER],
}


@pytest.fixture
def client(prefect_server: None) -> Iterator[Any]:
    """A client of a server on which nothing was bootstrapped yet."""
    from prefect.client.orchestration import get_client

    from flows.stack.bootstrap import ZOMBIES
    from tasks.slots import GPU_SLOT

    with get_client(sync_client=True) as client:
        yield client
        for deployment in client.read_deployments():
            client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
            client.delete_deployment(deployment.id)
        for automation in client.read_automations_by_name(ZOMBIES):
            client.delete_automation(automation.id)
        client.delete_global_concurrency_limit_by_name(GPU_SLOT)
        client.delete_work_pool("local")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Write a project with one deployment, some of its fields changed."""

    def write(**changed: Any) -> Path:
        (tmp_path / "greeting.py").write_text(FLOW, encoding="utf-8")
        content = {"pull": None, "deployments": [DEPLOYMENT | changed]}
        (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return tmp_path

    return write


def apply(project: Path, **options: Any) -> dict[str, str]:
    from flows.stack.bootstrap import bootstrap

    return {change.what: change.how for change in bootstrap(project, **options)}


def read(client: Any) -> Any:
    return client.read_deployment_by_name("greet/greet")


def test_the_first_time_makes_everything_and_the_second_leaves_it(client: Any, project: Callable[..., Path]) -> None:
    first, second = apply(project()), apply(project())
    assert {name: how for name, how in first.items() if "webhook" not in name} == {
        "work pool local": "made",
        "work queue training": "made",
        "work queue shards": "made",
        "concurrency limit gpu": "made",
        "deployment greet/greet": "made",
        "automation 'plumbline: runs that fell silent'": "made",
        "artifact first-steps": "made",
        "notifications": "skipped",
        "account of MLflow": "skipped",
    }
    assert set(second.values()) == {"left", "skipped"}
    found = read(client)
    assert (found.parameters, found.work_pool_name, found.enforce_parameter_schema) == (
        {"name": "world"},
        "local",
        True,
    )
    assert found.global_concurrency_limit.limit == 2
    assert found.concurrency_options.collision_strategy.value == "ENQUEUE"
    assert found.parameter_openapi_schema["properties"]["times"]["default"] == 1
    assert [(item.slug, item.schedule.cron, item.active) for item in found.schedules] == [("weekly", "0 3 * * 1", True)]
    started = client.read_resource_related_automations(f"prefect.deployment.{found.id}")
    assert [(item.name, item.trigger.expect) for item in started] == [("test: greet", {"test.arrived"})]


def test_notifications_are_set_up_with_the_rest(client: Any, project: Callable[..., Path]) -> None:
    """Once, and left alone by a bootstrap that is not given their address."""
    from flows.stack.notifications import KINDS

    made = apply(project(), notify="http://127.0.0.1:9/hook")
    assert [how for what, how in made.items() if "notify" in what] == ["made"] * (1 + len(KINDS))
    assert {how for what, how in apply(project()).items() if "notify" in what} == {"left"}
    assert apply(project(), notify="off")["notifications"] == "changed"


def test_trainings_wait_in_a_queue_of_their_own(client: Any, project: Callable[..., Path]) -> None:
    """One run more than there are GPU slots is at work; a limit that a person changed stays."""
    apply(project(work_pool={"name": "local", "work_queue_name": "training"}), gpu_slots=3)
    queue = client.read_work_queue_by_name("training", work_pool_name="local")
    assert (read(client).work_queue_name, queue.concurrency_limit) == ("training", 4)
    client.update_work_queue(queue.id, concurrency_limit=7)
    apply(project(), gpu_slots=3)
    assert client.read_work_queue_by_name("training", work_pool_name="local").concurrency_limit == 7
    assert read(client).work_queue_name == "default"


@pytest.mark.parametrize(("kind", "at_once"), [("process", 3), ("kubernetes", 2)])
def test_shards_wait_in_a_queue_of_their_own(
    client: Any, project: Callable[..., Path], tmp_path: Path, kind: str, at_once: int
) -> None:
    """On Kubernetes the run that waits for them keeps a GPU."""
    template = tmp_path / "template.json"
    template.write_text('{"variables": {"type": "object"}, "job_configuration": {"command": "prefect"}}')
    apply(project(), gpu_slots=3, pool_type=kind, job_template=template)
    assert client.read_work_queue_by_name("shards", work_pool_name="local").concurrency_limit == at_once


def test_what_a_cut_off_bootstrap_left_undone_is_done_by_the_next(
    client: Any, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.stack import deployments

    def fails(*_: Any) -> None:
        raise ConnectionError("unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(deployments, "_replace_triggers", fails)
        with pytest.raises(ConnectionError):
            apply(project())
    assert apply(project())["deployment greet/greet"] == "changed"
    found = read(client)
    assert [item.name for item in client.read_resource_related_automations(f"prefect.deployment.{found.id}")] != []
    assert apply(project())["deployment greet/greet"] == "left"


def test_a_schedule_that_a_person_changed_survives(client: Any, project: Callable[..., Path]) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    apply(project())
    (schedule,) = read(client).schedules
    by_hand = CronSchedule(cron="15 4 * * *", timezone="UTC")
    client.update_deployment_schedule(read(client).id, schedule.id, active=False, schedule=by_hand)

    assert apply(project())["deployment greet/greet"] == "left"
    assert apply(project(description="Says hello."))["deployment greet/greet"] == "changed"

    (kept,) = read(client).schedules
    assert (kept.active, kept.schedule.cron) == (False, "15 4 * * *")
    assert read(client).description == "Says hello."


def test_a_schedule_that_a_person_deleted_stays_deleted(client: Any, project: Callable[..., Path]) -> None:
    apply(project())
    (schedule,) = read(client).schedules
    client.delete_deployment_schedule(read(client).id, schedule.id)
    apply(project())
    apply(project(description="Says hello."))
    assert read(client).schedules == []


def test_a_schedule_changed_in_the_file_is_applied_and_stays_paused(client: Any, project: Callable[..., Path]) -> None:
    apply(project())
    (schedule,) = read(client).schedules
    client.update_deployment_schedule(read(client).id, schedule.id, active=False)
    daily = WEEKLY | {"cron": "0 5 * * *"}
    nightly = {"slug": "nightly", "cron": "0 1 * * *", "timezone": "UTC"}
    assert apply(project(schedules=[daily, nightly]))["deployment greet/greet"] == "changed"
    found = {item.slug: (item.schedule.cron, item.active) for item in read(client).schedules}
    assert found == {"weekly": ("0 5 * * *", False), "nightly": ("0 1 * * *", True)}


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_schedule_that_a_person_turned_on_or_off_stays_so_until_the_file_s_own_changes(
    client: Any, project: Callable[..., Path], by_hand: bool
) -> None:
    def active() -> bool:
        (schedule,) = read(client).schedules
        return bool(schedule.active)

    def write(shipped: bool, cron: str = "0 3 * * 1") -> Path:
        return project(schedules=[WEEKLY | {"cron": cron, "active": shipped}])

    apply(write(not by_hand))
    assert active() is not by_hand
    client.update_deployment_schedule(read(client).id, read(client).schedules[0].id, active=by_hand)
    apply(write(not by_hand, "0 4 * * 1"))
    assert active() is by_hand
    apply(write(by_hand, "0 4 * * 1"))
    assert active() is by_hand
    apply(write(not by_hand, "0 4 * * 1"))
    assert active() is not by_hand


def test_a_stack_of_an_earlier_release_keeps_its_weekly_run(client: Any, project: Callable[..., Path]) -> None:
    """Its schedule was shipped active; nobody knows whether somebody counts on it."""
    from prefect.client.schemas.actions import DeploymentUpdate

    apply(project())
    version = ".".join(read(client).version.split(".")[:2])  # as that release wrote it
    client.update_deployment(read(client).id, DeploymentUpdate(version=version))
    assert apply(project(schedules=[WEEKLY | {"active": False}]))["deployment greet/greet"] == "changed"
    (schedule,) = read(client).schedules
    assert schedule.active
    assert len(read(client).version.split(".")) == 4


def notes(project: Path) -> str:
    from flows.stack.bootstrap import bootstrap

    return next(change.note for change in bootstrap(project) if change.what == "deployment greet/greet")


EDITED = "its parameters were changed in Prefect and stay"


def edit(client: Any, **fields: Any) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate

    client.update_deployment(read(client).id, DeploymentUpdate(**fields))


def test_what_a_person_set_is_not_undone_by_another_part_of_the_file(client: Any, project: Callable[..., Path]) -> None:
    """A schedule that is turned on in the file brings nothing else with it."""
    apply(project(schedules=[WEEKLY | {"active": False}]))
    edit(client, parameters={"name": "Ann"}, description="Says hello to Ann.", tags=["mine"])
    assert apply(project())["deployment greet/greet"] == "changed"
    found = read(client)
    assert (found.parameters, found.description, found.tags) == ({"name": "Ann"}, "Says hello to Ann.", ["mine"])
    assert [item.active for item in found.schedules] == [True]


def test_parameters_that_a_person_changed_stay_and_are_told(client: Any, project: Callable[..., Path]) -> None:
    """Whatever changes in the files, until they are those of the files again."""
    apply(project())
    edit(client, parameters={"name": "Ann"})
    assert notes(project()) == f"{EDITED}; schedule weekly is active"
    assert notes(project(parameters={"name": "moon"}, description="Says hello.")).startswith(EDITED)
    assert (read(client).parameters, read(client).description) == ({"name": "Ann"}, "Says hello.")
    edit(client, parameters={"name": "moon"})
    assert EDITED not in notes(project(parameters={"name": "sun"}))
    assert read(client).parameters == {"name": "sun"}


def test_parameters_that_changed_in_the_file_alone_are_applied(client: Any, project: Callable[..., Path]) -> None:
    apply(project())
    assert notes(project(parameters={"name": "moon"})) == "schedule weekly is active"
    assert read(client).parameters == {"name": "moon"}


def test_an_edit_that_no_longer_fits_the_flow_stays_and_is_told(client: Any, project: Callable[..., Path]) -> None:
    """Runs would fail, and say why; with the file's parameters they would train something else."""
    apply(project())
    edit(client, parameters={"times": 3})
    folder = project()
    (folder / "greeting.py").write_text(FLOW.replace("times: int = 1", "times: bool = False"), encoding="utf-8")
    assert notes(folder).startswith(f"{EDITED}; they do not fit this release")
    assert read(client).parameters == {"times": 3}


ALIGNING = """
from prefect import flow

@flow
def greet(start_from: str = "", data: dict = {}, base: dict = {}, reward: dict = {}, pairs: dict = {}, dpo: dict = {},
          sampling: dict = {}, evaluation: dict = {}, gates: dict = {}, registry: dict = {}, seed: int = 0) -> None:
    \"\"\"Start from something.\"\"\"
"""


@pytest.mark.parametrize("by_hand", [{}, {"registry": {"model_name": "mine"}}], ids=["as-applied", "edited"])
def test_a_stack_of_0_4_had_all_values_as_parameters_and_keeps_those_that_a_person_changed(
    client: Any, project: Callable[..., Path], by_hand: dict[str, Any]
) -> None:
    from flows.settings import CONFIGS, load_config

    def write(**fields: Any) -> Path:
        folder = project(**fields)
        (folder / "greeting.py").write_text(ALIGNING, encoding="utf-8")
        return folder

    before = load_config("quickstart_retrain.yaml").model_dump(mode="json", exclude_unset=True)
    apply(write(parameters=before))
    edit(client, version="0a1b2c3d.0a1b2c3d", parameters=before | by_hand)
    told = notes(write(parameters={}, config=str(CONFIGS / "quickstart_retrain.yaml")))
    if by_hand:
        assert told.startswith(EDITED)
        assert read(client).parameters["registry"] == {"model_name": "mine"}
    else:
        assert EDITED not in told
        assert read(client).parameters == {"start_from": "quickstart_retrain"}


def test_a_trigger_that_a_person_disabled_stays_disabled(client: Any, project: Callable[..., Path]) -> None:
    apply(project())
    owner = f"prefect.deployment.{read(client).id}"
    (automation,) = client.read_resource_related_automations(owner)
    client.pause_automation(automation.id)
    apply(project(triggers=[TRIGGER | {"expect": ["test.came"]}]))
    (kept,) = client.read_resource_related_automations(owner)
    assert (kept.enabled, kept.trigger.expect) == (False, {"test.came"})


def test_gpu_slots_that_a_person_set_are_kept_unless_the_flag_says_otherwise(
    client: Any, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    apply(project())
    assert client.read_global_concurrency_limit_by_name("gpu").limit == 3
    client.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(limit=2))
    assert apply(project())["concurrency limit gpu"] == "left"
    assert client.read_global_concurrency_limit_by_name("gpu").limit == 2
    assert apply(project(), gpu_slots=4)["concurrency limit gpu"] == "changed"
    assert client.read_global_concurrency_limit_by_name("gpu").limit == 4


def test_the_automation_is_brought_up_to_date_and_never_doubled(client: Any, project: Callable[..., Path]) -> None:
    from flows.stack.bootstrap import ZOMBIES, zombies

    old: Any = zombies()
    old.trigger.within = timedelta(seconds=30)
    client.create_automation(old)
    client.create_automation(old)
    assert apply(project())[f"automation {ZOMBIES!r}"] == "changed"
    (kept,) = client.read_automations_by_name(ZOMBIES)
    assert kept.trigger.within == timedelta(seconds=90)
    client.pause_automation(kept.id)
    apply(project())
    (kept,) = client.read_automations_by_name(ZOMBIES)
    assert not kept.enabled


def test_silence_is_measured_for_each_run_and_any_change_of_its_state_ends_it() -> None:
    """A run may end under any name (Skipped, Rejected), and a suspended one has no process: neither is shot."""
    from flows.stack.bootstrap import zombies
    from tasks.home import HEARTBEAT

    trigger: Any = zombies().trigger
    assert trigger.for_each == {"prefect.resource.id"}
    assert trigger.after == {"prefect.flow-run.heartbeat"}
    assert trigger.expect == {"prefect.flow-run.*"}
    assert trigger.within >= timedelta(seconds=3 * HEARTBEAT)


def test_what_is_said_of_a_silent_run_holds_for_every_flow() -> None:
    """For a promotion that waited as well, which has no checkpoint to go on from."""
    from flows.stack.bootstrap import zombies

    [action] = zombies().actions
    assert getattr(action, "message", "") == (
        "No heartbeat for 90 s: the process is gone. Press Retry, or start it again; what is finished is kept."
    )


def test_other_pools_need_a_template(prefect_server: None, tmp_path: Path, project: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"--pool-type kubernetes: .*--job-template"):
        apply(project(), pool="cluster", pool_type="kubernetes")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        apply(project(), pool="cluster", pool_type="kubernetes", job_template=tmp_path / "missing.json")


def test_a_pool_takes_the_template_s_defaults_from_a_file_and_a_deployment_its_own_values(
    client: Any, tmp_path: Path, project: Callable[..., Path]
) -> None:
    pool = {"name": "local", "job_variables": {"gpus": 0}}
    template, defaults = tmp_path / "template.json", tmp_path / "defaults.yaml"
    template.write_text(
        '{"variables": {"type": "object", "properties": {"gpus": {"type": "integer", "minimum": 0, "default": 1}}}, '
        '"job_configuration": {"gpus": "{{ gpus }}"}}'
    )
    options: dict[str, Any] = {"pool_type": "kubernetes", "job_template": template, "job_defaults": defaults}
    defaults.write_text("gpus: 4")
    assert apply(project(work_pool=pool), **options)["work pool local"] == "made"
    assert set(apply(project(work_pool=pool), **options).values()) == {"left", "skipped"}
    made = client.read_work_pool("local").base_job_template["variables"]["properties"]["gpus"]["default"]
    assert (made, read(client).job_variables) == (4, {"gpus": 0})
    defaults.write_text("gpus: 8")
    assert apply(project(work_pool=pool), **options)["work pool local"] == "changed"
    assert apply(project(work_pool=pool), pool_type="kubernetes")["work pool local"] == "left", "as it was given before"
    defaults.write_text("gpus: many")
    with pytest.raises(ConfigError, match=r"defaults\.yaml: gpus: 'many' is not of type 'integer'"):
        apply(project(work_pool=pool), **options)


def test_a_file_without_deployments_is_refused_by_name(tmp_path: Path, client: Any) -> None:
    (tmp_path / "prefect.yaml").write_text("deployments: 3", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"prefect\.yaml: not readable as deployments"):
        apply(tmp_path)


def test_the_first_steps_are_made_once_and_brought_up_to_date(
    client: Any, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.stack import first_steps

    def artifacts() -> list[Any]:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["first-steps"]))
        return list(client.read_artifacts(artifact_filter=wanted))

    apply(project())
    assert apply(project())["artifact first-steps"] == "left"
    monkeypatch.setattr(first_steps, "first_steps", lambda _: "# Anew")
    assert apply(project())["artifact first-steps"] == "changed"
    assert [each.data for each in artifacts()] == ["# Anew"]
