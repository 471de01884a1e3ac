"""Runs in MLflow: parameters, metrics, datasets, plots, texts and the model, each under an explicit run id."""

import json
import logging
import math
import os
import re
import socket
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

import yaml
from prefect.exceptions import CancelledRun, TerminationSignal

from alignment.config import AlignConfig, flatten
from alignment.errors import Interrupted, NothingNewError, TrackingError
from alignment.judging import records
from alignment.judging.report import EvalReport, Judgement, SampleRow
from alignment.stages.store import StageRef, digest, is_alive
from tasks.registry import serving
from tasks.registry.connection import (
    check,
    client,
    configure,
    error_code,
    experiment,
    fluent,
    guard,
    place,
    without_advice,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature
    from transformers import GenerationConfig

__all__ = ["check", "configure"]  # re-exported, so that flows need no second module

logger = logging.getLogger("plumbline")

Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_PARAM = 6_000  # characters of a parameter's value, MLflow's limit
MAX_TAG = 8_000  # characters of a tag's value
MAX_DIGEST = 36  # characters of a dataset's digest
PARAMS_A_CALL = 100
METRICS_A_CALL = 1_000
PUBLIC = "PLUMBLINE_MLFLOW_URL"  # where people open MLflow, where that is another address than the runs' own
REPORT = "report.json"
USED_PROMPTS = "prompts/used.txt"
STOPPED = (CancelledRun, TerminationSignal, KeyboardInterrupt, Interrupted)
REQUEST = {
    "max_new_tokens": "long",
    "do_sample": "boolean",
    "temperature": "double",
    "top_k": "long",
    "top_p": "double",
}
"""What a request to a served model may set, and its type in MLflow."""
REQUIREMENTS = ("torch", "transformers", "accelerate", "safetensors")


@contextmanager
def run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> Iterator[str]:
    """`start_run`, and its end: FINISHED (skipped ones too), FAILED after an error, or KILLED after a cancellation.

    The error goes on its way whatever MLflow says to that.
    """
    run_id = start_run(config, run_name, tags, note)
    try:
        yield run_id
    except NothingNewError as error:
        tag(run_id, {"plumbline.verdict": "skipped", "plumbline.reason": str(error)})
        finish(run_id, "FINISHED")
        raise
    except BaseException as error:
        _finish_quietly(run_id, "KILLED" if isinstance(error, STOPPED) else "FAILED")
        raise
    finish(run_id, "FINISHED")


def start_run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> str:
    """Start a run in the config's experiment, each field a parameter, the whole its `config.yaml`; returns its id.

    `tags` link it elsewhere, as `prefect.flow_run_id` does; empty ones are left out. `note` is Markdown for people.
    Runs of this host whose process died are ended first. Raises TrackingError, as every function here does where
    MLflow cannot be reached or refuses.
    """
    from mlflow.entities import Param

    all_tags = {
        "mlflow.source.name": "plumbline",
        "mlflow.source.type": "JOB",
        "mlflow.note.content": note,
        "plumbline.host": socket.gethostname(),
        "plumbline.pid": str(os.getpid()),
    } | dict(tags or {})
    params = [Param(name, _cut(str(value), MAX_PARAM)) for name, value in flatten(config).items()]
    with guard():
        where = experiment(config.registry.experiment)
        _end_orphans(where)
        run_id = str(client().create_run(where, run_name=run_name, tags=_tags(all_tags)).info.run_id)
        try:
            for start in range(0, len(params), PARAMS_A_CALL):
                client().log_batch(run_id, params=params[start : start + PARAMS_A_CALL])
            log_text(run_id, "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        except BaseException:
            _finish_quietly(run_id, "FAILED")
            raise
    return run_id


def finish(run_id: str, status: Status) -> None:
    """End the run."""
    with guard():
        client().set_terminated(run_id, status)


def tag(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on the run."""
    from mlflow.entities import RunTag

    with guard():
        client().log_batch(run_id, tags=[RunTag(name, value) for name, value in _tags(tags).items()])


def log_history(run_id: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Metrics by step: each row holds `step` and any number of metrics. One request for up to 1,000 values.

    A value that is not finite is stored as NaN, which leaves a hole in the plot, and is named with its step in the
    tag `plumbline.not_finite.<metric>`, because MLflow stores infinities as 1.8e308.
    """
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1_000)
    values = ((key, float(value), int(row["step"])) for row in rows for key, value in row.items() if key != "step")
    with guard():
        while chunk := list(islice(values, METRICS_A_CALL)):
            broken = {key: f"{value} at step {step}" for key, value, step in chunk if not math.isfinite(value)}
            client().log_batch(
                run_id,
                metrics=[
                    Metric(key, value if math.isfinite(value) else math.nan, now, step) for key, value, step in chunk
                ],
                tags=[
                    RunTag(f"plumbline.not_finite.{key}", text) for key, text in list(broken.items())[:PARAMS_A_CALL]
                ],
            )


def complete_history(run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Log the rows whose steps the run does not hold yet, as after a resumed training or an outage of MLflow."""
    if not rows:
        return
    key = min(rows[0].keys() - {"step"})
    with guard():
        held = {item.step for item in client().get_metric_history(run_id, key)}
    log_history(run_id, [row for row in rows if int(row["step"]) not in held])


def log_evaluation(run_id: str, report: EvalReport, judgement: Judgement) -> None:
    """The final metrics under `base/`, `aligned/`, `delta/`, `drift/`, `evaluation/`, and each gate as 1 or 0.

    What was not judged (None) is left out. The verdict and its sentence become tags.
    """
    values: dict[str, float] = {
        "evaluation/prompts": report.prompts,
        "evaluation/samples_per_prompt": report.samples_per_prompt,
        "evaluation/winners_mean": report.winners_mean,
    }
    records = {"base": report.base, "aligned": report.aligned, "delta": report.delta, "drift": report.drift}
    for side, record in ((side, record) for side, record in records.items() if record is not None):
        for name, value in record.model_dump().items():
            if isinstance(value, tuple):
                stem = f"{side}/{name.removesuffix('_ci')}"
                values |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
            elif value is not None:
                values[f"{side}/{name}"] = value
    values |= {f"gate/{gate.name}": float(gate.passed) for gate in judgement.gates}
    log_history(run_id, [{"step": 0, **values}])
    tag(run_id, {"plumbline.verdict": judgement.verdict, "plumbline.reason": judgement.sentence})


def log_counts(run_id: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """What each stage kept and dropped, as metrics `counts/<stage>/<name>`."""
    log_history(
        run_id,
        [
            {"step": 0}
            | {f"counts/{stage}/{name}": float(n) for stage, found in counts.items() for name, n in found.items()}
        ],
    )


def log_dataset(run_id: str, path: Path, name: str, context: str, digest: str) -> None:
    """A Parquet file as an input of the run: its schema, size, place and digest; its rows stay where they are.

    MLflow shows the digest's first 36 characters; the whole one is the tag `digest` of the input.
    """
    import pyarrow.parquet as parquet
    from mlflow.entities import Dataset, DatasetInput, InputTag

    with parquet.ParquetFile(path) as file:
        columns = [
            {"name": field.name, "type": str(field.type), "required": not field.nullable} for field in file.schema_arrow
        ]
        profile = {"num_rows": file.metadata.num_rows, "num_bytes": path.stat().st_size}
    dataset = Dataset(
        name=name,
        digest=digest[:MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": str(path.absolute())}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile),
    )
    tags = [InputTag("mlflow.data.context", context), InputTag("digest", digest)]
    with guard():
        client().log_inputs(run_id, [DatasetInput(dataset, tags)])


def log_figures(run_id: str, figures: Mapping[str, "Figure"]) -> None:
    """Figures as `plots/<name>.png`."""
    with guard():
        for name, figure in figures.items():
            client().log_figure(run_id, figure, f"plots/{name}.png")


def log_samples_table(run_id: str, rows: Sequence[SampleRow]) -> None:
    """Sample texts before and after as the table `samples.json`, which MLflow shows side by side."""
    import pandas

    with guard():
        client().log_table(run_id, pandas.DataFrame([row.model_dump() for row in rows], dtype=object), "samples.json")


def log_text(run_id: str, name: str, text: str) -> None:
    """A text as the artifact `name`."""
    with guard():
        client().log_text(run_id, text, name)


def log_json(run_id: str, name: str, value: Any) -> None:
    """A JSON value as the artifact `name`."""
    log_text(run_id, name, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """A file as an artifact, below `folder`."""
    with guard():
        client().log_artifact(run_id, str(path), folder)


def log_model(run_id: str, folder: Path, config: AlignConfig, prompt: str, card: str = "") -> str:
    """Keep a `save_pretrained` folder on the run as a servable text-generation model.

    Returns its address, `models:/m-…`. Its folder `model/` is a `save_pretrained` folder as well. MLflow loads what it
    wrote and continues `prompt`, and warns where that fails. `card` becomes its README. Raises ModelError where the
    folder lacks a part.
    """
    from mlflow.transformers import log_model as log_transformers

    model, tokenizer = serving.load(folder, config)
    with guard(), fluent(), without_advice(), tempfile.TemporaryDirectory() as temporary:
        where = client().get_run(run_id).info.experiment_id
        logged = client().create_logged_model(where, name="model", source_run_id=run_id, model_type="dpo")
        tokenizer.save_pretrained(Path(temporary) / "model")  # MLflow keeps it beside the weights, not with them
        client().log_model_artifacts(logged.model_id, temporary)
        log_transformers(
            {"model": model, "tokenizer": tokenizer},
            model_id=logged.model_id,
            run_id=run_id,
            task="text-generation",
            signature=signature(model.generation_config),
            input_example=([prompt], {"max_new_tokens": 4}),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            model_card=_readme(card),
        )
    return f"models:/{logged.model_id}"


def signature(writing: "GenerationConfig") -> "ModelSignature":
    """A text in, a text out, and what a request may set; where it does not, `writing` holds."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec(name, kind, getattr(writing, name)) for name, kind in REQUEST.items()]),
    )


def find_logged_model(experiment_name: str, policy: str) -> str | None:
    """The address of the model that an earlier run of the experiment kept of this policy (its digest), or None."""
    with guard():
        found = client().get_experiment_by_name(experiment_name)
        if found is None:
            return None
        for run in client().search_runs([found.experiment_id], f"tags.`plumbline.policy` = '{policy}'"):
            uri = run.data.tags.get("plumbline.model_uri", "")
            if uri and is_ready(uri):
                return str(uri)
    return None


def is_ready(uri: str) -> bool:
    """Whether MLflow holds the whole of the model at an address that `log_model` returned."""
    from mlflow.exceptions import MlflowException

    with guard():
        try:
            return str(client().get_logged_model(uri.removeprefix("models:/")).status) == "READY"
        except MlflowException as error:
            if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:
                return False
            raise


def read_record(run_id: str, groups: Collection[str]) -> tuple[AlignConfig, EvalReport, list[SampleRow]]:
    """What a judged run of this release or an older one recorded: some groups of its configuration, report and samples.

    Raises TrackingError where the run does not exist, or ended before it was judged; RecordError where a part cannot be
    read, NewerRecordError where a newer release wrote it.
    """
    report = records.read_report(_read_artifact(run_id, REPORT), f"{REPORT} of run {run_id}")
    samples = records.read_samples(_read_artifact(run_id, "samples.json"))
    return records.read_config(_read_artifact(run_id, "config.yaml"), groups), report, samples


def read_lineage(run_id: str) -> dict[str, StageRef]:
    """The finished stages that a judged run was made of; empty where it recorded none."""
    try:
        found = json.loads(_read_artifact(run_id, "lineage.json"))
    except TrackingError as error:
        if not is_missing(error):
            raise
        return {}
    return {name: StageRef.model_validate(ref) for name, ref in found.items()}


def is_missing(error: TrackingError) -> bool:
    """Whether MLflow answered that there is no such run or file, and was not away or unwilling."""
    cause = error.__cause__
    if cause is None or error.transient:
        return False
    codes = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
    return error_code(cause) in codes or bool(re.search(r"No such (file|artifact)|\b404\b", str(cause)))


def log_used_prompts(run_id: str, name: str, prompt_ids: Sequence[str]) -> None:
    """Record which prompts a policy of the registered model `name` was trained on, for the rounds that follow."""
    log_text(run_id, USED_PROMPTS, "\n".join(prompt_ids) + "\n")
    tag(run_id, {"plumbline.model_name": name, "plumbline.prompts": digest(list(prompt_ids))[:20]})


def used_prompts(name: str) -> set[str]:
    """The prompts that judged runs of the registered model `name` were trained on.

    A run that was judged and died before its end does not count: started again, it goes on with the same prompts.
    One that had registered its model by then does.
    """
    found: dict[str, set[str]] = {}
    with guard():
        everywhere = [item.experiment_id for item in client().search_experiments()]
        for run in _search_runs(everywhere, f"tags.`plumbline.model_name` = '{name}'"):
            key = run.data.tags.get("plumbline.prompts", "")
            counts = run.info.status == "FINISHED" or "plumbline.registered" in run.data.tags
            if counts and key and key not in found:
                found[key] = set(_read_artifact(run.info.run_id, USED_PROMPTS).split())
    return set().union(*found.values())


def run_url(run_id: str) -> str:
    """Where a person sees the run: a link, or the command that opens the local database."""
    here = place()
    with guard():
        where = client().get_run(run_id).info.experiment_id
    path = f"#/experiments/{where}/runs/{run_id}"
    if here.remote:
        return f"{(os.environ.get(PUBLIC) or here.shown).rstrip('/')}/{path}"
    return f"mlflow ui --backend-store-uri {quote(here.shown)}, then http://127.0.0.1:5000/{path}"


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _search_runs(experiments: Sequence[str], query: str) -> Iterator[Any]:
    token = None
    while True:
        page = client().search_runs(list(experiments), query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _read_artifact(run_id: str, name: str) -> str:
    from mlflow.artifacts import download_artifacts

    with guard(), fluent(), tempfile.TemporaryDirectory() as folder:
        file = Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder))
        return file.read_text(encoding="utf-8")


def _finish_quietly(run_id: str, status: Status) -> None:
    """End a run while another error is on its way, which must not be replaced by MLflow's."""
    try:
        finish(run_id, status)
    except Exception as error:  # noqa: BLE001 - told, and the first error is raised
        logger.warning("run %s could not be ended as %s: %s", run_id, status, error)


def _end_orphans(where: str) -> None:
    """End this host's runs whose process died without a chance to do it, as by `kill -9`."""
    host = socket.gethostname().replace("'", "")
    query = f"attributes.status = 'RUNNING' and tags.`plumbline.host` = '{host}'"
    for found in client().search_runs([where], query):
        pid = found.data.tags.get("plumbline.pid", "")
        if pid.isdecimal() and not is_alive(int(pid)):
            with suppress(TrackingError):  # somebody else's, which this user may not change
                tag(found.info.run_id, {"plumbline.ended": f"process {pid} on {host} died; ended by a later run"})
                finish(found.info.run_id, "FAILED")


def _readme(card: str) -> Any:
    from huggingface_hub import ModelCard

    text = card or "Aligned by Plumbline; the run's model_card.md says how."
    where = "The folder `model/` beside this file is a `save_pretrained` folder, its tokenizer included."
    return ModelCard(f"---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n{text}\n\n{where}")


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(value, MAX_TAG) for name, value in tags.items() if value}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
