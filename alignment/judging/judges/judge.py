"""The protocol of a judge, and the judge that judges nothing."""

from collections.abc import Callable, Mapping, Sequence

from alignment.kinds import JUDGES, registers

Judge = Callable[[Sequence[str]], Mapping[str, Sequence[float]]]
"""From N texts to figures by name, each with N values; they label nothing, and never decide what is trained on."""


def judge(name: str) -> Callable[[Judge], Judge]:
    """Register a judge under the name that `evaluation.judge` takes."""
    return registers(JUDGES, name)


@judge("none")
def none(_: Sequence[str]) -> Mapping[str, Sequence[float]]:
    """No figures."""
    return {}
