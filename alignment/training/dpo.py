"""Direct preference optimisation of a policy on validated pairs, with the reference's log-probs read from columns."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from alignment.config import DPOConfig
from alignment.logprobs import SequenceBatch, completion_logits, pad_right, sum_logprobs
from alignment.training.harness import Progress, SafeTrainer, Settings, fit
from alignment.training.losses import LOSSES, PairLogps, chosen_nll

logger = logging.getLogger(__name__)

Row = dict[str, float]

RANDOM = ("dropout", "layerdrop", "drop_path", "drop_prob", "jitter")
"""Parts of the names under which modules keep how much they draw at random."""

_RUNAWAY_ACCURACY = 0.98


@dataclass(frozen=True)
class TrainingOutcome:
    """Logged metrics, one row every `dpo.log_every` steps, and the step after which training ended."""

    history: list[Row]
    steps: int
    stopped_early: bool


def collate(pairs: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """B pairs as 2B right-padded rows, chosen above rejected: ids and completion [2B, L], reference [2B]."""
    prompts = [pair["prompt_ids"] for pair in pairs]
    batch = pad_right(
        [*prompts, *prompts],
        [*(pair["chosen_ids"] for pair in pairs), *(pair["rejected_ids"] for pair in pairs)],
        pad_id,
    )
    reference = [pair["reference_chosen"] for pair in pairs] + [pair["reference_rejected"] for pair in pairs]
    return {"ids": batch.ids, "completion": batch.completion, "reference": torch.tensor(reference, dtype=torch.float32)}


def pair_logps(model: Any, inputs: dict[str, Tensor]) -> tuple[PairLogps, Tensor]:
    """The policy's log-probs of a collated batch beside the reference's, and the logits [T, V] they came from."""
    batch = SequenceBatch(inputs["ids"], inputs["completion"])
    logits, targets, rows = completion_logits(model, batch)
    chosen, rejected = sum_logprobs(logits, targets, rows, len(batch.ids)).chunk(2)
    reference_chosen, reference_rejected = inputs["reference"].chunk(2)
    chosen_tokens, rejected_tokens = batch.completion.sum(1).chunk(2)
    logps = PairLogps(chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens)
    return logps, logits


def objective(pairs: PairLogps, config: DPOConfig) -> Tensor:
    """Each pair's loss plus, where asked for, its NLL a chosen token; shape [B], so that no pair depends on others."""
    value = LOSSES[config.loss](pairs, config.beta, config.label_smoothing)
    return value + config.nll_weight * chosen_nll(pairs) if config.nll_weight else value


class DPOTrainer(SafeTrainer):
    """`transformers.Trainer` on the DPO objective; it logs what the objective moves, not only the loss.

    A step's loss is the mean over its pairs, however they are split into batches: also at the end of an epoch, where
    one batch is smaller and a mean of the batches' means would give its pairs more weight.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, config: DPOConfig, **kwargs: Any) -> None:
        """Keyword arguments beside the config are `Trainer`'s own."""
        super().__init__(**kwargs)
        self.config = config
        self._window: dict[str, list[Tensor]] = defaultdict(list)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Tensor]], int]:
        """The batches of one step, and the number of their pairs."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return batches, sum(len(batch["reference"]) // 2 for batch in batches)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Any:
        """One batch's part of the mean over the step's pairs; what it consists of is remembered for the next line."""
        pairs, logits = pair_logps(model, inputs)
        losses = objective(pairs, self.config)
        loss = losses.sum() / (num_items_in_batch or len(losses))
        self._remember(pairs, logits.detach())
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's means to the Trainer's own line."""
        if "loss" in logs:
            logs.update({name: float(torch.cat(values).mean()) for name, values in self._window.items()})
            self._window.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def _remember(self, pairs: PairLogps, logits: Tensor) -> None:
        chosen_reward = self.config.beta * pairs.chosen_logratio
        rejected_reward = self.config.beta * pairs.rejected_logratio
        values = {
            "rewards/chosen": chosen_reward,
            "rewards/rejected": rejected_reward,
            "rewards/margin": chosen_reward - rejected_reward,
            "rewards/accuracy": (chosen_reward > rejected_reward).float(),
            "logps/chosen": pairs.chosen,
            "logps/rejected": pairs.rejected,
            "chosen_drop": -pairs.chosen_logratio,
        }
        step = self.state.global_step + 1
        if step % self.args.logging_steps == 0 or step == self.state.max_steps:
            logprobs = logits.log_softmax(-1)
            values["entropy"] = -(logprobs.exp() * logprobs).sum(-1)
        for name, value in values.items():
            self._window[name].append(value.detach().float().cpu())


