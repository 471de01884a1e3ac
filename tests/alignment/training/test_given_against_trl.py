"""Ten steps on a file of preference data: every loss is that of TRL's DPOTrainer, which reads the file by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.config import DPOConfig, build_config
from alignment.data.pairs.given import Tokenised
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.training import dpo
from tests.alignment.preference_rows import row_of, with_chatml, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # TRL's own setting
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),
]

ROWS, STEPS, BATCH, SEED = 50, 10, 4, 3
SETTINGS = DPOConfig(
    loss="sigmoid",
    beta=0.3,
    steps=STEPS,
    batch_size=BATCH,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=1,
    stop_chosen_drop=0.0,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Any) -> Any:
    return with_chatml(tiny_tokenizer)


@pytest.fixture
def make_model(tiny_gpt2: Callable[..., Any], tokenizer: Any) -> Callable[[], Any]:
    return lambda: tiny_gpt2(0, vocab_size=len(tokenizer), context=256)


@pytest.fixture(params=["standard explicit", "standard implicit", "conversational explicit", "conversational implicit"])
def rows(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return [row_of(number, request.param) for number in range(ROWS)]


def ours(model: Any, tokenizer: Any, file: Path, work: Path) -> list[float]:
    config = build_config(
        {
            "data": {"path": "pairs.jsonl"},
            "base": {"model": "any"},
            "prompts": {"source": "pairs"},
            "pairs": {"source": "given"},
            "reward": {"kind": "none"},
        }
    )
    made = Tokenised(Loaded(model, tokenizer), config)
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs: list[dict[str, Any]] = [dict(made.pair(line, number)) for number, line in enumerate(lines)]
    for side in ("chosen", "rejected"):
        scores = score_completions(
            model,
            [pair["prompt_ids"] for pair in pairs],
            [pair[f"{side}_ids"] for pair in pairs],
            pad_id=0,
        )
        for pair, score in zip(pairs, scores, strict=True):
            pair[f"reference_{side}"] = float(score)
    outcome = dpo.train(model, pairs, SETTINGS, seed=SEED, pad_id=0, work=work)
    return [row["loss"] for row in outcome.history]


def theirs(model: Any, reference: Any, tokenizer: Any, file: Path, folder: Path) -> list[float]:
    from datasets import load_dataset
    from trl import DPOConfig as TRLConfig
    from trl import DPOTrainer as TRLTrainer

    args = TRLConfig(
        str(folder / "trl"),
        beta=SETTINGS.beta,
        loss_type="sigmoid",
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=SETTINGS.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=SETTINGS.warmup_steps,
        weight_decay=0.0,
        max_grad_norm=SETTINGS.max_grad_norm,
        optim="adamw_torch",
        seed=SEED,
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    data = load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
    trainer = TRLTrainer(model, ref_model=reference, args=args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_the_losses_of_ten_steps_are_those_of_trl(
    make_model: Callable[[], Any], tokenizer: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = write(tmp_path / "pairs.jsonl", rows)
    found = ours(make_model(), tokenizer, file, tmp_path / "work")
    expected = theirs(make_model(), make_model(), tokenizer, file, tmp_path)
    assert len(found) == STEPS
    assert found == pytest.approx(expected, abs=1e-4)
    assert min(found) < 0.6 < found[0]  # something was learnt
