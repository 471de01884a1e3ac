"""DPO beside TRL's trainer: the same model, pairs, order, reference log-probs and optimiser, so the same losses.

    python -m benchmarks.training

Both read the reference's log-probs from columns; scoring them costs either one forward pass over the pairs. Making the
trainer is part of the time.
"""

import argparse
import copy
import logging
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from alignment.config import DPOConfig
from alignment.device import place
from alignment.logprobs import score_completions
from alignment.training.dpo import train
from benchmarks.measure import Race, Side, gpt2, race, show

SIZES = {  # layers, width, vocabulary, steps
    "quickstart, 0.5M": (2, 128, 1_024, 100),
    "GPT-2 small, 124M": (12, 768, 50_257, 6),
}
PROMPT_TOKENS, SHORTEST, LONGEST, BATCH = 8, 16, 40, 8
LEARNING_RATE, BETA, WARMUP = 3e-4, 0.5, 15

Pair = dict[str, Any]


def make_pairs(model: Any, vocabulary: int, count: int) -> list[Pair]:
    """Pairs of random token ids with the model's own log-probs as the reference's."""
    draws = random.Random(0)

    def ids(length: int) -> list[int]:
        return [draws.randrange(1, vocabulary) for _ in range(length)]

    pairs: list[Pair] = [
        {
            "prompt_ids": ids(PROMPT_TOKENS),
            "chosen_ids": ids(draws.randint(SHORTEST, LONGEST)),
            "rejected_ids": ids(draws.randint(SHORTEST, LONGEST)),
        }
        for _ in range(count)
    ]
    for side in ("chosen", "rejected"):
        completions = [pair[f"{side}_ids"] for pair in pairs]
        scores = score_completions(model, [pair["prompt_ids"] for pair in pairs], completions, pad_id=0)
        for pair, score in zip(pairs, scores.tolist(), strict=True):
            pair[f"reference_{side}"] = score
    return pairs


def sides(model: Any, pairs: list[Pair], steps: int, losses: dict[str, list[float]]) -> tuple[Side, Side]:
    """Plumbline and TRL, each on a copy of the model; each returns how many pairs it learnt from."""

    def ours() -> int:
        config = DPOConfig(
            loss="sigmoid",
            beta=BETA,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARMUP,
            steps=steps,
            batch_size=BATCH,
            stop_chosen_drop=0,
            checkpoint_every=1_000_000,
            log_every=5,
        )
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(copy.deepcopy(model), pairs, config, seed=0, pad_id=0, work=Path(folder))
        losses["Plumbline"] = [row["loss"] for row in outcome.history]
        return steps * BATCH

    def theirs() -> int:
        with tempfile.TemporaryDirectory() as folder:
            trainer = trl_trainer(copy.deepcopy(model), pairs, steps, folder)
            trainer.train()
        losses["TRL"] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        return steps * BATCH

    return Side("Plumbline", ours), Side("TRL", theirs)


def trl_trainer(model: Any, pairs: list[Pair], steps: int, folder: str) -> Any:
    """TRL's trainer on token ids and on log-probs that are known already."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, PrinterCallback
    from trl import DPOConfig as TRLConfig
    from trl import DPOTrainer as TRLTrainer

    class OnTokenIds(TRLTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            return dataset

    names = {"reference_chosen": "ref_chosen_logps", "reference_rejected": "ref_rejected_logps"}
    rows = [{names.get(name, name): value for name, value in pair.items()} for pair in pairs]
    arguments = TRLConfig(
        folder,
        beta=BETA,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=min(WARMUP, steps),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        precompute_ref_log_probs=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        optim="adamw_torch",
        logging_steps=5,
        seed=0,
        data_seed=0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<|endoftext|>": 0}, "<|endoftext|>")),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    trainer = OnTokenIds(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main() -> None:
    """Run every size and print the table, and the largest difference between the two trainers' losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    logging.getLogger("alignment").setLevel(logging.ERROR)
    races: dict[str, tuple[Side, Side, Race]] = {}
    apart: dict[str, float] = {}
    for name, (layers, width, vocabulary, steps) in SIZES.items():
        model = place(gpt2(layers, width, vocabulary, PROMPT_TOKENS + LONGEST))
        losses: dict[str, list[float]] = {}
        pair = sides(model, make_pairs(model, vocabulary, steps * BATCH), steps, losses)
        races[name] = (*pair, race(*pair, rounds))
        apart[name] = max(abs(one - two) for one, two in zip(losses["Plumbline"], losses["TRL"], strict=True))
    show("DPO", "pairs", races)
    for name, difference in apart.items():
        print(f"{name}: the logged losses of the two differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