class WatchLogs(TrainerCallback):
    """Passes each row of metrics on, warns of a runaway margin, and stops when the chosen log-prob fell too far."""

    def __init__(self, config: DPOConfig, on_row: Callable[[Row], None] | None) -> None:
        """`on_row` hears of each row as it is logged."""
        self.config = config
        self.on_row = on_row
        self._last_margin = 0.0
        self._warned = False

    def on_log(self, _args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Look at one row of metrics, the means over the last `dpo.log_every` steps."""
        if not logs or "chosen_drop" not in logs:
            return
        if self.on_row is not None:
            self.on_row(metrics_row(logs, state.global_step))
        growing = logs["rewards/margin"] > self._last_margin
        if logs["rewards/accuracy"] > _RUNAWAY_ACCURACY and growing and not self._warned:
            self._warned = True
            logger.warning(
                "step %d: accuracy %.3f and the margin (%.2f) still grows; more steps buy distance, not preference",
                state.global_step,
                logs["rewards/accuracy"],
                logs["rewards/margin"],
            )
        self._last_margin = logs["rewards/margin"]
        if 0 < self.config.stop_chosen_drop < logs["chosen_drop"]:
            control.should_training_stop = True
            control.should_save = False  # it ends here, interrupted or not
            logger.warning(
                "step %d: the chosen log-prob fell by %.2f nats, over dpo.stop_chosen_drop = %g; training stops here",
                state.global_step,
                logs["chosen_drop"],
                self.config.stop_chosen_drop,
            )


def metrics_row(logs: dict[str, float], step: int) -> Row:
    """One row of the history: the step and every metric but the Trainer's own bookkeeping."""
    return {"step": step} | {name: float(value) for name, value in logs.items() if name not in {"epoch", "step"}}


def train(
    model: Any,
    pairs: Sequence[dict[str, Any]],
    config: DPOConfig,
    *,
    seed: int,
    pad_id: int,
    work: Path,
    name: str = "the model",
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> TrainingOutcome:
    """Optimise `model` in place on pairs: {prompt,chosen,rejected}_ids and reference_{chosen,rejected} each.

    Checkpoints go to `work`; a run that finds one there goes on from it and ends as an undisturbed run does.
    Raises TrainingError if the loss stops being finite, and ModelError if the model cannot be trained; errors call it
    `name`.
    """
    without_dropout(model)
    settings = Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(config.warmup_steps, config.steps),
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        others={
            "gradient_accumulation_steps": config.accumulation,
            "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(config.schedule, config.schedule),
            "optim": {"adamw": "adamw_torch"}.get(config.optimizer, config.optimizer),
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
            "bf16": config.precision == "bf16",
        },
    )
    state = fit(
        model,
        pairs,
        settings,
        lambda rows: collate(rows, pad_id),
        seed=seed,
        work=work,
        name=name,
        progress=progress,
        callbacks=[WatchLogs(config, on_row)],
        trainer=partial(DPOTrainer, config),
    )
    history = [metrics_row(row, int(row["step"])) for row in state.log_history if "chosen_drop" in row]
    return TrainingOutcome(history, state.global_step, state.global_step < config.steps)


def without_dropout(model: Any) -> None:
    """Switch dropout off for good, and left-out layers and noisy routing with it.

    Policy and reference must give one sequence one probability.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and any(part in name for part in RANDOM):
                setattr(module, name, 0.0)
