"""The pages of Prefect that we link to."""

from flows.stack.processes import call

FIRST_STEPS_KEY = "first-steps"


def deployments_page(prefect: str) -> str:
    """What can be started."""
    return f"{prefect}/deployments"


def first_steps_page(prefect: str) -> str:
    """What a newcomer reads first, as the bootstrap made it. Raises OSError if Prefect does not answer, or has none."""
    made = call("GET", f"{prefect}/api/artifacts/{FIRST_STEPS_KEY}/latest", None)
    return f"{prefect}/artifacts/artifact/{made['latest_id']}"


def run_page(prefect: str, run: str) -> str:
    """A flow run, by its id."""
    return f"{prefect}/runs/flow-run/{run}"
