"""The training harness: `fit` trains a model on rows with one set of arguments, progress, interruption and resuming."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard  # type: ignore[import-untyped]
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from alignment import adapters
from alignment.device import place, products, warn_of_bf16
from alignment.environment import configuration_alone
from alignment.errors import ConfigError, Interrupted, TrainingError
from alignment.models import using
from alignment.training import group
from alignment.training.batches import ROWS, Collated, Shares, accumulation, rows_of
from alignment.training.checkpoints import (
    load_optimizer,
    load_random,
    replacing,
    resume_point,
    save_optimizer,
    save_random,
    steps_done,
)
from alignment.training.sharding import load_weights, shard_anywhere
from alignment.training.tied import added_in_place

Progress = Callable[[int, int], None]  # (done, total); it raises Interrupted to stop the work

PATIENCE = 10.0  # seconds that an interrupted training goes on to reach a step that is logged

OPTIMIZERS = {"adamw": "adamw_torch_fused"}
"""What transformers calls an optimiser; the others are called there as in a configuration."""


@dataclass(frozen=True)
class Settings:
    """In what trainings differ; lengths in optimiser steps.

    A device holds `batch_size` rows at once, at most. A step is made of `step_rows`; 0: of as many.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    log_every: int
    checkpoint_every: int
    optimizer: str = "adamw"
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    sharding: str = "none"
    step_rows: int = 0
    others: Mapping[str, Any] = field(default_factory=dict)
    """More of `transformers.TrainingArguments`, by name."""

    @property
    def rows_of_step(self) -> int:
        """How many rows a step is made of, by all processes together."""
        return self.step_rows or self.batch_size


