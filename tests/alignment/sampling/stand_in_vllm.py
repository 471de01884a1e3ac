"""Stands in for vLLM where its child process runs: the same names and arguments, over a table of log-probs.

`bigrams.json` in the model's folder has the log-probs of every token behind each one. It imports nothing else.
"""

import json
import random
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp
from pathlib import Path


@dataclass
class SamplingParams:
    """Those of vLLM's own that are asked for; another name is an error, as it is there."""

    max_tokens: int = 16
    seed: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    ignore_eos: bool = False
    stop_token_ids: list[int] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass
class Logprob:
    """As vLLM has it."""

    logprob: float


@dataclass
class CompletionOutput:
    """As vLLM has it."""

    token_ids: tuple[int, ...]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str


@dataclass
class RequestOutput:
    """As vLLM has it."""

    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]


class LLM:
    """vLLM's offline engine."""

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        max_model_len: int,
        gpu_memory_utilization: float,
        seed: int,
        trust_remote_code: bool,
    ) -> None:
        """Fails as it is told to by a file `fails` in the model's folder."""
        assert (dtype, seed, trust_remote_code) == ("float32", 0, False)
        assert 0 < gpu_memory_utilization <= 1
        folder = Path(model)
        assert (folder / "config.json").exists()
        assert next(folder.glob("*.safetensors"), None)
        self.fails = (folder / "fails").read_text() if (folder / "fails").exists() else ""
        if self.fails == "load":
            raise RuntimeError("CUDA out of memory")
        self.rows = json.loads((folder / "bigrams.json").read_text())
        self.longest = max_model_len
        self.calls = 0

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: object, *, use_tqdm: bool
    ) -> list[RequestOutput]:
        """Answers in the order of the prompts."""
        self.calls += 1
        if self.fails == "third call" and self.calls == 3:
            raise RuntimeError("the engine died")
        several = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        return [
            self._answer(each["prompt_token_ids"], settings) for each, settings in zip(prompts, several, strict=True)
        ]

    def _answer(self, prompt: list[int], settings: SamplingParams) -> RequestOutput:
        assert len(prompt) + settings.max_tokens <= self.longest
        scored = None
        if settings.prompt_logprobs is not None:
            pairs = pairwise(prompt)
            scored = [None, *({token: Logprob(self.rows[before][token])} for before, token in pairs)]
        rng, ids = random.Random(settings.seed), list(prompt)
        drawn: list[dict[int, Logprob]] = []
        reason = "length"
        while len(drawn) < settings.max_tokens:
            row = self.rows[ids[-1]]
            (token,) = rng.choices(range(len(row)), [exp(each / settings.temperature) for each in row])
            ids.append(token)
            drawn.append({token: Logprob(row[token])})
            if token in settings.stop_token_ids:
                reason = "stop"
                break
        logprobs = None if settings.logprobs is None else drawn
        return RequestOutput(scored, [CompletionOutput(tuple(ids[len(prompt) :]), logprobs, reason)])
