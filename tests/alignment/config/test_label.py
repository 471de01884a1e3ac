"""A run's name: what people compare runs by."""

import pytest

from alignment.config import build_config
from alignment.config.label import label


@pytest.mark.parametrize(
    ("dpo", "name"),
    [
        ({}, "hinge, beta 0.5, lr 0.0003"),
        ({"loss": "sigmoid", "beta": 1, "learning_rate": 1e-5}, "sigmoid, beta 1, lr 1e-05"),
        ({"divergence": "forward_kl"}, "hinge under forward_kl, beta 0.5, lr 0.0003"),
        ({"divergence": "alpha", "divergence_alpha": 0.3}, "hinge under alpha 0.3, beta 0.5, lr 0.0003"),
        ({"divergence": "reverse_kl", "divergence_alpha": 0.3}, "hinge, beta 0.5, lr 0.0003"),
    ],
)
def test_a_run_is_named_by_its_loss_and_divergence_beta_and_learning_rate(dpo: dict[str, object], name: str) -> None:
    assert label(build_config({"dpo": dpo})) == name
