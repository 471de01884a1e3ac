"""What the reward `function` keeps before it scores: which code it is, so that no other code scores for it."""

from alignment.rewards.function_file import function_file, load
from alignment.rewards.protocol import reward_model
from alignment.stages.job import Counts, Job
from alignment.stages.store import write_json

CODE = "function.json"


@reward_model("function", model=False)
def function_model(job: Job) -> Counts:
    """The hash of the function's file, once it is known to load. Raises ConfigError where it does not."""
    name = job.config.reward.function
    load(name)
    file = function_file(name)
    if file is not None:
        write_json(job.out / CODE, {"code": file.code, "files": sorted(file.sources)})
    return {"files": len(file.sources) if file else 0}
