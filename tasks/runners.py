"""Which runner computes the shards of a stage: the environment says, since it decides where they run and no result."""

import os
from typing import Literal, cast, get_args

from alignment.errors import ConfigError

Runner = Literal["threads", "ray", "jobs"]
"""The threads of the run's own process; Ray's workers, on this machine or of the cluster at `RAY_ADDRESS`; or jobs.

Jobs are flow runs of the work pool that Prefect's deployments of shards are in.
"""

RUNNER = "PLUMBLINE_RUNNER"
SHARDS_PER_JOB = "PLUMBLINE_SHARDS_PER_JOB"
TAG = "plumbline-shards"
"""The tag of jobs in Prefect, and the only one: people are told of the run that they compute for, and not of them."""
USUAL = 8  # shards of a job: its start and the loading of a model are paid for once


def runner() -> Runner:
    """The runner that `PLUMBLINE_RUNNER` names; threads where it names none. Raises ConfigError for an unknown one."""
    name = os.environ.get(RUNNER) or "threads"
    if name not in get_args(Runner):
        *others, last = get_args(Runner)
        raise ConfigError(f"{RUNNER} {name}: is no runner; set it to {', '.join(others)} or {last}")
    return cast(Runner, name)


def shards_per_job() -> int:
    """How many shards a job computes, one after the other. Raises ConfigError for what is no such number."""
    given = os.environ.get(SHARDS_PER_JOB) or str(USUAL)
    if not given.isascii() or not given.isdigit() or not int(given):
        raise ConfigError(f"{SHARDS_PER_JOB} {given}: is no number of shards; give 1 or more")
    return int(given)
