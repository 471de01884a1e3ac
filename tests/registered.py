"""Registered versions as a run leaves them, without the run: no model is trained, and no weights are written."""

import itertools
from pathlib import Path
from typing import Any

import yaml

from alignment.config import AlignConfig
from alignment.judging.gates import judge
from alignment.judging.report import EvalReport, SampleRow
from tasks.registry import records, runs, versions
from tasks.registry.connection import client, experiment
from tasks.registry.versions import RegisteredVersion
from tests.reports import make_report

SAMPLES = [
    SampleRow(prompt=f"film {n}", base=f" was bad {n}", base_reward=-1.0, aligned=f" text {n}", aligned_reward=reward)
    for n, reward in enumerate((0.1, 2.0, -3.0, 0.5, 1.0))
]
_numbers = itertools.count()


def report(**delta: Any) -> EvalReport:
    """An evaluation that passes every gate, unless `delta` says otherwise."""
    return make_report(delta=delta)


def make_version(
    name: str,
    *,
    found: EvalReport | None = None,
    record: bool | Path = True,
    tags: dict[str, str] | None = None,
    run_tags: dict[str, str] | None = None,
    alias: str = "challenger",
) -> RegisteredVersion:
    """Register the next version of `name`: judged as `found` deserves, with the tags that a run sets, laid over.

    `record` may be a folder that holds what another run recorded.
    """
    found = found or report()
    run_id, uri = make_run(name, found=found, record=record, tags=run_tags)
    return register(run_id, uri, name, alias, key=f"key-{next(_numbers)}", tags=verdict_tags(found) | (tags or {}))


def make_run(
    name: str, *, found: EvalReport | None = None, record: bool | Path = True, tags: dict[str, str] | None = None
) -> tuple[str, str]:
    """A finished run that was judged, and the address of the model on it."""
    config = AlignConfig()
    run_id = str(client().create_run(experiment(config.registry.experiment), run_name=name).info.run_id)
    records.log_text(run_id, "config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
    uri = f"models:/{_logged_model(run_id)}"
    runs.tag(run_id, {"plumbline.model_uri": uri} | (tags or {}))
    if isinstance(record, Path):
        for file in record.iterdir():
            records.log_file(run_id, file)
    elif record:
        records.log_text(run_id, records.REPORT, (found or report()).model_dump_json())
        records.log_samples_table(run_id, SAMPLES)
    runs.finish(run_id, "FINISHED")
    return run_id, uri


def verdict_tags(found: EvalReport | None = None) -> dict[str, str]:
    """What a version's tags say of its gates."""
    judgement = judge(found or report(), AlignConfig().gates)
    gates = {f"gate.{gate.name}": "passed" if gate.passed else "failed" for gate in judgement.gates}
    return gates | {"plumbline.verdict": judgement.verdict}


def register(run_id: str, uri: str, name: str, alias: str, *, key: str = "k1", **options: Any) -> RegisteredVersion:
    """The next version of `name`, with the alias, whoever had it."""
    made = versions.create_version(run_id, uri, name, key=key, **options)
    versions.set_alias(name, alias, made.version)
    return versions.get_version(name, made.version)


def _logged_model(run_id: str) -> str:
    where = client().get_run(run_id).info.experiment_id
    model = client().create_logged_model(where, name="model", source_run_id=run_id)
    return str(client().finalize_logged_model(model.model_id, "READY").model_id)
