"""Stage `texts`: labelled texts from the grammar, a file or the hub."""

from alignment.errors import DataError
from alignment.rows import LABELS, TEXTS
from alignment.stages.job import Counts, Job
from alignment.stages.sources import data_source, wanted_rows
from alignment.stages.stage import stage
from alignment.stages.store import digest, write_json


@stage(
    title="load texts",
    needs=(),
    reads=data_source,
    makes=lambda c: f"up to {c.data.rows:,} texts" if c.data.rows else "all texts",
    libraries=("datasets", "pyarrow", "numpy"),
)
def texts(job: Job) -> Counts:
    """Rows with their labels, and what the label column holds. Raises DataError where a file changes meanwhile."""
    from alignment.data.texts import load_texts

    rows, counts, labels = load_texts(
        job.config.data, job.config.seed, cache=job.scratch, wanted=wanted_rows(job.config)
    )
    if digest(data_source(job.config)) != digest(job.read):
        raise DataError(f"data.path {job.config.data.path}: a file changed while it was read; run again")
    TEXTS.write(job.out, rows)
    write_json(job.out / LABELS, labels.model_dump())
    return counts
