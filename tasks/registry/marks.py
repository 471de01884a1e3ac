"""A version's tags: six that people read, and one that holds the rest as JSON, for machines.

What Plumbline remembers has names with a dot, as in `promotion.decision`. Older releases wrote each as a tag of its
own, which is read as before; the next write moves all of them into the one tag.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

TAG = "plumbline"
"""The tag that holds what Plumbline remembers."""
GROUPS = ("plumbline.", "gate.", "promotion.", "smoke.")
"""How the names begin of what Plumbline remembers."""
MAX_VALUE = 4_000  # characters of one value; MLflow takes 100,000 for all together
MAX_HISTORY = 20_000  # of the decisions, of which the oldest go first

KEY, KIND = "plumbline.key", "plumbline.kind"
JUDGED, SENTENCE = "plumbline.verdict", "plumbline.sentence"
"""What the gates made of it, `pass` or `fail`, and in words."""
JUDGED_AGAIN = "plumbline.judged_again"
"""The refusal of a later run, whose gates the same policy did not pass."""
REWARD = "plumbline.reward"
GATE = "gate."
DECISION, REASON, APPROVER, TIME, BEFORE, HISTORY = (
    f"promotion.{name}" for name in ("decision", "reason", "approver", "time", "previous", "history")
)
"""The last decision on it, why, by whom, when, on which champion, and the decisions before, one a line."""
BY_HAND = "by hand in MLflow"
SMOKE_VERDICT, SMOKE_REWARD, SMOKE_TIME = "smoke.verdict", "smoke.reward", "smoke.time"

VERDICT, BASE, DATA = "verdict", "base", "data"
PASSED, REFUSED, REFUSED_SINCE, IS_ANCHOR = "passed", "refused", "refused since", "anchor"
FIGURES = {
    "reward_gain": "gain",
    "win_rate": "win rate",
    "preference_accuracy": "accuracy",
    "kl_per_token": "KL",
}
"""The headlines that people see as tags, and under which names."""


@dataclass(frozen=True)
class Change:
    """What to set on a version, and the tags of an older release to remove then."""

    values: Mapping[str, str]
    outdated: tuple[str, ...] = field(default=())


def read(tags: Mapping[str, str]) -> dict[str, str]:
    """Every tag by its name, whether it is one of its own or in the one that holds the rest; that one is left out."""
    held = _held(tags.get(TAG, ""))
    if held is None:
        return {name: value for name, value in tags.items() if name != TAG}
    return {name: value for name, value in tags.items() if not is_ours(name) and name != TAG} | held


def change(tags: Mapping[str, str], wanted: Mapping[str, str]) -> Change:
    """How to set `wanted` on a version that has `tags`; an empty value takes one away from what Plumbline remembers."""
    held = {name: value for name, value in read(tags).items() if is_ours(name)}
    held |= {name: _cut(name, value) for name, value in wanted.items() if is_ours(name)}
    text = json.dumps({name: value for name, value in held.items() if value}, ensure_ascii=False, separators=(",", ":"))
    others = {name: value for name, value in wanted.items() if not is_ours(name)}
    return Change({**others, TAG: text}, tuple(name for name in tags if is_ours(name)))


def query(name: str, value: str) -> tuple[str, str]:
    """Two filters of MLflow's search for versions with this value: in the one tag, and as an older release wrote it.

    MLflow compares with LIKE, in which `_` and `%` are wildcards: look at what it finds.
    """
    pair = f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=False)}"
    return f"tags.`{TAG}` LIKE '%{pair}%'", f"tags.`{name}` = '{value}'"


def is_ours(name: str) -> bool:
    """Whether it is a name of what Plumbline remembers."""
    return name.startswith(GROUPS)


def _held(text: str) -> dict[str, str] | None:
    """What the one tag holds; None where there is none, or a person made something else of it."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else None


def _cut(name: str, text: str) -> str:
    if name == HISTORY:
        while len(text) > MAX_HISTORY and "\n" in text:
            text = text.partition("\n")[2]
        return text[:MAX_HISTORY]
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
