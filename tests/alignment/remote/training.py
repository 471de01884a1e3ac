"""A stage of seconds, as another process computes it too: DPO of a tiny model, with a checkpoint every four steps."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from alignment.remote.store import RemoteStore
from alignment.stages.store import StageRef
from tests.alignment.training.small import make_config, make_pairs, train

STAGE, KEY = "policy", "k1"
STEPS = 24


def compute(store: RemoteStore, progress: Callable[[int, int], None]) -> StageRef:
    """Train it, or go on where it stands; its weights are the stage."""

    def fill(out: Path) -> dict[str, int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2))
        pairs = make_pairs(model.eval(), 10)
        train(model, pairs, make_config(steps=STEPS), store.work(STAGE, KEY), progress=progress)
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, out / "model.safetensors")
        return {"steps": STEPS}

    with store.lock(STAGE, KEY):
        ref = store.write(STAGE, KEY, fill)
        store.clear_work(STAGE, KEY)
    return ref
