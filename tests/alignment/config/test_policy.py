"""The settings of the training: what decides its result, asked without importing a kind."""

from typing import Any

import pytest

from alignment.config import DPOConfig
from alignment.config.policy import has_alpha
from alignment.kinds import DIVERGENCES, Origin


@pytest.mark.parametrize(("options", "reads"), [({}, True), ({"parameter": True}, True), ({"parameter": False}, False)])
def test_a_divergence_of_a_package_may_read_the_alpha_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reads: bool
) -> None:
    """What is registered without a decorator says nothing."""
    monkeypatch.setattr(DIVERGENCES, "_origins", {"theirs": Origin("package.module", "package", "1", options)})
    assert has_alpha(DPOConfig().model_copy(update={"divergence": "theirs"})) is reads


@pytest.mark.parametrize(("name", "reads"), [("alpha", True), ("reverse_kl", False), ("forward_kl", False)])
def test_of_the_built_in_divergences_alpha_alone_reads_it(name: str, reads: bool) -> None:
    assert has_alpha(DPOConfig(divergence=name)) is reads
