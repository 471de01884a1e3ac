"""The commands that run and set up servers: up, status, down, bootstrap, receiver, data-arrived."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.markup import escape

from alignment.environment import dropped
from flows.cli.console import make_console, say
from flows.cli.servers import require_prefect
from flows.settings import PROMOTION, load_promotion
from tasks.home import home

PORT = Number(gte=0, lte=65535)
Port = Annotated[int, Parameter(help="Port on 127.0.0.1; if it is taken, a free one is chosen", validator=PORT)]


def up(*, prefect_port: Port = 4200, mlflow_port: Port = 5000, receiver_port: Port = 5055) -> int:
    """Run MLflow, Prefect and a worker on this machine until Ctrl-C; all their files are under PLUMBLINE_HOME.

    It starts its own servers: PREFECT_API_URL and MLFLOW_TRACKING_URI are not used.
    """
    from flows.stack.services import Ports
    from flows.stack.up import up as run_stack

    console = make_console()
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        if os.environ.get(name):
            console.print(f"{name} is set but not used: up starts its own servers", highlight=False)
    for name in dropped():
        console.print(f"{name} is set but not used: the config sets the precision", highlight=False)
    return run_stack(home(), Ports(prefect_port, mlflow_port, receiver_port), console)


def status() -> int:
    """Show which servers run, and what goes on in them.

    It ends with 0 if the whole stack is up, 1 otherwise.
    """
    from flows.stack.control import status as show_status

    return show_status(home(), make_console())


def down() -> int:
    """Stop what `plumbline up` started in this home, from another terminal."""
    from flows.stack.control import down as stop_stack

    return stop_stack(home(), make_console())


def bootstrap(
    *,
    pool: Annotated[str, Parameter(help="Work pool of the deployments")] = "local",
    pool_type: Annotated[Literal["process", "docker", "kubernetes"], Parameter(help="What runs the flows")] = "process",
    job_template: Annotated[Path | None, Parameter(help="JSON file with the pool's base job template")] = None,
    job_defaults: Annotated[
        Path | None, Parameter(help="YAML file with values of the job template's variables, instead of its own")
    ] = None,
    gpu_slots: Annotated[int | None, Parameter(help="GPU stages at a time [one per CUDA device, at least one]")] = None,
    notify: Annotated[
        str | None,
        Parameter(
            env_var="PLUMBLINE_NOTIFY_URL",
            show_env_var=False,
            help="Where notifications go: https://… (Slack's or any webhook) or mailtos://… (mail); `off` ends them "
            "[PLUMBLINE_NOTIFY_URL, else as before]",
        ),
    ] = None,
    notify_test: Annotated[bool, Parameter(help="Send a test notification", negative=())] = False,
) -> int:
    """Make deployments, work pool, GPU slots and automations on the servers of PREFECT_API_URL and MLFLOW_TRACKING_URI.

    Run it again after an update; what was changed in the UI stays.
    """
    from flows.stack.services import project_folder

    require_prefect()
    from flows.stack.bootstrap import bootstrap as apply
    from flows.stack.bootstrap import configured_webhook
    from tasks.registry.accounts import configured_account

    console = make_console()
    for change in apply(
        project_folder(),
        pool=pool,
        pool_type=pool_type,
        job_template=job_template,
        job_defaults=job_defaults,
        gpu_slots=gpu_slots,
        account=configured_account(),
        webhook=configured_webhook(),
        notify=notify or None,
    ):
        console.print(f"{change.how:<8} {escape(change.what)}  [dim]{escape(change.note)}[/dim]", highlight=False)
    if notify_test:
        from tasks.events import NOTIFICATION_TEST, emit
        from tasks.notices import notice

        emit(NOTIFICATION_TEST, "plumbline", notice("A test message from Plumbline", "Notifications arrive here."))
        console.print("a test notification is on its way; it arrives within seconds, or Prefect's log says why not")
    return 0


def receiver(
    *,
    host: Annotated[str, Parameter(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on", validator=PORT)] = 5055,
    config: Annotated[Path, Parameter(help="YAML file with the promotion's settings [promotion.yaml]")] = PROMOTION,
) -> int:
    """Receive MLflow's webhook: check a champion that was set by hand in MLflow.

    The secret is PLUMBLINE_WEBHOOK_SECRET, or the file stack/secret/webhook in PLUMBLINE_HOME.
    """
    from flows.stack.clients import join
    from flows.stack.receiver import serve

    join(home())
    serve(host, port, load_promotion(config))
    return 0


def data_arrived() -> int:
    """Tell Prefect that the data at data.path has grown, which starts a retraining.

    It says which deployment starts and where its runs are, or why nothing will start.
    """
    require_prefect()
    from prefect.client.orchestration import get_client

    from flows.stack.arrival import what_starts
    from flows.stack.prefect_api import guard
    from tasks.events import DATA_ARRIVED, emit

    console = make_console()
    with guard(), get_client(sync_client=True) as client:
        told = list(what_starts(client))
        emit(DATA_ARRIVED, "any", {})
    say(console, f"Prefect was told: {DATA_ARRIVED}.")
    for sentence in told:
        say(console, escape(sentence))
    return 0
