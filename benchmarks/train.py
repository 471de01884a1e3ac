"""DPO beside TRL's trainer: the same model, pairs, order and optimiser, so the same losses.

    python -m benchmarks.train

TRL has its own default optimiser, fused AdamW, in fp32 without gradient checkpointing; once with a reference model, and
once with the reference's log-probs from columns, as ours has them. The whole call counts: the making of a trainer, and
our trial of the layout on the first batch.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import models
from benchmarks.measure import Row, Side, race, run

BETA, LEARNING_RATE, LOG_EVERY = 0.1, 1e-5, 5
WITH_REFERENCE, PRECOMPUTED = "TRL with reference", "TRL precomputed"

Pairs = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A model, its pairs in the batches of a step, and how often better than TRL it is meant to be."""

    name: str
    make: Callable[[], Any]
    batch: int
    steps: int
    vary: bool = True
    longest: int = models.NEW_TOKENS
    targets: dict[str, str] = field(default_factory=dict)
    rounds: int | None = None  # where those asked for are too many
    precision: Literal["fp32", "bf16"] = "fp32"


CASES = [
    Case("small, lengths vary", models.small, 16, 10, targets={WITH_REFERENCE: "4.5", PRECOMPUTED: "4"}),
    Case("small, one length", models.small, 16, 10, vary=False, targets={WITH_REFERENCE: "3", PRECOMPUTED: "2.3"}),
    Case("GPT-2 small", models.gpt2_small, 4, 10, targets={WITH_REFERENCE: "2.5", PRECOMPUTED: "1.7"}, rounds=2),
    Case("SmolLM2-135M", models.smollm2_135m, 4, 10, longest=24, vary=False, targets={PRECOMPUTED: "1.3"}, rounds=2),
]


def compare(case: Case, rounds: int, **clock: Any) -> Iterator[Row]:
    """The rows of a case: ours against TRL with a reference, and against TRL with the log-probs precomputed."""
    model = case.make()
    pairs = with_reference(
        model, models.pairs(model.config.vocab_size, case.steps * case.batch, vary=case.vary, longest=case.longest)
    )
    losses: dict[str, list[float]] = {}
    peers = {name: [theirs(name, model, pairs, case, losses)] for name in (WITH_REFERENCE, PRECOMPUTED)}
    rows = race(
        case.name, "pairs/s", ours(model, pairs, case, losses), peers, targets=case.targets, rounds=rounds, **clock
    )
    for row in rows:
        apart = max(abs(one - two) for one, two in zip(losses[""], losses[row.against], strict=True))
        yield replace(row, note=f"the logged losses differ by at most {apart:.0e} from those of {row.against}")


def with_reference(model: Any, pairs: Pairs) -> Pairs:
    """Pairs with the model's own log-probs as the reference's."""
    from alignment.logprobs import score_completions

    prompts = [pair["prompt_ids"] for pair in pairs]
    sides = ("chosen", "rejected")
    found = [score_completions(model, prompts, [pair[f"{side}_ids"] for pair in pairs], pad_id=0) for side in sides]
    return [
        pair | {"reference_chosen": float(chosen), "reference_rejected": float(rejected)}
        for pair, chosen, rejected in zip(pairs, *found, strict=True)
    ]


def ours(model: Any, pairs: Pairs, case: Case, losses: dict[str, list[float]]) -> Side:
    """Plumbline on a copy of the model; it returns how many pairs it learnt from."""
    from alignment.config import DPOConfig
    from alignment.training.dpo import train

    config = DPOConfig(
        loss="sigmoid",
        beta=BETA,
        learning_rate=LEARNING_RATE,
        warmup_steps=1,
        steps=case.steps,
        batch_size=case.batch,
        stop_chosen_drop=0,
        checkpoint_every=1_000_000,
        log_every=min(LOG_EVERY, case.steps),
        precision=case.precision,
    )

    def work(policy: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(policy, pairs, config, seed=0, pad_id=0, work=Path(folder))
        losses[""] = [row["loss"] for row in outcome.history]
        return case.steps * case.batch

    return Side("Plumbline", work, lambda: copy.deepcopy(model).train())


def theirs(name: str, model: Any, pairs: Pairs, case: Case, losses: dict[str, list[float]]) -> Side:
    """TRL on a copy of the model, with or without another as the reference."""

    def prepare() -> tuple[Any, Any]:
        return copy.deepcopy(model).train(), copy.deepcopy(model) if name == WITH_REFERENCE else None

    def work(given: tuple[Any, Any]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trl_trainer(*given, pairs, case, folder)
            trainer.train()
        losses[name] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        return case.steps * case.batch

    return Side(name, work, prepare)


def trl_trainer(model: Any, reference: Any, pairs: Pairs, case: Case, folder: str) -> Any:
    """TRL's trainer on token ids; without a reference model it reads the log-probs that are known already."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    class OnTokenIds(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            return dataset

    names = {"reference_chosen": "ref_chosen_logps", "reference_rejected": "ref_rejected_logps"}
    left_out = set(names) if reference is not None else set()
    rows = [{names.get(name, name): pair[name] for name in pair if name not in left_out} for pair in pairs]
    has_gpu = torch.cuda.is_available()
    arguments = DPOConfig(
        folder,
        beta=BETA,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        max_steps=case.steps,
        per_device_train_batch_size=case.batch,
        precompute_ref_log_probs=reference is None,
        bf16=case.precision == "bf16",
        gradient_checkpointing=False,
        use_cpu=not has_gpu,
        logging_steps=min(LOG_EVERY, case.steps),
        seed=0,
        data_seed=0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=has_gpu,
    )
    trainer = OnTokenIds(
        model,
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=models.tokenizer(model.config.vocab_size),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """All rows."""
    for case in CASES:
        if asked.only in case.name:
            yield from compare(case, min(asked.rounds, case.rounds or asked.rounds))


if __name__ == "__main__":
    run(__doc__, measure)
