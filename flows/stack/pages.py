"""The pages of Prefect that we link to."""

from flows.stack.processes import call

FIRST_STEPS_KEY = "first-steps"


def deployments_page(prefect: str) -> str:
    """What can be started."""
    return f"{prefect}/deployments"


def first_steps_page(prefect: str) -> str:
    """What a newcomer reads first, or the list of all artifacts where no bootstrap made it.

    Raises OSError if Prefect does not answer.
    """
    wanted = {"artifacts": {"key": {"any_": [FIRST_STEPS_KEY]}}, "limit": 1}
    found = call("POST", f"{prefect}/api/artifacts/filter", wanted)
    return f"{prefect}/artifacts/artifact/{found[0]['id']}" if found else f"{prefect}/artifacts"