class SafeTrainer(Trainer):
    """A `transformers.Trainer` whose checkpoints are safetensors and JSON only, of an adapter its own weights alone.

    Torch's random state is kept, so that dropout goes on as if undisturbed; of several processes that of the first, and
    the others begin theirs anew. The data's order comes from the seed. The end of a training is no checkpoint: resumed
    from there, `Trainer` would take a step more. A training whose progress function raises Interrupted does keep one,
    and `train` then raises that. What the environment says of precision or of other processes is not used.

    A step's loss is the mean over its items, however they are split into batches and dealt to processes, of which the
    first alone writes checkpoints.
    """

    loss_is_scaled_for_ga = True

    named = "the model"
    """How errors name what is trained."""

    _kept: Interrupted | None = None
    _writing: Path | None = None

    step_rows = 0
    """The rows of a step; 0: a batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what `Trainer` takes."""
        with configuration_alone():
            super().__init__(*args, **kwargs)

    def create_accelerator_and_postprocess(self) -> None:
        """Have the accelerator shard what is to be sharded, wherever it is trained."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            shard_anywhere(self.accelerator, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> DataLoaderShard:
        """The batches of this process."""
        args, rows = self.args, self.train_dataset
        shares = Shares(
            len(rows),
            step=self.step_rows or args.per_device_train_batch_size,
            size=args.per_device_train_batch_size,
            seed=args.data_seed,
            rank=group.rank(),
            processes=group.size(),
        )
        return DataLoaderShard(
            rows,
            device=args.device,
            batch_sampler=shares,
            collate_fn=Collated(self.data_collator, rows),
            pin_memory=args.dataloader_pin_memory,
            _non_blocking=args.accelerator_config.non_blocking,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[dict[str, Any]], int]:
        """The batches of one step, and the number of items that all processes compute in it."""
        del device
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        items = sum(self.items(batch) for batch in batches)
        return batches, int(group.sum_of_all(torch.tensor(items))) if group.size() > 1 else items

    def items(self, inputs: dict[str, Any]) -> int:
        """How many items the loss of a batch is the mean of: its rows."""
        return int(inputs[ROWS])

    def batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The mean loss of the items of a batch; here the model's own."""
        given = {name: value for name, value in inputs.items() if name != ROWS}
        loss: torch.Tensor = super().compute_loss(model, given, num_items_in_batch=len(given["labels"]))
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Any:
        """One batch's part of the mean over the step's items. Of processes, the mean is taken: hence their number."""
        items, is_rounded = self.items(inputs), self.args.bf16 and self.is_fsdp_enabled
        # of a model that is not sharded, the accelerator sees to it
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=is_rounded, cache_enabled=False):
            loss = self.batch_loss(model, inputs) * (group.size() * items / (num_items_in_batch or items))
        return (loss, {}) if return_outputs else loss

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

    def floating_point_ops(self, _: dict[str, Any]) -> int:
        """They are not counted: `Trainer` goes through all names of parameters for it, at every step."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        callbacks = self.callback_handler.callbacks
        interrupted = next((found.interrupted for found in callbacks if isinstance(found, ReportProgress)), None)
        if self.control.should_training_stop:
            self._kept = interrupted
        if not self.control.should_training_stop or interrupted is not None:
            with replacing(Path(self.args.output_dir)) as self._writing:
                super()._save_checkpoint(model, trial)
            self._writing = None
            group.wait()  # a process that ended now would end the one that still writes

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing or super()._get_output_dir(trial))

    def _save_rng_state(self, output_dir: str) -> None:
        if group.is_first():
            save_random(Path(output_dir), self.args.device)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and group.is_first():
            load_random(Path(checkpoint), self.args.device)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if not group.is_first():
            return
        if adapters.is_attached(self.model):
            adapters.save(self.model, folder)
        else:
            self.model.save_pretrained(folder, state_dict=state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if adapters.is_attached(self.model):
            adapters.restore(self.model, Path(resume_from_checkpoint))
        elif self.is_fsdp_enabled:
            load_weights(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)


class ReportProgress(TrainerCallback):
    """Reports each step, and stops a training that is interrupted, or whose loss is no longer finite."""

    def __init__(self, progress: Progress | None) -> None:
        """`progress` is called at the end of each step."""
        self.progress = progress
        self.interrupted: Interrupted | None = None
        self._since = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report `(steps done, steps in all)`, and have the last step logged whatever the interval.

        An interruption is taken at the next step that is logged, so that the resumed run logs what an undisturbed one
        does, or at once where that is too far; the steps up to there are reported as well. A training that reaches its
        end meanwhile is not interrupted. Of several processes, all stop where one is to.
        """
        control.should_log |= state.global_step == state.max_steps
        try:
            if self.progress is not None:
                self.progress(state.global_step, state.max_steps)
        except Interrupted as interrupted:
            if self.interrupted is None:
                self.interrupted, self._since = interrupted, time.monotonic()
        if state.global_step == state.max_steps:
            self.interrupted = None
        logged = state.global_step % args.logging_steps == 0
        is_due = self.interrupted is not None and (logged or time.monotonic() - self._since > PATIENCE)
        if group.any_of_all(is_due):
            self.interrupted = self.interrupted or Interrupted("another process of the training was asked to stop")
            control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Raise TrainingError where the logged loss is NaN or infinite."""
        loss = (logs or {}).get("loss", 0.0)
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(f"training diverged: loss {loss} at step {state.global_step}; lower the learning rate")


def fit(
    model: Any,
    rows: Sequence[Any],
    settings: Settings,
    collate: Callable[[list[Any]], dict[str, torch.Tensor]],
    *,
    skip: Callable[[int], None] | None = None,
    seed: int,
    work: Path,
    name: str = "the model",
    progress: Progress | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    trainer: Callable[..., SafeTrainer] = SafeTrainer,
) -> TrainerState:
    """Train `model` in place on `rows`, which `collate` makes batches of; the state at the end has the logged rows.

    Checkpoints go to `work`; a run that finds one there goes on from it and ends as an undisturbed run does, where the
    model draws from torch's generators alone. A `collate` that draws for each row, from a generator of its own, is told
    by `skip` how many rows it has drawn for before. `trainer` makes another `SafeTrainer`, from the same arguments.
    Rows are read one by one, as they are needed. Raises TrainingError if the loss stops being finite, ModelError, which
    calls the model `name`, if it cannot be trained, ConfigError if it has no gradient checkpointing, and what
    `progress` raises.

    Where this is one of several processes, they train together, and all end with the same model; a run that goes on
    then draws at random what an undisturbed one does not.
    """
    if settings.precision == "bf16":
        warn_of_bf16("dpo.precision")
    if settings.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise ConfigError(f"dpo.gradient_checkpointing: {name} cannot do without its activations; set it to false")
    if settings.rows_of_step < group.size():
        raise ConfigError(
            f"dpo.processes = {group.size()}: {name} is trained in steps of {settings.rows_of_step} rows, fewer "
            "than one for each process; take fewer processes, or larger steps"
        )
    made = trainer(
        model=place(model) if settings.sharding == "none" else model,
        args=arguments(work, settings, seed),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[ReportProgress(progress), *callbacks],
    )
    made.remove_callback(PrinterCallback)
    made.named, made.step_rows = name, settings.rows_of_step
    checkpoint = group.first_then_others(lambda: resume_point(work))
    if checkpoint is not None and skip is not None:
        skip(rows_of(steps_done(Path(checkpoint)), rows=len(rows), step=settings.rows_of_step))
    # what adds to gradients past autograd, the other processes would not hear of
    tied = added_in_place(model) if group.size() == 1 else nullcontext()
    with products(rounded=settings.precision == "tf32"), tied, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # accelerate knows no newer name
        made.train(resume_from_checkpoint=checkpoint)
    return made.state


def arguments(work: Path, settings: Settings, seed: int) -> TrainingArguments:
    """Training arguments with everything that talks to the outside switched off.

    Checkpoints fall on logging steps (the interval is rounded up), so a resumed run logs what an undisturbed one does.
    """
    interval = -(-settings.checkpoint_every // settings.log_every) * settings.log_every
    with configuration_alone():
        made = TrainingArguments(
            output_dir=str(work),
            seed=seed,
            data_seed=seed,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=accumulation(settings.rows_of_step, settings.batch_size, group.size()),
            average_tokens_across_devices=False,  # the harness does it
            fsdp=settings.sharding == "fsdp",
            ddp_find_unused_parameters=False,
            ddp_broadcast_buffers=False,  # a batch may go through the model in several passes
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            optim=OPTIMIZERS.get(settings.optimizer, settings.optimizer),
            bf16=settings.precision == "bf16",
            activation_checkpointing=settings.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=settings.log_every,
            logging_nan_inf_filter=False,  # it would hide a loss that is not finite behind the mean of those before it
            save_strategy="steps" if interval < settings.steps else "no",
            save_steps=interval,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            accelerator_config={"non_blocking": torch.cuda.is_available()},  # else the host waits for each tensor
            **settings.others,
        )
    made._n_gpu = min(made.n_gpu, 1)  # where several GPUs are seen, `Trainer` would split each batch by nn.DataParallel
    return made
