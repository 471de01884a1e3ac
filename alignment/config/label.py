"""What sets a run apart, in a few words: its name in Prefect and MLflow, and a point's name in a sweep."""

from alignment.config.policy import DPOConfig, has_alpha
from alignment.config.whole import AlignConfig


def label(config: AlignConfig) -> str:
    """The settings that people compare runs by, as in `hinge, beta 0.5, lr 0.0003`."""
    dpo = config.dpo
    trainer = "" if dpo.trainer == "dpo" else f"{dpo.trainer}, "
    return f"{trainer}{objective(dpo)}, beta {dpo.beta:g}, lr {dpo.learning_rate:g}"


def objective(dpo: DPOConfig) -> str:
    """The loss, with the divergence where it is not DPO's own, as in `hinge under alpha 0.3`."""
    alpha = f" {dpo.divergence_alpha:g}" if has_alpha(dpo) else ""
    return dpo.loss if dpo.divergence == "reverse_kl" else f"{dpo.loss} under {dpo.divergence}{alpha}"
