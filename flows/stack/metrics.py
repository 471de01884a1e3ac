"""What the stages of a home did, as Prometheus reads it."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from tasks.metering import counted

METRICS = {
    "computed": ("plumbline_stage_computed", "Stages that were computed."),
    "found": ("plumbline_stage_found", "Stages that the store had already."),
    "failed": ("plumbline_stage_failures", "Tries of a stage that an error ended."),
    "seconds": ("plumbline_stage_seconds", "Seconds that computed stages took, all their parts together."),
    "waits": ("plumbline_slot_waits", "Waits for a GPU slot or a device that are over."),
    "wait_seconds": ("plumbline_slot_wait_seconds", "Seconds of these waits."),
}


class StageMetrics(Collector):
    """The counts of this home, read anew at each scrape."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """A counter for each metric, by stage."""
        found = counted()
        for metric, (name, text) in METRICS.items():
            family = CounterMetricFamily(name, text, labels=["stage"])
            for stage, amount in sorted(found.get(metric, {}).items()):
                family.add_metric([stage], amount)
            yield family
