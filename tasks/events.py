"""The names of the events that this project emits or waits for, and of the resource that they are about."""

CHAMPION_CHANGED = "plumbline.champion.changed"
PROMOTION_REVERTED = "plumbline.promotion.reverted"
DATA_ARRIVED = "plumbline.data.arrived"


def model_resource(name: str) -> dict[str, str]:
    """The resource of an event about a registered model."""
    return {"prefect.resource.id": f"plumbline.model.{name}", "prefect.resource.name": name}
