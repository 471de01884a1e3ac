"""Sampling beside transformers: the same model, prompts of 8 tokens and 56 new ones, without filters or an end.

    python -m benchmarks.generate

The pipeline takes one prompt after the other, as the notebook did; `generate` has the best of several batch sizes.
Plumbline's samples also carry their log-probs and random numbers of their own; the peers' do not.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import models
from benchmarks.measure import Row, Side, race, run

PIPELINE, GENERATE = "pipeline", "generate"


@dataclass(frozen=True)
class Case:
    """A model, how many samples each side draws in a round (0: not run), and `generate`'s batch sizes."""

    name: str
    make: Callable[[], Any]
    ours: int
    pipeline: int
    batches: tuple[int, ...]
    targets: dict[str, str] = field(default_factory=dict)
    rounds: int | None = None  # where those asked for are too many
    new_tokens: int = models.NEW_TOKENS
    samples: int = 4


CASES = [
    Case("small", models.small, 256, 16, (32, 64, 128, 256), {PIPELINE: "20", GENERATE: "2.4"}),
    Case("GPT-2 small", models.gpt2_small, 64, 4, (32, 64), {PIPELINE: "9", GENERATE: "1.6"}, rounds=2),
    Case("SmolLM2-135M", models.smollm2_135m, 64, 0, (32, 64), {GENERATE: "1.7"}, rounds=2),
]


def compare(case: Case, rounds: int, **clock: Any) -> list[Row]:
    """The rows of a case, in samples per second: ours against the pipeline, and against the best `generate`."""
    model = case.make()
    prompts = models.prompts(model.config.vocab_size, max(case.ours, *case.batches) // case.samples)
    peers = {GENERATE: [generate(model, prompts, rows, case) for rows in case.batches]}
    if case.pipeline:
        peers = {PIPELINE: [pipeline(model, prompts, case)], **peers}
    return race(case.name, "samples/s", ours(model, prompts, case), peers, targets=case.targets, rounds=rounds, **clock)


def ours(model: Any, prompts: list[models.Ids], case: Case, **settings: Any) -> Side:
    """Plumbline, which finds its batches itself."""
    from alignment.config import SamplingConfig
    from alignment.conventions import Conventions
    from alignment.sampling.engine import request
    from alignment.sampling.local import generate

    total = models.PROMPT_TOKENS + case.new_tokens
    config = SamplingConfig(
        samples_per_prompt=case.samples, total_tokens=total, top_k=0, top_p=1.0, temperature=1.0, **settings
    )
    rounds = itertools.count()

    def work(_: None) -> int:
        seed = next(rounds)
        requests = [
            request(prompt, config, seed=seed, purpose="train", prompt_id=str(number), index=index)
            for number, prompt in enumerate(prompts[: case.ours // case.samples])
            for index in range(case.samples)
        ]
        drawn = generate(model, requests, config, Conventions(ends=(), pad_id=model.config.pad_token_id))
        assert all(len(completion.ids) == case.new_tokens for completion in drawn)
        return len(drawn)

    return Side("Plumbline", work)


def asked_for(case: Case) -> dict[str, Any]:
    """What `generate` is asked for."""
    return {
        "do_sample": True,
        "top_k": 0,
        "top_p": 1.0,
        "temperature": 1.0,
        "num_return_sequences": case.samples,
        "max_new_tokens": case.new_tokens,
        "eos_token_id": None,
    }


def generate(model: Any, prompts: list[models.Ids], rows: int, case: Case) -> Side:
    """`transformers.generate` on so many rows at once."""

    def work(_: None) -> int:
        ids = torch.tensor(prompts[: rows // case.samples], device=model.device)
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), pad_token_id=model.config.pad_token_id, **asked_for(case)
            )
        assert found.shape[1] == models.PROMPT_TOKENS + case.new_tokens
        return len(found)

    return Side(f"batch {rows}", work)


def pipeline(model: Any, prompts: list[models.Ids], case: Case) -> Side:
    """`transformers.pipeline` without a batch size: one prompt and its samples after the other."""
    from transformers import pipeline as made

    writes = made(
        "text-generation", model=model, tokenizer=models.tokenizer(model.config.vocab_size), device=model.device
    )
    texts = [" ".join(f"w{token}" for token in prompt) for prompt in prompts[: case.pipeline // case.samples]]

    def work(_: None) -> int:
        return sum(map(len, writes(texts, **asked_for(case))))

    return Side(PIPELINE, work)


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """All rows."""
    for case in CASES:
        if asked.only in case.name:
            yield from compare(case, min(asked.rounds, case.rounds or asked.rounds))


if __name__ == "__main__":
    run(__doc__, measure)
