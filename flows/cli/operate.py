"""The operated system's commands: thin functions over the flows, one a command of `plumbline`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from alignment.environment import dropped
from tasks.home import home

PORT = Number(gte=0, lte=65535)
Port = Annotated[
    int, Parameter(help="Where it listens on 127.0.0.1; where that is taken, another one is chosen", validator=PORT)
]


def up(*, prefect_port: Port = 4200, mlflow_port: Port = 5000, receiver_port: Port = 5055) -> int:
    """Run MLflow, Prefect and a worker on this machine until Ctrl-C; everything they keep lies under PLUMBLINE_HOME.

    The servers are its own: PREFECT_API_URL and MLFLOW_TRACKING_URI are not used.
    """
    from flows.stack.services import Ports
    from flows.stack.up import up as run_stack

    console = Console()
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        if os.environ.get(name):
            console.print(f"{name} is set, and not used: up starts servers of its own", highlight=False)
    for name in dropped():
        console.print(f"{name} is set, and not used: the config names the precision", highlight=False)
    return run_stack(home(), Ports(prefect_port, mlflow_port, receiver_port), console)


def status() -> int:
    """Show what runs and how it fares: exit 0 if the whole stack is up, 1 otherwise."""
    from flows.stack.presence import status as show_status

    return show_status(home(), Console())


def down() -> int:
    """Stop what `plumbline up` started in this home, from another terminal."""
    from flows.stack.presence import down as stop_stack

    return stop_stack(home(), Console())


def bootstrap(
    *,
    pool: Annotated[str, Parameter(help="Work pool of the deployments")] = "local",
    pool_type: Annotated[Literal["process", "docker", "kubernetes"], Parameter(help="What runs the flows")] = "process",
    job_template: Annotated[Path | None, Parameter(help="JSON file with the pool's base job template")] = None,
    gpu_slots: Annotated[int | None, Parameter(help="GPU stages at a time [one a CUDA device, at least one]")] = None,
) -> int:
    """Make deployments, work pool, GPU slots and automations on the servers of PREFECT_API_URL and MLFLOW_TRACKING_URI.

    Run it again after an update; what was changed in the UI stays.
    """
    from flows.stack.services import project_folder

    _reach_prefect()
    from flows.stack.bootstrap import bootstrap as apply
    from flows.stack.bootstrap import configured_webhook

    console = Console()
    for change in apply(
        project_folder(),
        pool=pool,
        pool_type=pool_type,
        job_template=job_template,
        gpu_slots=gpu_slots,
        webhook=configured_webhook(),
    ):
        console.print(f"{change.how:<8} {escape(change.what)}  [dim]{escape(change.note)}[/dim]", highlight=False)
    return 0


def data_arrived() -> int:
    """Say that the data behind data.path has grown: Prefect starts a `retrain`."""
    _reach_prefect()
    from tasks.announcing import announce
    from tasks.events import DATA_ARRIVED

    announce(DATA_ARRIVED, "any", {})
    Console().print(f"{DATA_ARRIVED} sent", highlight=False)
    return 0


ModelName = Annotated[str, Parameter(help="Name of the registered model")]
Reason = Annotated[str, Parameter(help="Why; kept on the version")]
Approver = Annotated[str, Parameter(help="Who decides it [asked for, or your user name]", show_default=False)]
PromotionFile = Annotated[Path, Parameter(help="YAML file with the promotion's settings [promotion.yaml]")]
PROMOTION = Path(__file__).parents[1] / "configs" / "promotion.yaml"


def promote(
    *,
    model_name: ModelName = "plumbline-quickstart",
    version: Annotated[int | None, Parameter(help="Number of the version [the challenger's]")] = None,
    yes: Annotated[bool, Parameter(help="Ask nobody, where promotion.automatic allows it", negative=())] = False,
    reason: Reason = "",
    approver: Approver = "",
    config: PromotionFile = PROMOTION,
) -> int:
    """Make a version the champion, once its gates were checked anew and you approved: exit 0, 3 refused or rejected."""
    from flows.cli.asking import promote as promote_in_terminal

    return promote_in_terminal(model_name, version, config, yes, reason, approver)


def rollback(*, model_name: ModelName = "plumbline-quickstart", reason: Reason = "", approver: Approver = "") -> int:
    """Exchange champion and previous: exit 0, 3 if there is nothing to go back to. A second one undoes the first."""
    from flows.cli.asking import rollback as rollback_in_terminal

    return rollback_in_terminal(model_name, reason, approver)


def smoke(
    *,
    model_name: ModelName = "plumbline-quickstart",
    alias: Annotated[str, Parameter(help="Alias of the version to try")] = "champion",
) -> int:
    """Try a registered model: exit 0 if it writes and earns the reward that its evaluation recorded, 3 if not."""
    from flows.cli.asking import smoke as smoke_in_terminal

    return smoke_in_terminal(model_name, alias)


def receiver(
    *,
    host: Annotated[str, Parameter(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on", validator=PORT)] = 5055,
    config: PromotionFile = PROMOTION,
) -> int:
    """Hear from MLflow that a champion was set by hand, and check it.

    The secret is PLUMBLINE_WEBHOOK_SECRET, or the file stack/secret/webhook in PLUMBLINE_HOME.
    """
    from flows.stack.presence import join
    from flows.stack.receiver import serve
    from tasks.registry.promotion import load_promotion

    join(home())
    serve(host, port, load_promotion(config))
    return 0


def _reach_prefect() -> None:
    """Find a Prefect server that is there already. Raises ConfigError where there is none, StackError if it is mute."""
    from alignment.errors import ConfigError
    from flows.stack import reach
    from flows.stack.presence import join

    join(home())
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError("no Prefect server: set PREFECT_API_URL, or start one with `plumbline up`")
    reach.require_address(os.environ["PREFECT_API_URL"])
    reach.check()
