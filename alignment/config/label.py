"""What sets a run apart, in a few words: its name in Prefect and MLflow, and a point's name in a sweep."""

from alignment.config.whole import AlignConfig


def label(config: AlignConfig) -> str:
    """The settings that people compare runs by, as in `hinge, beta 0.5, lr 0.0003`."""
    dpo = config.dpo
    trainer = "" if dpo.trainer == "dpo" else f"{dpo.trainer}, "
    return f"{trainer}{dpo.objective}, beta {dpo.beta:g}, lr {dpo.learning_rate:g}"
