"""What the three trainers share: one set of arguments, progress, and checkpoints that hold no pickle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from alignment.errors import TrainingError
from alignment.store import write_json

Progress = Callable[[int, int], None]


class SafeTrainer(Trainer):
    """A `transformers.Trainer` whose checkpoints are safetensors and JSON only.

    Random state is not kept: dropout is off or its draws need not repeat, and the order of the data comes from the seed.
    """

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
    """Reports each step, and stops a training whose loss is no longer finite."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report `(steps done, steps in all)`."""
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Raise TrainingError where the logged loss is NaN or infinite."""
        loss = (logs or {}).get("loss", 0.0)
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(
                f"training diverged: loss {loss} at step {state.global_step}; lower the learning rate or the batch's gap"
            )


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

    Checkpoints fall on logging steps (the interval is rounded up), so that a resumed run logs what an undisturbed one does.
    """
    interval = -(-checkpoint_every // log_every) * log_every
    return TrainingArguments(
        output_dir=str(work),
        seed=seed,
        data_seed=seed,
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        logging_steps=log_every,
        save_strategy="steps" if interval < steps else "no",
        save_steps=interval,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        **others,
    )


def resume_point(work: Path) -> str | None:
    """The last whole checkpoint below a work folder, or None."""
    last = get_last_checkpoint(str(work)) if work.is_dir() else None
    return last if last and (Path(last) / "trainer_state.json").exists() else None
