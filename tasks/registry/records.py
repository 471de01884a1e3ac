"""What a run records in MLflow, written and read again: metrics, datasets, plots, texts, evaluation and lineage."""

import json
import math
import re
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.errors import TrackingError
from alignment.judging.headline import headlines
from alignment.judging.records import read_config, read_report, read_samples
from alignment.judging.report import EvalReport, Judgement, Record, SampleRow
from alignment.stages.store import StageRef, digest
from tasks.registry.connection import client, error_code, fluent, guard
from tasks.registry.notes import result
from tasks.registry.runs import conclude, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from alignment.judging.evaluated import Evaluated
    from alignment.parquet import Table

MAX_DIGEST = 36  # characters of a dataset's digest
METRICS_PER_CALL = 1_000
TAGS_PER_CALL = 100
REWARDS, RESULT, TRAINING = "Implicit rewards/", "Result/", "Training/"
"""The groups of metrics that people look at first: MLflow sorts groups by code point, so capitals come first."""
REPORT = "report.json"
SAMPLES_TABLE = "samples.json"
USED_PROMPTS = "prompts/used.txt"
SAMPLES = "evaluation/samples.parquet"
"""Every sample of the evaluation, as `alignment.judging.evaluated` has it."""
PLOTS = "plots"


def log_history(run_id: str, rows: Iterable[Mapping[str, float]]) -> None:
    """Metrics by step: each row holds `step` and any number of metrics. One request for up to 1,000 values.

    A value that is not finite is stored as NaN, which leaves a gap in the plot, and is named with its step in the
    tag `plumbline.not_finite.<metric>`, because MLflow stores infinities as 1.8e308.
    """
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1_000)
    values = ((key, float(value), int(row["step"])) for row in rows for key, value in row.items() if key != "step")
    with guard():
        while chunk := list(islice(values, METRICS_PER_CALL)):
            broken = {key: f"{value} at step {step}" for key, value, step in chunk if not math.isfinite(value)}
            client().log_batch(
                run_id,
                metrics=[
                    Metric(key, value if math.isfinite(value) else math.nan, now, step) for key, value, step in chunk
                ],
                tags=[
                    RunTag(f"plumbline.not_finite.{key}", text) for key, text in list(broken.items())[:TAGS_PER_CALL]
                ],
            )


