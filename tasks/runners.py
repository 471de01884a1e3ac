"""Which runner computes the shards of a stage: the environment says, since it decides where they run and no result."""

import os
from typing import Literal, cast, get_args

from alignment.errors import ConfigError

Runner = Literal["threads", "ray"]
"""The threads of the run's own process, or Ray's workers: on this machine, or of the cluster at `RAY_ADDRESS`."""

RUNNER = "PLUMBLINE_RUNNER"


def runner() -> Runner:
    """The runner that `PLUMBLINE_RUNNER` names; threads where it names none. Raises ConfigError for an unknown one."""
    name = os.environ.get(RUNNER) or "threads"
    if name not in get_args(Runner):
        raise ConfigError(f"{RUNNER} {name}: is no runner; set it to {' or '.join(get_args(Runner))}")
    return cast(Runner, name)
