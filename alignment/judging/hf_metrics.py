"""The metrics of columns as `evaluate.Metric` classes, made from their declarations.

Importing this module imports `evaluate`, which takes seconds: import it inside the function that needs it. The classes
are instantiated directly, since `evaluate.load` asks the hub. Each takes batches by `add_batch` and whole columns by
`compute`, named as the parameters of the metric's function, and returns plain floats under the metric's name.
"""

from pathlib import Path
from typing import Any

import evaluate
from datasets import Features, List, Value

from alignment.judging.metric import Metric, metrics

COLUMNS: dict[str, tuple[Any, str]] = {
    "completions": (List(Value("int64")), "the samples' token ids, EOS included, one list of integers each"),
    "lengths": (Value("int64"), "the samples' lengths in tokens, EOS included"),
    "rewards": (Value("float64"), "the samples' rewards"),
    "base_logprobs": (Value("float64"), "the samples' summed log-probs in nats under the base model"),
    "policy_logprobs": (Value("float64"), "the samples' summed log-probs in nats under the model that wrote them"),
    "finished": (Value("bool"), "whether the sample ended by EOS"),
    "texts": (Value("string"), "the samples' whole texts"),
    "prompt_ids": (Value("string"), "the ids of the samples' prompts"),
}
JUDGED = (Value("float64"), "a figure of the judge for each sample")


class ColumnMetric(evaluate.Metric):
    """An `evaluate.Metric` of a declared metric; it keeps its columns in memory, unless told `keep_in_memory=False`."""

    def __init__(self, metric: Metric, *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        """Every other argument is upstream's: `cache_dir`, `num_process`, `process_id`, `experiment_id`, ..."""
        self.metric = metric
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        columns = {name: COLUMNS.get(name, JUDGED) for name in self.metric.inputs}
        inputs = "".join(f"    {name}: {what}.\n" for name, (_, what) in columns.items())
        better = f" The {self.metric.better}, the better." if self.metric.better else ""
        return evaluate.MetricInfo(
            description=f"{self.metric.name}: {self.metric.compute.__doc__}{better}",
            citation="",
            inputs_description=f"Args:\n{inputs}",
            features=Features({name: kind for name, (kind, _) in columns.items()}),
        )

    def _compute(self, **columns: Any) -> dict[str, float]:
        return {self.metric.name: self.metric.compute(**columns)}

    def _build_data_dir(self) -> str:
        """The folder of the cache files; upstream makes one, by default under HOME, even where all stays in memory."""
        return str(self._data_dir_root if self.keep_in_memory else super()._build_data_dir())

    def _finalize(self) -> None:
        """Close the columns; upstream ends in an IndexError where they are empty."""
        if not len(self) and self.num_process == 1:
            raise ValueError(f"{self.metric.name}: no samples to measure")
        super()._finalize()


def all_metrics(cache_dir: Path | None = None) -> dict[str, evaluate.Metric]:
    """One of each metric of columns by its name; with a `cache_dir` the columns wait in files there."""
    where: dict[str, Any] = {} if cache_dir is None else {"keep_in_memory": False, "cache_dir": str(cache_dir)}
    # upstream calls a metric as its class is called
    declared = [*metrics("model"), *metrics("aligned")]
    return {metric.name: type(metric.name, (ColumnMetric,), {})(metric, **where) for metric in declared}
