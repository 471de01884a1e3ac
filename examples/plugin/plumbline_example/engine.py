"""The engine `stepwise`: one text at a time by plain forward passes, slow and easy to follow."""

from collections.abc import Callable, Sequence

import torch

from alignment.config import SamplingConfig
from alignment.models import Loaded
from alignment.sampling.choice import choose
from alignment.sampling.engine import Completion, Request, engine


@engine("stepwise")
@torch.inference_mode()
def stepwise(
    loaded: Loaded,
    requests: Sequence[Request],
    config: SamplingConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Each request by itself, without a cache and without padding."""
    drawn = []
    for request in requests:
        ids, logprob, finished = list(request.prompt), 0.0, False
        for uniform in request.uniforms:
            logits = loaded.model(input_ids=torch.tensor([ids], device=loaded.model.device)).logits[:, -1].float()
            token = int(choose(logits, torch.tensor([uniform], device=logits.device), config))
            logprob += float(logits.log_softmax(-1)[0, token])
            ids.append(token)
            finished = token in loaded.conventions.ends
            if finished:
                break
        drawn.append(Completion(ids[len(request.prompt) :], finished, logprob))
        if progress is not None:
            progress(len(drawn), len(requests))
    return drawn
