"""The columns of an experiment's table of runs: a saved view of MLflow, which a link opens and its list of views names.

MLflow keeps a saved view as a tag of the experiment: JSON with its name and, again as JSON, the state of the page.
"""

import json
import time

KEY = "plumbline"
"""What links name the view by."""
TAG = f"mlflow.sharedViewState.{KEY}"
NAME = "Results"
COLUMNS = {
    "tags.`verdict`": 100,
    "metrics.`Result/reward_gain`": 145,
    "metrics.`Result/win_rate`": 125,
    "metrics.`Result/kl_per_token`": 145,
    "metrics.`Result/perplexity_ratio`": 170,
    "attributes.`Models`": 100,
}
"""As MLflow spells them, kind and name, with their widths in pixels."""


def saved_view(now: float | None = None) -> str:
    """The value of the tag: the columns, in their order."""
    made = int(1_000 * (time.time() if now is None else now))
    return json.dumps({"name": NAME, "createdAt": made, "updatedAt": made, "state": _state()})


def is_outdated(view: str) -> bool:
    """Whether the tag's value is a view of an earlier release, which nobody has changed: MLflow notes when one was."""
    try:
        found = json.loads(view)
        return bool(found["createdAt"] == found["updatedAt"] and found["state"] != _state())
    except (ValueError, TypeError, LookupError):
        return False


def _state() -> str:
    return json.dumps({"selectedColumns": list(COLUMNS), "columnOrder": list(COLUMNS), "columnWidths": COLUMNS})
