"""Everything that a run recorded in MLflow, read back for its page: of this release or an older one, of any machine."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from pydantic import BaseModel

from alignment.config import AlignConfig, flatten
from alignment.errors import InputError, ModelError, RecordError, TrackingError
from alignment.judging.gates import judge
from alignment.judging.plots import PANELS
from alignment.judging.records import read_config, read_samples
from alignment.judging.report import SampleRow
from alignment.judging.sections import Curves, Run
from tasks.addresses import shown
from tasks.registry import naming, records, runs, versions
from tasks.registry.connection import client, guard, is_new, place
from tasks.registry.versions import RegisteredVersion

SHOWN = "page.json"
"""The run's artifact with what its page shows that stands nowhere else in its record; `tasks.reports` makes it."""
CHECKS = "validation/checks.json"
RUN_ID = re.compile(r"[0-9a-f]{4,32}")
NEWEST = "attributes.start_time DESC"
GATE = "gate/"
"""How the metrics begin that are 1 for a gate that passed and 0 for one that did not."""
COUNTED = 1_000  # refused runs, the newest, that are read
REFUSED = "attributes.status = 'FINISHED' and tags.`plumbline.verdict` = 'fail'"


@dataclass(frozen=True)
class Found:
    """A run that somebody named, by itself or by a version of a registered model."""

    run_id: str
    version: RegisteredVersion | None = None

    @property
    def title(self) -> str:
        """What was found, in words: an alias that was not named is said."""
        return f"run {self.run_id[:8]}" if self.version is None else describe(self.version)


def describe(version: RegisteredVersion) -> str:
    """A version by name, number and aliases."""
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"{version.name} version {version.version}{aliases}"


def find(what: str) -> Found:
    """The run that `what` names: a run's id, or how it begins, or a registered model, whose version's run it is.

    A model by its name alone is its champion, else its challenger. Raises ModelError where it names nothing, or more
    than one run, InputError where it is a frontier's, of which there is no verdict and no sample to show.
    """
    model, _, _ = what.partition("@")
    if what.startswith("models:/") or "@" in what or "/" in what or (not is_new() and versions.read_model(model)):
        version = versions.resolve(naming.find_registered(what))
        if not version.run_id:
            raise ModelError(f"{what}: {describe(version)} names no run that it came from, so there is no record of it")
        return Found(version.run_id, version)
    found = _runs_like(what) if RUN_ID.fullmatch(what) and not is_new() else []
    if len(found) > 1:
        raise ModelError(f"{what}: {len(found)} runs begin so ({', '.join(found)}); give more of the id")
    if not found:
        raise ModelError(
            f"{what}: no run's id begins so, and no model is registered by this name in MLflow at {place().shown}; "
            "`plumbline models --refused` lists both"
        )
    if frontier := get_run(found[0]).data.tags.get(runs.FRONTIER, ""):
        it_is = "a frontier" if frontier == found[0] else f"a training of the frontier {frontier[:8]}"
        raise InputError(
            f"run {found[0][:8]} is {it_is}, which measures policies and registers none: it has no verdict, report or "
            f"samples; its page is {runs.artifact_url(frontier, runs.FRONTIER_PAGE)}"
        )
    return Found(found[0])


def read_run(run_id: str) -> Run:
    """A judged run as its page shows it. What an older record lacks is empty.

    Raises TrackingError where there is no such run, RecordError where it ended before it was judged or its record
    cannot be read.
    """
    from_mlflow = get_run(run_id)
    tags, started, ended = from_mlflow.data.tags, from_mlflow.info.start_time, from_mlflow.info.end_time
    if not versions.was_judged(run_id):
        why = tags.get("plumbline.reason") or tags.get("plumbline.ended") or ""
        raise RecordError(
            f"run {run_id} ({from_mlflow.info.run_name}): it was never judged, so there is no result to show; "
            f"it is {from_mlflow.info.status}{f', {why}' if why else ''}; look at it: {runs.run_url(run_id)}"
        )
    config, report, samples = records.read_record(run_id, ("gates",))
    return Run(
        id=run_id,
        name=str(from_mlflow.info.run_name or run_id),
        report=report,
        judgement=judge(report, config.gates),
        model=registered_as(run_id, tags),
        started=datetime.fromtimestamp(started / 1_000, UTC) if started else None,
        seconds=(ended - started) / 1_000 if started and ended else None,
        samples=samples,
        curves=_curves(run_id, from_mlflow.data.metrics),
        stages=records.read_lineage(run_id),
        settings=_settings(run_id),
        defaults=flatten(AlignConfig()),
        checks=(read_artifact(run_id, CHECKS) or {}).get("checks", ()),
        drawn=read_artifact(run_id, SHOWN) or {},
        links=_links(run_id, tags),
    )


