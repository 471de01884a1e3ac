"""The commands that compute a model, or show what they would compute: run, retrain, sweep, plan."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from alignment.config import AlignConfig, as_error, build_grid
from alignment.errors import REFUSED, ConfigError
from flows.cli.console import BAD, GOOD, make_console, quieten, say
from flows.cli.flags import Flags, flag, named_by_flags, overrides
from flows.cli.result import report, require_writable
from flows.cli.servers import servers_for_a_flow
from flows.settings import QUICKSTART, QUICKSTART_RETRAIN, shown_name
from tasks.home import place_told

ConfigPath = Annotated[
    Path,
    Parameter(
        help="YAML file with the configuration, or the name of a shipped one [quickstart.yaml]", show_default=False
    ),
]
RetrainConfigPath = Annotated[
    Path, Parameter(help="YAML file with the configuration [quickstart_retrain.yaml]", show_default=False)
]
PlannedGpu = Annotated[
    float | None,
    Parameter(
        help="GB of a GPU to plan for, in place of what this machine has",
        show_default=False,
        validator=Number(gt=0, lte=10_000),
    ),
]
PlannedGpus = Annotated[
    int,
    Parameter(help="With --gpu: how many of them there are", show_default=False, validator=Number(gte=1, lte=1_024)),
]
JsonPath = Annotated[Path | None, Parameter(help="Also write the result to this file")]
Full = Annotated[bool, Parameter(help="Also print every figure, every gate and some sample texts", negative=())]
Debug = Annotated[bool, Parameter(help="Show the traceback of an error", negative=())]


AXES = {"losses": "loss", "betas": "beta", "learning_rates": "learning_rate"}
"""What a sweep varies, with the field of `dpo` that has one value of it."""


def several(told: str) -> Parameter:
    """A flag that takes one or more values: `--betas 0.3 0.5`."""
    return Parameter(help=told, consume_multiple=True, negative=())


def run(
    *,
    flags: Flags = None,
    config: ConfigPath = QUICKSTART,
    json: JsonPath = None,
    full: Full = False,
    debug: Debug = False,
) -> int:
    """Train, judge and register a model: the whole pipeline.

    It ends with 0 where the model was registered, 3 where a gate refused it, 2 for a configuration or data that cannot
    be used, 1 for anything unexpected.
    """
    wanted = wanted_config(config, flags)
    require_writable(json)
    console = begin(config, wanted, debug)
    with servers_for_a_flow(console):
        from flows.align import align

        result = align(**groups(wanted))
    return report(result, json, console, full)


def retrain(
    *,
    flags: Flags = None,
    config: RetrainConfigPath = QUICKSTART_RETRAIN,
    json: JsonPath = None,
    full: Full = False,
    debug: Debug = False,
) -> int:
    """One more round, from the champion, on prompts that no round has used.

    It ends as `run` does, and with 0 where too few prompts are new.
    """
    wanted = wanted_config(config, flags, own_base=False)
    require_writable(json)
    console = begin(config, wanted, debug)
    with servers_for_a_flow(console):
        from flows.align import AlignResult
        from flows.retrain import retrain as retrain_flow

        state: Any = retrain_flow(**groups(wanted), return_state=True)
        if state.name == "Skipped":
            say(console, escape(state.message or ""), head="\n[bold]Skipped[/bold]: ")
            return 0
        result: AlignResult = state.result()
    return report(result, json, console, full)


def sweep(
    *,
    flags: Flags = None,
    losses: Annotated[list[str] | None, several("Losses to try [hinge sigmoid, or --dpo.loss]")] = None,
    betas: Annotated[list[float] | None, several("Values of beta to try [0.3 0.5, or --dpo.beta]")] = None,
    learning_rates: Annotated[
        list[float] | None, several("Learning rates to try [1e-4 3e-4, or --dpo.learning-rate]")
    ] = None,
    config: ConfigPath = QUICKSTART,
    full: Full = False,
    debug: Debug = False,
) -> int:
    """Try a grid of losses, betas and learning rates.

    Of those that pass the gates, the one with the surest gain becomes the challenger.
    """
    wanted = wanted_config(config, flags)
    grid = build_grid(**axes(overrides(flags), AXES, losses=losses, betas=betas, learning_rates=learning_rates))
    console = begin(config, wanted, debug)
    with servers_for_a_flow(console):
        from flows.sweep import sweep as sweep_flow

        found = sweep_flow(**groups(wanted), grid=grid)
    from flows.cli import terminal

    console.print()
    terminal.show_points(found.points, console)
    colour = BAD if found.best is None else GOOD
    say(console, f"[bold {colour}]{escape(found.told)}[/]")
    if found.best is None:
        say(console, escape(found.where), head="Look at it  ")
        return REFUSED
    return report(found.best, None, console, full)


def plan(
    *,
    flags: Flags = None,
    config: ConfigPath = QUICKSTART,
    gpu: PlannedGpu = None,
    gpus: PlannedGpus = 1,
    debug: Debug = False,
) -> int:
    """Show what a run would compute, what is already there, and the memory that each stage needs.

    It shows the stages, which of them the store has, and the counts, and computes nothing. A registered model is
    downloaded first, as a run does: its content decides what is cached. What cannot fit ends it with exit code 2.
    """
    from alignment.capacity import assumed

    with assumed(gpu, gpus):
        wanted = wanted_config(config, flags, fitting=False)
        quieten(debug)
        from flows.cli.planning import plan_table
        from flows.library import plan as make_plan

        found = make_plan(wanted)
    console = make_console()
    console.print(plan_table(found))
    if place := place_told():
        say(console, escape(place))
    if found.refusals:
        console.print()
        with named_by_flags(overrides(flags)):
            raise as_error(found.refusals, shown_name(config), overrides(flags))
    return 0


def wanted_config(config: Path, flags: Flags, *, own_base: bool = True, fitting: bool = True) -> AlignConfig:
    """The configuration that is asked for. Raises ConfigError with all that would stop a run before it has begun."""
    from flows.submission import load_startable

    given = overrides(flags)
    with named_by_flags(given):
        return load_startable(config, given, own_base=own_base, fitting=fitting)


def axes(
    given: Mapping[str, Any], fields: Mapping[str, str], **varied: list[Any] | None
) -> dict[str, list[Any] | None]:
    """The values to try of each axis: one whose field of `dpo` a flag sets to one value is not varied.

    `fields` are those fields by axis. Raises ConfigError where a flag sets the value and another one the values to try.
    """
    for name, values in varied.items():
        if (value := given.get("dpo", {}).get(fields[name])) is None:
            continue
        if values is not None:
            one = flag(f"dpo.{fields[name]}")
            raise ConfigError(f"{one} {value} and {flag(name)} both say what to try: leave one of them out")
        varied[name] = [value]
    return varied


def begin(config: Path, wanted: AlignConfig, debug: bool) -> Console:
    """The console, with the line that says what begins."""
    quieten(debug)
    console = make_console()
    say(console, f"[bold]plumbline[/bold] {escape(heading(config, wanted))}, seed {wanted.seed}")
    if place := place_told():
        say(console, escape(place))
    console.print()
    return console


def heading(config: Path, wanted: AlignConfig) -> str:
    """What a run is about: the name of its configuration, or of its data where the default's was replaced by flags."""
    data = ", ".join(source.path for source in wanted.data.mixture) or wanted.data.path
    if config not in (QUICKSTART, QUICKSTART_RETRAIN) or data == "grammar":
        return config.stem
    return f"{data}, with the settings of {config.name}"


def groups(wanted: AlignConfig) -> dict[str, Any]:
    """The configuration as a flow takes it: its groups by name."""
    return {name: getattr(wanted, name) for name in AlignConfig.model_fields}
