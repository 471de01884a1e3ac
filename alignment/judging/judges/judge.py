"""The protocol of a judge, and the judge that judges nothing."""

from collections.abc import Callable, Mapping, Sequence

from alignment.config import EvaluationConfig
from alignment.kinds import JUDGES, registers

Judge = Callable[[Sequence[str], EvaluationConfig], Mapping[str, Sequence[float]]]
"""From N texts to figures by name, each with N values; they label nothing, and never decide what is trained on.

A judge of another package reads settings of its own from its own group of fields: `config.<name>`. What becomes of a
figure in the result says a metric of that name, whose parameter it is; it stands in a module of its own, so that
another label does not have the samples drawn again.
"""


def judge(name: str) -> Callable[[Judge], Judge]:
    """Register a judge under the name that `evaluation.judge` takes."""
    return registers(JUDGES, name)


@judge("none")
def none(_: Sequence[str], __: EvaluationConfig) -> Mapping[str, Sequence[float]]:
    """No figures."""
    return {}