def with_samples(run: Run) -> Run:
    """The run with every sample of its evaluation, as far as it recorded them, for a comparison."""
    return replace(run, evaluated=records.read_evaluated(run.id))


def get_run(run_id: str) -> Any:
    """A run of MLflow's. Raises TrackingError where there is none."""
    with guard():
        return client().get_run(run_id)


def registered_as(run_id: str, tags: Mapping[str, str]) -> str:
    """What became of a run's model in the registry; empty where it is no version."""
    with guard():
        items = list(client().search_model_versions(f"run_id = '{run_id}'"))
    found = [versions.get_version(str(item.name), str(item.version)) for item in items]
    return ", ".join(map(describe, found)) or tags.get("plumbline.registered", "")


def read_artifact(run_id: str, name: str) -> Any:
    """The value of a JSON artifact, None where the run has none of this name. Raises RecordError for no JSON."""
    try:
        return json.loads(records.read_artifact(run_id, name))
    except TrackingError as error:
        if not records.is_missing(error):
            raise
        return None
    except ValueError as error:
        raise RecordError(f"{name} of run {run_id}: not a record of Plumbline's ({error})") from error


def first_sample(run_id: str) -> tuple[AlignConfig, SampleRow | None]:
    """The configuration of a run and the first row of its sample texts; defaults and None where it recorded none."""
    try:
        config = read_config(records.read_artifact(run_id, "config.yaml"), AlignConfig.model_fields)
        return config, next(iter(read_samples(records.read_artifact(run_id, "samples.json"))), None)
    except (RecordError, TrackingError):  # of a version that was made by hand
        return AlignConfig(), None


def refused_runs(name: str) -> list[Any]:
    """MLflow's newest runs that the gates refused, of the registered model `name` or of all.

    A sweep, of which no point passed, has no gates of its own: its points are here, and it is not.
    """
    if is_new() or "'" in name:  # which the configuration refuses
        return []
    query = f"{REFUSED} and tags.`plumbline.model_name` = '{name}'" if name else REFUSED
    with guard():
        everywhere = [item.experiment_id for item in client().search_experiments()]
        found = client().search_runs(everywhere, query, max_results=COUNTED, order_by=[NEWEST])
    return [run for run in found if any(metric.startswith(GATE) for metric in run.data.metrics)]


def _runs_like(begin: str) -> list[str]:
    with guard():
        everywhere = [item.experiment_id for item in client().search_experiments()]
        found = client().search_runs(everywhere, f"attributes.run_id LIKE '{begin}%'", max_results=10)
    return [str(run.info.run_id) for run in found]


def _curves(run_id: str, known: Mapping[str, float]) -> Curves:
    """The history of each metric of the training that was logged; older releases logged them in no group."""
    logged = {
        key: name for _, _, lines in PANELS for key in lines for name in (key, records.curve(key)) if name in known
    }
    with guard():
        return {
            key: sorted({item.step: float(item.value) for item in client().get_metric_history(run_id, name)}.items())
            for key, name in logged.items()
        }


def _settings(run_id: str) -> dict[str, Any]:
    """Each field of the configuration under its dotted name, as people read it; empty if unreadable."""
    try:
        config = read_config(records.read_artifact(run_id, "config.yaml"), AlignConfig.model_fields)
    except RecordError:  # by an older release, of a value that this one refuses
        return {}
    return {name: _setting(reduce(getattr, name.split("."), config), value) for name, value in flatten(config).items()}


def _setting(given: Any, value: Any) -> Any:
    """An address without its password; of parts, as second judges are, what is not as it is by default."""
    if isinstance(given, tuple) and all(isinstance(part, BaseModel) for part in given):
        return [part.model_dump(mode="json", exclude_defaults=True) for part in given]
    return shown(value) if isinstance(value, str) else value


def _links(run_id: str, tags: Mapping[str, str]) -> list[tuple[str, str]]:
    links = [("The run in MLflow", runs.run_url(run_id))]
    if where := tags.get("prefect.flow_run_url"):
        links.append(("The run in Prefect", where))
    return links
