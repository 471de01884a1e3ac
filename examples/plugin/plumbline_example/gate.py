"""The gate `exclamations`: a model most of whose texts shout is not registered."""

from alignment.config import GatesConfig
from alignment.judging.gates import Reading, gate
from alignment.judging.report import EvalReport


@gate("exclamations", "fraction of texts that shout")
def exclamations(report: EvalReport, config: GatesConfig) -> Reading:
    """The metric of the same name, at most `gates.exclamations.most`."""
    most = config.exclamations.most  # type: ignore[attr-defined] # a field that this package brings
    return report.aligned.exclamations, None, most, "the texts shout"
