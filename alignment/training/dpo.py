"""Direct preference optimisation of a policy on validated pairs, with the reference's log-probs read from columns."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device  # type: ignore[import-untyped]
from torch import Tensor
from transformers import TrainerCallback

from alignment.config import AlignConfig, DPOConfig
from alignment.config.policy import fault_of_loss, global_batch
from alignment.device import rounding
from alignment.errors import ConfigError
from alignment.kinds import DIVERGENCES, LOSSES
from alignment.layout import Layout, Tokens, lay_flat, lay_in_buckets
from alignment.logprobs import computing, logprobs, why_padded
from alignment.models import Loaded, using
from alignment.selfcheck import SelfCheck, plain_logprob
from alignment.training import group
from alignment.training.harness import Progress, SafeTrainer, Settings, fit
from alignment.training.losses import PairLogps, chosen_nll, has_any_divergence, has_smoothing
from alignment.training.protocol import Row, TrainingOutcome, trainer
from alignment.training.sharding import standing_in

logger = logging.getLogger(__name__)

RANDOM = ("dropout", "layerdrop", "drop_path", "drop_prob", "jitter")
"""Parts of the names under which modules keep how much they draw at random."""

MEANS = (
    *("rewards/chosen", "rewards/rejected", "rewards/margin", "rewards/accuracy"),
    *("logps/chosen", "logps/rejected", "chosen_drop"),
)
"""What is logged beside the loss: means over the pairs since the last line.

Rewards are those that the policy implies, β f'(u), and so in nats under the reverse KL alone; log-probs and the drop of
the chosen one are in nats under every divergence.
"""

_RUNAWAY_ACCURACY = 0.98


@trainer("dpo")
def train_policy(
    loaded: Loaded,
    pairs: Sequence[Mapping[str, Any]],
    config: AlignConfig,
    *,
    work: Path,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> TrainingOutcome:
    """Train what is not frozen with the loss `dpo.loss`, after a check that the policy starts as the pairs' reference.

    The reference's log-probs are in the policy's precision, so the margin at step 0 is 0. Raises SelfCheckError where
    the check fails, and as `train` does.
    """
    with rounding(config.dpo.precision):
        _require_own_reference(loaded, pairs[: config.dpo.batch_size])
    return train(
        loaded.model,
        pairs,
        config.dpo,
        seed=config.seed,
        pad_id=loaded.pad_id,
        work=work,
        name=loaded.name,
        progress=progress,
        on_row=on_row,
    )


def train(
    model: Any,
    pairs: Sequence[Mapping[str, Any]],
    config: DPOConfig,
    *,
    seed: int,
    pad_id: int,
    work: Path,
    name: str = "the model",
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> TrainingOutcome:
    """Optimise `model` in place on pairs: {prompt,chosen,rejected}_ids, reference_{chosen,rejected}, and a gap or None.

    Checkpoints go to `work`; a run that finds one there goes on from it and ends as an undisturbed run does.
    Raises ConfigError if `label_smoothing` has no effect on the loss or the loss does not go with the divergence,
    TrainingError if the loss stops being finite, and ModelError, which calls the model `name`, if it cannot be trained.
    """
    function = LOSSES.get(config.loss)
    if fault := fault_of_loss(config, smoothing=has_smoothing(function), any_divergence=has_any_divergence(function)):
        raise ConfigError(fault)
    without_dropout(model)
    settings = Settings(
        steps=config.steps,
        step_rows=global_batch(config),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=min(config.warmup_steps, config.steps),
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        optimizer=config.optimizer,
        precision=config.precision,
        gradient_checkpointing=config.gradient_checkpointing,
        sharding=config.sharding,
        others={
            "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(config.schedule, config.schedule),
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
        },
    )
    is_flat = _lies_flat(model, pairs[: config.batch_size], name)
    with standing_in(model, config.sharding) as trained, computing(trained, is_flat=is_flat):
        state = fit(
            trained,
            pairs,
            settings,
            lambda rows: collate(rows, pad_id, flat=is_flat),
            seed=seed,
            work=work,
            name=name,
            progress=progress,
            callbacks=[WatchLogs(config, on_row if group.is_first() else None)],
            trainer=partial(DPOTrainer, config),
        )
    history = [metrics_row(row, int(row["step"])) for row in state.log_history if "chosen_drop" in row]
    return TrainingOutcome(history, state.global_step, state.global_step < config.steps)


def collate(pairs: Sequence[Mapping[str, Any]], pad_id: int, *, flat: bool = False) -> dict[str, Any]:
    """B pairs as 2B sequences, chosen before rejected: `reference` [2B], and the tensors of each of their `layouts`.

    With `gap` [B], what the chosen texts score more, where each pair has one.
    """
    layouts = [lay_flat(*_sequences(pairs))] if flat else lay_in_buckets(*_sequences(pairs), pad_id)
    reference = [pair["reference_chosen"] for pair in pairs] + [pair["reference_rejected"] for pair in pairs]
    gaps = [pair.get("gap") for pair in pairs]
    return {
        "layouts": [layout.tensors() for layout in layouts],
        "reference": torch.tensor(reference, dtype=torch.float32),
    } | ({} if None in gaps else {"gap": torch.tensor(gaps, dtype=torch.float32)})


def _lies_flat(model: Any, pairs: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether pairs like those of the first batch go through the model flat."""
    with using(name, "training"):
        return not why_padded(model, *_sequences(pairs), name)


