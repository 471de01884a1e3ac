"""Draws samples with vLLM, in an environment of its own: only vLLM and the standard library are there.

    python -I vllm_child.py REQUESTS.json ANSWERS.jsonl

REQUESTS.json says which model to load and how (`model`, `dtype`, `context`, `gpu_memory`), which texts to `score`, and
which samples to `draw`. ANSWERS.jsonl gets a line as soon as something is there: first the `scores`, one log-prob for
each token of each text, then the samples `drawn`, of `first` and those that follow it, each with its token ids, their
log-probs and why it ended. vLLM's own log goes to standard output and error.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

TOGETHER = 256
"""Samples that are drawn before they are written."""
PR_SET_PDEATHSIG = 1  # Linux' sys/prctl.h


def main(requests: Path, answers: Path) -> None:
    """Answer a file of requests."""
    _end_with_the_parent()
    asked = json.loads(requests.read_text(encoding="utf-8"))
    from vllm import LLM  # type: ignore[import-not-found]

    llm = LLM(
        model=asked["model"],
        dtype=asked["dtype"],
        max_model_len=asked["context"],
        gpu_memory_utilization=asked["gpu_memory"],
        seed=0,
        trust_remote_code=False,
    )
    with answers.open("w", encoding="utf-8") as out:
        _write(out, {"scores": scores(llm, asked["score"])})
        for first in range(0, len(asked["draw"]), TOGETHER):
            _write(out, {"first": first, "drawn": draws(llm, asked["draw"][first : first + TOGETHER])})


def scores(llm: Any, texts: list[list[int]]) -> list[list[float | None]]:
    """The log-prob of each token of these texts, None for the first."""
    from vllm import SamplingParams

    settings = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=1)
    found = llm.generate([{"prompt_token_ids": ids} for ids in texts], settings, use_tqdm=False)
    return [
        [None if row is None else row[token].logprob for token, row in zip(ids, each.prompt_logprobs, strict=True)]
        for ids, each in zip(texts, found, strict=True)
    ]


def draws(llm: Any, asked: list[dict[str, Any]]) -> list[tuple[list[int], list[float], str]]:
    """The samples that are asked for, in their order."""
    from vllm import SamplingParams

    settings = [SamplingParams(**each["settings"], logprobs=0) for each in asked]
    found = llm.generate([{"prompt_token_ids": each["prompt"]} for each in asked], settings, use_tqdm=False)
    return [_drawn(each.outputs[0]) for each in found]


def _drawn(sample: Any) -> tuple[list[int], list[float], str]:
    ids = list(sample.token_ids)
    logprobs = [row[token].logprob for token, row in zip(ids, sample.logprobs, strict=True)]
    return ids, logprobs, str(sample.finish_reason or "")


def _write(out: Any, line: dict[str, Any]) -> None:
    out.write(f"{json.dumps(line)}\n")
    out.flush()


def _end_with_the_parent() -> None:
    """Have the kernel end this process, which may hold a whole GPU, when the one that started it is gone."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
