"""The pages of Prefect that we link to."""

FIRST_STEPS_KEY = "first-steps"


def deployments_page(prefect: str) -> str:
    """What can be started."""
    return f"{prefect}/deployments"


def first_steps_page(prefect: str) -> str:
    """What a newcomer reads first."""
    return f"{prefect}/artifacts/key/{FIRST_STEPS_KEY}"


def run_page(prefect: str, run: str) -> str:
    """A flow run, by its id."""
    return f"{prefect}/runs/flow-run/{run}"