def complete_history(run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Log the rows whose steps the run does not have yet, as after a resumed training or an outage of MLflow."""
    if not rows:
        return
    key = min(rows[0].keys() - {"step"})
    with guard():
        held = {item.step for item in client().get_metric_history(run_id, key)}
    log_history(run_id, [row for row in rows if int(row["step"]) not in held])


def in_training(row: Mapping[str, float]) -> dict[str, float]:
    """A row of a training under the names that its metrics have in MLflow."""
    return {name if name == "step" else curve(name): value for name, value in row.items()}


def curve(name: str) -> str:
    """A training's metric as MLflow names it: the rewards, which show whether it learns, are a group of their own."""
    return f"{REWARDS}{name.removeprefix('rewards/')}" if name.startswith("rewards/") else f"{TRAINING}{name}"


def log_evaluation(run_id: str, report: EvalReport, judgement: Judgement) -> None:
    """The final metrics: the few figures under `Result/`, with the verdict as 1 or 0, then every one of them.

    Those are under `base/`, `aligned/`, `delta/`, `drift/`, `preferences/`, `real_texts/` and `evaluation/`; gates are
    1 or 0 too.
    The mean score of the aligned model's samples is `reward/<part>` for each part of a sum, and `gold/<name>` for each
    judge that labels nothing; `_base`, `_gain`, `_gain_low` and `_gain_high` follow the name for the others. What was
    not judged (None) is left out. The verdict and its sentence become tags.
    """
    values: dict[str, float] = {
        f"{RESULT}{each.name}": float(f"{each.value:.4g}")  # MLflow's table shows every digit; `delta/` has them all
        for each in headlines(report)
    }
    values |= {
        f"{RESULT}passed": float(judgement.verdict == "pass"),
        "evaluation/prompts": report.prompts,
        "evaluation/samples_per_prompt": report.samples_per_prompt,
        "evaluation/unscored_base": report.unscored_base,
        "evaluation/unscored_aligned": report.unscored_aligned,
    }
    if report.winners_mean is not None:
        values["evaluation/winners_mean"] = report.winners_mean
    for group, found in (("reward", report.parts), ("gold", report.gold)):
        for each in found:
            stem = f"{group}/{each.name}"
            values |= {stem: each.aligned_mean, f"{stem}_base": each.base_mean, f"{stem}_gain": each.gain}
            values |= {f"{stem}_gain_low": each.gain_ci[0], f"{stem}_gain_high": each.gain_ci[1]}
    records: dict[str, Record | None] = {
        "base": report.base,
        "aligned": report.aligned,
        "delta": report.delta,
        "drift": report.drift,
        "preferences": report.preferences,
        "real_texts": report.real_texts,
    }
    for side, record in ((side, record) for side, record in records.items() if record is not None):
        for name, value in record.model_dump().items():
            if isinstance(value, tuple):
                stem = f"{side}/{name.removesuffix('_ci')}"
                values |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
            elif value is not None:
                values[f"{side}/{name}"] = value
    for task in report.tasks:
        values |= {f"task/{task.task}": task.aligned, f"task/{task.task}_base": task.base}
    values |= {f"gate/{gate.name}": float(gate.passed) for gate in judgement.gates}
    log_history(run_id, [{"step": 0, **values}])
    conclude(run_id, judgement.verdict, judgement.sentence, told=result(report, judgement))


def log_counts(run_id: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """What each stage kept and dropped, as metrics `counts/<stage>/<name>`."""
    log_history(
        run_id,
        [
            {"step": 0}
            | {f"counts/{stage}/{name}": float(n) for stage, found in counts.items() for name, n in found.items()}
        ],
    )


def log_dataset(run_id: str, folder: Path, table: "Table[Any]", name: str, context: str, digest: str) -> None:
    """Log a table of a stage as an input of the run: its schema, size, place and digest, without its rows.

    Its place is its file, or the stage's folder where it has several. MLflow shows the digest's first 36 characters;
    the whole one is the tag `digest` of the input.
    """
    import pyarrow.parquet as parquet
    from mlflow.entities import Dataset, DatasetInput, InputTag

    files = table.files(folder)
    columns = [
        {"name": field.name, "type": str(field.type), "required": not field.nullable}
        for field in parquet.read_schema(files[0])
    ]
    profile = {"num_rows": table.count(folder), "num_bytes": sum(file.stat().st_size for file in files)}
    place = files[0] if len(files) == 1 else folder
    dataset = Dataset(
        name=name,
        digest=digest[:MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": str(place.absolute())}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile),
    )
    tags = [InputTag("mlflow.data.context", context), InputTag("digest", digest)]
    with guard():
        client().log_inputs(run_id, [DatasetInput(dataset, tags)])


def log_used_prompts(run_id: str, name: str, prompt_ids: Sequence[str]) -> None:
    """Record which prompts a policy of the registered model `name` was trained on, for the rounds that follow."""
    log_text(run_id, USED_PROMPTS, "\n".join(prompt_ids) + "\n")
    tag(run_id, {"plumbline.model_name": name, "plumbline.prompts": digest(list(prompt_ids))[:20]})


def log_figures(run_id: str, figures: Mapping[str, "Figure"]) -> None:
    """Log figures as `plots/<name>.png`."""
    with guard():
        for name, figure in figures.items():
            client().log_figure(run_id, figure, f"{PLOTS}/{name}.png")


def log_samples_table(run_id: str, rows: Sequence[SampleRow]) -> None:
    """Log sample texts before and after as the table `samples.json`, which MLflow shows side by side, once."""
    import pandas

    with guard():
        if all(item.path != SAMPLES_TABLE for item in client().list_artifacts(run_id)):  # MLflow would add the rows
            client().log_table(
                run_id, pandas.DataFrame([row.model_dump() for row in rows], dtype=object), SAMPLES_TABLE
            )


def log_evaluated(run_id: str, found: "Evaluated") -> None:
    """Log every sample of the evaluation as a table."""
    import pyarrow.parquet as parquet

    from alignment.judging.evaluated import with_facts

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(SAMPLES).name
        parquet.write_table(with_facts(found), file, compression="zstd")
        log_file(run_id, file, str(Path(SAMPLES).parent))


def read_evaluated(run_id: str) -> "Evaluated | None":
    """The same, read again; None where the run recorded none, as one of an older release.

    Raises RecordError where it is none, or of a newer release.
    """
    import pyarrow.parquet as parquet

    from alignment.judging.evaluated import read

    try:
        with _downloaded(run_id, SAMPLES) as file:
            return read(parquet.read_table(file), f"{SAMPLES} of run {run_id}")
    except TrackingError as error:
        if not is_missing(error):
            raise
        return None


def log_text(run_id: str, name: str, text: str) -> None:
    """Log a text as the artifact `name`."""
    with guard():
        client().log_text(run_id, text, name)


def log_json(run_id: str, name: str, value: Any) -> None:
    """Log a JSON value as the artifact `name`."""
    log_text(run_id, name, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def log_file(run_id: str, path: Path, folder: str | None = None) -> None:
    """Log a file as an artifact, below `folder`."""
    with guard():
        client().log_artifact(run_id, str(path), folder)


def read_record(run_id: str, groups: Collection[str]) -> tuple[AlignConfig, EvalReport, list[SampleRow]]:
    """What a judged run of this release or an older one recorded: some groups of its configuration, report and samples.

    Raises TrackingError if the run does not exist, or ended before it was judged; RecordError if a part cannot be read,
    NewerRecordError if a newer release wrote it.
    """
    report = read_report(read_artifact(run_id, REPORT), f"{REPORT} of run {run_id}")
    samples = read_samples(read_artifact(run_id, SAMPLES_TABLE))
    return read_config(read_artifact(run_id, "config.yaml"), groups), report, samples


def read_lineage(run_id: str) -> dict[str, StageRef]:
    """The finished stages of a judged run, by name; empty if it recorded none."""
    try:
        found = json.loads(read_artifact(run_id, "lineage.json"))
    except TrackingError as error:
        if not is_missing(error):
            raise
        return {}
    return {name: StageRef.model_validate(ref) for name, ref in found.items()}


def read_plots(run_id: str) -> dict[str, bytes]:
    """The figures of a run as PNG images, by name; empty if it has none."""
    from mlflow.artifacts import download_artifacts

    with guard():
        files = [item.path for item in client().list_artifacts(run_id, PLOTS) if item.path.endswith(".png")]
    found = {}
    with guard(), fluent(), tempfile.TemporaryDirectory() as folder:
        for name in files:
            file = Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder))
            found[file.stem] = file.read_bytes()
    return found


def used_prompts(name: str) -> set[str]:
    """The prompts that judged runs of the registered model `name` were trained on.

    A judged run that died before its end does not count, since it uses the same prompts when it is started again;
    it does count if it had registered its model.
    """
    found: dict[str, set[str]] = {}
    with guard():
        everywhere = [item.experiment_id for item in client().search_experiments()]
        for run in _search_runs(everywhere, f"tags.`plumbline.model_name` = '{name}'"):
            key = run.data.tags.get("plumbline.prompts", "")
            counts = run.info.status == "FINISHED" or "plumbline.registered" in run.data.tags
            if counts and key and key not in found:
                found[key] = set(read_artifact(run.info.run_id, USED_PROMPTS).split())
    return set().union(*found.values())


def has_artifact(run_id: str, name: str) -> bool:
    """Whether a run has an artifact of this name, in no folder."""
    with guard():
        return any(item.path == name for item in client().list_artifacts(run_id))


def is_missing(error: TrackingError) -> bool:
    """Whether MLflow answered that there is no such run or file, and did not fail for another reason."""
    cause = error.__cause__
    if cause is None or error.transient:
        return False
    codes = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
    return error_code(cause) in codes or bool(re.search(r"No such (file|artifact)|\b404\b", str(cause)))


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


def read_artifact(run_id: str, name: str) -> str:
    """The text of an artifact. Raises TrackingError where there is none; `is_missing` tells that from a failure."""
    with _downloaded(run_id, name) as file:
        return file.read_text(encoding="utf-8")


@contextmanager
def _downloaded(run_id: str, name: str) -> Iterator[Path]:
    """An artifact as a file for as long as it is read."""
    from mlflow.artifacts import download_artifacts

    with guard(), fluent(), tempfile.TemporaryDirectory() as folder:
        yield Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder))
