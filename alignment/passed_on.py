"""The environment variables that a process which computes gets from the one that starts it."""

import os
import re

NOT_PASSED_ON = re.compile(r"(PREFECT|MLFLOW)_.*|PLUMBLINE_WEBHOOK.*|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_.*")
"""Variables that a computation has no use for, such as the servers' passwords."""


def passed_on() -> dict[str, str]:
    """The variables of this process, but for those."""
    return {name: value for name, value in os.environ.items() if not NOT_PASSED_ON.fullmatch(name)}
