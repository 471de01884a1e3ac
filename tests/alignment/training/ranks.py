"""One of several processes that train: `python -m torch.distributed.run ... -m tests.alignment.training.ranks FOLDER`.

The folder has `model`, `pairs.json` and `cases.json`: trainings by name, each with changes of its configuration, the
number of the process that asks for a stop, if one does, or that is killed, and the step. The first process leaves
`NAME.json`, how it ended, and whether what it trained was sharded, and `NAME.safetensors`, the trained weights.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

from alignment.errors import Interrupted, TrainingError
from alignment.training import group, sharding
from tests.alignment.training.small import make_config, train


def compute(folder: Path, name: str, case: dict[str, Any]) -> None:
    """Train, and leave how it ended."""
    model = GPT2LMHeadModel.from_pretrained(folder / "model").eval()
    pairs = json.loads((folder / "pairs.json").read_text())
    if case.get("is_broken"):
        pairs[0]["reference_chosen"] = float("nan")

    def progress(done: int, _: int) -> None:
        if group.rank() == case.get("killed") and done == case["step"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if group.rank() == case.get("stopped") and done >= case["step"]:
            raise Interrupted("asked to")

    ended: dict[str, Any] = {}
    seen: list[bool] = []

    def whole_weights(model: Any) -> dict[str, Any]:
        seen.extend(sharding.is_sharded(weight) for weight in model.parameters())
        return gathered(model)

    gathered, sharding.whole_weights = sharding.whole_weights, whole_weights
    try:
        outcome = train(model, pairs, make_config(**case.get("config", {})), folder / name, progress=progress)
        ended = {"history": outcome.history, "steps": outcome.steps, "stopped_early": outcome.stopped_early}
    except (Interrupted, TrainingError) as error:
        ended = {"error": type(error).__name__}
    finally:
        sharding.whole_weights = gathered
    ended["sharded"] = bool(seen) and all(seen)
    if group.is_first():
        (folder / f"{name}.json").write_text(json.dumps(ended))
        if "error" not in ended:
            weights = {key: value.clone() for key, value in model.state_dict().items()}
            save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    group.join()
    where = Path(sys.argv[1])
    for each, given in json.loads((where / "cases.json").read_text()).items():
        compute(where, each, given)