def _sequences(pairs: Sequence[Mapping[str, Any]]) -> tuple[list[Tokens], list[Tokens]]:
    prompts = [pair["prompt_ids"] for pair in pairs]
    return [*prompts, *prompts], [*(pair["chosen_ids"] for pair in pairs), *(pair["rejected_ids"] for pair in pairs)]


def pair_logps(model: Any, batch: dict[str, Any], *, entropy: bool = False) -> tuple[PairLogps, Tensor | None]:
    """The policy's log-probs of a collated batch beside the reference's, and where asked for each token's entropy."""
    layouts = [Layout.of(tensors) for tensors in batch["layouts"]]
    sums, entropies = zip(*(logprobs(model, layout, entropy=entropy) for layout in layouts), strict=True)
    chosen, rejected = torch.stack(sums).sum(0).chunk(2)
    reference_chosen, reference_rejected = batch["reference"].chunk(2)
    chosen_tokens, rejected_tokens = torch.stack([layout.lengths for layout in layouts]).sum(0).chunk(2)
    pairs = PairLogps(
        *(chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens),
        gap=batch.get("gap"),
    )
    return pairs, torch.cat(entropies) if entropy else None


def objective(pairs: PairLogps, config: DPOConfig) -> Tensor:
    """Each pair's loss plus, where asked for, its NLL per chosen token; shape [B]: no pair depends on others."""
    value: Tensor = LOSSES.get(config.loss)(_under(pairs, config), config.beta, config.label_smoothing)
    return value + config.nll_weight * chosen_nll(pairs) if config.nll_weight else value


def _under(pairs: PairLogps, config: DPOConfig) -> PairLogps:
    return pairs.under(DIVERGENCES.get(config.divergence), config.divergence_alpha)


class DPOTrainer(SafeTrainer):
    """`transformers.Trainer` on the DPO objective; it logs what the objective moves, not only the loss."""

    def __init__(self, config: DPOConfig, **kwargs: Any) -> None:
        """Keyword arguments beside the config are `Trainer`'s own."""
        super().__init__(**kwargs)
        self.config = config
        self._window: list[Tensor] = []
        self._entropies: list[Tensor] = []

    def batch_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The mean over one batch's pairs; what it consists of is remembered for the next line."""
        step = self.state.global_step + 1
        is_logged = step % self.args.logging_steps == 0 or step == self.state.max_steps
        pairs, entropies = pair_logps(model, inputs, entropy=is_logged)
        if self.items(inputs):
            self._window.append(means(pairs, self.config))
            if entropies is not None:
                self._entropies.append(entropies)
        return objective(pairs, self.config).mean()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's means to the Trainer's own line; nothing leaves the device before."""
        if "loss" in logs:
            logs.update(zip(MEANS, group.means_of_all(_joined(self._window, len(MEANS))), strict=True))
            if group.any_of_all(bool(self._entropies)):
                logs["entropy"] = group.means_of_all(_joined(self._entropies, 1))[0]
            self._window.clear()
            self._entropies.clear()
        super().log(logs, start_time)


def _joined(values: Sequence[Tensor], figures: int) -> Tensor:
    """Values [figures, B] of several batches, one behind another; also where this process has had none."""
    return torch.cat([value.reshape(figures, -1) for value in values] or [torch.empty(figures, 0)], dim=1)


@torch.no_grad()
def means(pairs: PairLogps, config: DPOConfig) -> Tensor:
    """What `MEANS` are the means of: [7, B]."""
    under = _under(pairs, config)
    chosen, rejected = under.chosen_reward(config.beta), under.rejected_reward(config.beta)
    accuracy = (pairs.logratio_gap > 0).float()  # f' rises, but where it is bounded, rounding makes far texts equal
    drop = -pairs.chosen_logratio
    return torch.stack([chosen, rejected, chosen - rejected, accuracy, pairs.chosen, pairs.rejected, drop])


class WatchLogs(TrainerCallback):
    """Passes each row of metrics on, warns of a runaway margin, and stops when the chosen log-prob fell too far."""

    def __init__(self, config: DPOConfig, on_row: Callable[[Row], None] | None) -> None:
        """`on_row` takes each row as it is logged."""
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
                "step %d: nearly every pair is ranked right (accuracy %.3f), and the margin (%.2f) still grows: "
                "further steps move the policy away from the reference without improving the ranking; "
                "take fewer (dpo.steps)",
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


def _require_own_reference(loaded: Loaded, pairs: Sequence[Mapping[str, Any]]) -> None:
    """Raise SelfCheckError unless the policy starts as its reference: what the batch gives, and what the pairs hold."""

    def alone(row: int) -> float:
        return plain_logprob(loaded.model, pairs[row]["prompt_ids"], pairs[row]["chosen_ids"])

    without_dropout(loaded.model)
    is_flat = _lies_flat(loaded.model, pairs, loaded.name)
    collated = collate(pairs, loaded.pad_id, flat=is_flat)
    with using(loaded.name, "training"), torch.inference_mode(), computing(loaded.model, is_flat=is_flat):
        batch = send_to_device(collated, loaded.model.device)
        loaded.model.train()  # as it will be: whatever still draws at random shows
        found = pair_logps(loaded.model, batch)[0].chosen.tolist()
        loaded.model.eval()
    lengths = [len(pair["chosen_ids"]) for pair in pairs]
    given = [pair["reference_chosen"] for pair in pairs]
    for work, values in (("training", found), ("the pairs' reference", given)):
        SelfCheck(work, loaded.name, loaded.model).logprobs(values, lengths, alone, padded=True)
