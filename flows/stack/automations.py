"""Makes automations on a Prefect server, again and again, without undoing what people did to them."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Automation, AutomationCore

from flows.stack.changes import Change


def apply_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Change:
    """Make an automation, or bring the one of its name up to date; one that a person disabled stays disabled."""
    what = f"automation {wanted.name!r}"
    found = client.read_automations_by_name(wanted.name)
    for double in found[1:]:
        client.delete_automation(double.id)
    if not found:
        client.create_automation(wanted)
        return Change("made", what)
    if _content(found[0]) == _content(wanted):
        return Change("left", what, "" if found[0].enabled else "disabled")
    # an update sends what was set alone, and the server refuses one without the rest, or with an owner
    whole = wanted.model_dump(exclude={"owner_resource"}) | {"enabled": found[0].enabled}
    client.update_automation(found[0].id, AutomationCore.model_validate(whole))
    return Change("changed", what)


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    dumped: dict[str, Any] = automation.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    trigger = dumped["trigger"]
    trigger.pop("id", None)
    for name in ("after", "expect", "for_each"):
        trigger[name] = sorted(trigger[name])
    return dumped
