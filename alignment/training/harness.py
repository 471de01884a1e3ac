"""What the three trainers share: one set of arguments, progress, and checkpoints that hold no pickle."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainingArguments

from alignment.environment import configuration_alone
from alignment.errors import Interrupted, TrainingError
from alignment.models import using
from alignment.stages.store import write_json

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total); it raises Interrupted to stop the work

PATIENCE = 10.0  # seconds that an interrupted training goes on to reach a step that is logged


class SafeTrainer(Trainer):
    """A `transformers.Trainer` whose checkpoints are safetensors and JSON only.

    Random state is not kept: dropout is off or its draws need not repeat, and the data's order comes from the seed.
    The end of a training is no checkpoint: resumed from there, `Trainer` would take a step more. A training whose
    progress function raises Interrupted does keep one, and `train` then raises that. What the environment says of
    precision or of other processes is not used.
    """

    named = "the model"
    """How errors name what is trained."""

    _kept: Interrupted | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `Trainer` takes."""
        with configuration_alone():
            super().__init__(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer` does, to the end or to the interruption."""
        with configuration_alone():
            outcome = super().train(*args, **kwargs)
        if self._kept is not None:
            raise self._kept
        return outcome

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Forward and backward of one batch; raises ModelError where the model's code cannot do it."""
        with using(self.named, "training"):
            return super().training_step(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        callbacks = self.callback_handler.callbacks
        interrupted = next((found.interrupted for found in callbacks if isinstance(found, ReportProgress)), None)
        if self.control.should_training_stop:
            self._kept = interrupted
        if not self.control.should_training_stop or interrupted is not None:
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        pass

    def _load_rng_state(self, checkpoint: str | None) -> None:
        pass

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = self.optimizer.state_dict()
        tensors: dict[str, torch.Tensor] = {}
        plain: dict[str, dict[str, Any]] = {}
        for index, values in state["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
                else:
                    plain.setdefault(str(index), {})[name] = value
        save_file(tensors, Path(output_dir) / "optimizer.safetensors")
        write_json(
            Path(output_dir) / "optimizer.json",
            {"groups": state["param_groups"], "plain": plain, "scheduler": self.lr_scheduler.state_dict()},
        )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = json.loads((Path(checkpoint) / "optimizer.json").read_text(encoding="utf-8"))
        state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in saved["plain"].items()}
        for name, tensor in load_file(Path(checkpoint) / "optimizer.safetensors").items():
            index, _, field = name.partition(".")
            state.setdefault(int(index), {})[field] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
        self.lr_scheduler.load_state_dict(saved["scheduler"])

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self.model.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict)


class ReportProgress(TrainerCallback):
    """Reports each step, and stops a training that is interrupted, or whose loss is no longer finite."""

    def __init__(self, progress: Progress | None) -> None:
        """`progress` hears of each step as it ends."""
        self.progress = progress
        self.interrupted: Interrupted | None = None
        self._since = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report `(steps done, steps in all)`, and have the last step logged whatever the interval.

        An interruption is taken at the next step that is logged, so that the resumed run logs what an undisturbed one
        does, or at once where that is too far. A training that reaches its end meanwhile is not interrupted.
        """
        control.should_log |= state.global_step == state.max_steps
        try:
            if self.progress is not None and self.interrupted is None:
                self.progress(state.global_step, state.max_steps)
        except Interrupted as interrupted:
            self.interrupted, self._since = interrupted, time.monotonic()
        if state.global_step == state.max_steps:
            self.interrupted = None
        logged = state.global_step % args.logging_steps == 0
        if self.interrupted is not None and (logged or time.monotonic() - self._since > PATIENCE):
            control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Raise TrainingError where the logged loss is NaN or infinite."""
        loss = (logs or {}).get("loss", 0.0)
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(f"training diverged: loss {loss} at step {state.global_step}; lower the learning rate")


def arguments(
    work: Path,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    log_every: int,
    checkpoint_every: int,
    **others: Any,
) -> TrainingArguments:
    """Training arguments with everything that talks to the outside switched off.

    Checkpoints fall on logging steps (the interval is rounded up), so a resumed run logs what an undisturbed one does.
    """
    interval = -(-checkpoint_every // log_every) * log_every
    with configuration_alone():
        made = TrainingArguments(
            output_dir=str(work),
            seed=seed,
            data_seed=seed,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            logging_steps=log_every,
            logging_nan_inf_filter=False,  # it would hide a loss that is not finite behind the mean of those before it
            save_strategy="steps" if interval < steps else "no",
            save_steps=interval,
            save_total_limit=1,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            **others,
        )
    made._n_gpu = min(made.n_gpu, 1)  # where several GPUs are seen, `Trainer` would split each batch by nn.DataParallel
    return made


def resume_point(work: Path) -> str | None:
    """The last whole checkpoint below a work folder, or None; those after it are torn, and deleted."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda found: int(found.name.rpartition("-")[2]), reverse=True):
        if _is_whole(folder):
            return str(folder)
        logger.warning("%s is not whole and is deleted; training goes on from what came before it", folder)
        shutil.rmtree(folder)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Whether every part is there and not cut off: a crash of the machine can leave files empty or missing."""
    weights = list(checkpoint.glob("model*.safetensors"))
    try:
        for name in ("trainer_state.json", "optimizer.json", *(file.name for file in checkpoint.glob("*.index.json"))):
            content = json.loads((checkpoint / name).read_text(encoding="utf-8"))
            weights += [checkpoint / shard for shard in content.get("weight_map", {}).values()]
        for file in {checkpoint / "optimizer.safetensors", *weights}:
            with safe_open(file, "pt"):  # its header names the length that the file must have
                pass
    except (OSError, ValueError, AttributeError, SafetensorError):
        return False
    return bool(weights)
