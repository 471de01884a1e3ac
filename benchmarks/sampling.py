"""Sampling beside `transformers.generate`: the same model, prompts, batch and filters; EOS ends a sample in both.

    python -m benchmarks.sampling

Plumbline's samples also carry their log-probs and random numbers of their own; `generate`'s do not.
"""

import argparse
import itertools
import random
from typing import Any

import torch

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.device import place
from alignment.sampling.engine import request
from alignment.sampling.local import generate
from benchmarks.measure import Race, Side, gpt2, race, show

SIZES = {  # layers, width, vocabulary, prompts
    "quickstart, 0.5M": (2, 128, 1_024, 128),
    "GPT-2 small, 124M": (12, 768, 50_257, 8),
}
PROMPT_TOKENS, TOTAL_TOKENS, SAMPLES, BATCH, TOP_K = 8, 48, 4, 64, 50


def sides(model: Any, prompts: list[list[int]]) -> tuple[Side, Side]:
    """Plumbline and transformers; each returns how many tokens it drew."""
    config = SamplingConfig(
        samples_per_prompt=SAMPLES,
        total_tokens=TOTAL_TOKENS,
        top_k=TOP_K,
        top_p=1.0,
        temperature=1.0,
        batch_tokens=BATCH * TOTAL_TOKENS,
    )
    rounds = itertools.count()

    def ours() -> int:
        seed = next(rounds)
        requests = [
            request(prompt, config, seed=seed, purpose="train", prompt_id=str(number), index=index)
            for number, prompt in enumerate(prompts)
            for index in range(SAMPLES)
        ]
        return sum(len(drawn.ids) for drawn in generate(model, requests, config, Conventions(ends=(0,), pad_id=0)))

    def theirs() -> int:
        drawn = 0
        for start in range(0, len(prompts), BATCH // SAMPLES):
            ids = torch.tensor(prompts[start : start + BATCH // SAMPLES], device=model.device)
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=TOP_K,
                num_return_sequences=SAMPLES,
                max_length=TOTAL_TOKENS,
                pad_token_id=0,
            )
            new = found[:, PROMPT_TOKENS:]
            before_end = (new == 0).long().cumsum(1) == 0
            drawn += int((before_end.sum(1) + 1).clamp(max=new.shape[1]).sum())
        return drawn

    return Side("Plumbline", ours), Side("transformers", theirs)


def main() -> None:
    """Run every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    races: dict[str, tuple[Side, Side, Race]] = {}
    for name, (layers, width, vocabulary, count) in SIZES.items():
        model = place(gpt2(layers, width, vocabulary, TOTAL_TOKENS))
        draws = random.Random(0)
        prompts = [[draws.randrange(1, vocabulary) for _ in range(PROMPT_TOKENS)] for _ in range(count)]
        pair = sides(model, prompts)
        races[name] = (*pair, race(*pair, rounds))
    show("Sampling", "tokens", races)


if __name__ == "__main__":
    main()
