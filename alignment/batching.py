"""What runs through a model together: so many tokens as were asked for, or as the machine takes, in like lengths."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alignment.errors import ModelError

logger = logging.getLogger(__name__)

CPU_TOKENS = 4_096
"""On a CPU more gain nothing: a layer's activations leave the caches."""
CPU_ROWS = 128
"""Of texts that a CPU writes together more gain nothing: so many share one reading of the weights, and their cache
leaves the processor."""
CPU_BYTES = 2**30
"""What the cache of those texts takes of a machine's memory, at most."""
PREFILL_TOKENS = 4_096
"""Of prompts at once; a prompt's activations take more than its keys and values."""
COPY_TOKENS = 2_048
"""Tokens to draw, from which on a CPU's copies of linear layers cost less than they save."""
COPY_BYTES = 2**31
"""Of weights that are copied so: a larger model keeps its own."""

KEPT = {"cpu": 1 << 27, "cuda": 1 << 28}
"""Logits that are kept for the backward pass, in fp32, 512 MiB or 1 GiB; of more, which it computes again, none are.

That costs one product more, a quarter of the time at [1000, 256] x V = 150,000, and saves 532 of 738 MiB there.
"""

MOST_TOKENS = 262_144
SHARE_OF_FREE = 0.5
"""Of a GPU's free memory; the rest is for what a forward pass holds for a moment, and for what fragments."""

NO_MEMORY = ("can't allocate memory", "_STATUS_ALLOC_FAILED", "out of memory")
"""What torch's CPU allocator, cuBLAS and cuDNN, and CUDA and NCCL say in an error that has no type of its own."""


def batch_tokens(model: Any, given: int, bytes_per_token: int) -> int:
    """How many tokens run together: as `given`, or where that is 0 as many as fit, by what one of them takes."""
    import torch

    device = next(model.parameters()).device
    if given or device.type != "cuda":
        return given or CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(MOST_TOKENS, int(SHARE_OF_FREE * free) // bytes_per_token))


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The rows, shortest first, in batches that have at most `tokens` with their padding; a longer row has its own."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[row] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def in_batches(
    lengths: Sequence[int],
    tokens: int,
    work: Callable[[list[int]], None],
    *,
    name: str,
    field: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Do `work` on all rows, batch by batch; a batch that the memory does not hold is halved, and so are later ones.

    `name` is the model's and `field` the field that sets `tokens`, for what is said of that. Raises ModelError where
    not even one row fits.
    """
    import torch

    done = 0
    waiting = list(batches(lengths, tokens))[::-1]
    while waiting:
        rows = waiting.pop()
        width = max(lengths[row] for row in rows)
        if len(rows) > 1 and width * len(rows) > tokens:  # of a batch that was made before one did not fit
            waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            continue
        try:
            work(rows)
        except (torch.OutOfMemoryError, ModelError) as error:  # `using` puts the second in the first's place
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise does_not_fit(name, width) from error
            tokens = max(width, width * len(rows) // 2)
            waiting.append(rows)
        else:
            done += len(rows)
            if progress is not None:
                progress(done, len(lengths))
            continue
        torch.cuda.empty_cache()  # outside of `except`, which holds the failed batch's tensors
        logger.warning(
            "%s: %d tokens at once do not fit; %s is %d from here on", name, width * len(rows), field, tokens
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a memory was too small, as torch says it of a GPU or of the machine, or whoever raised after it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError) or type(found).__name__ == "OutOfMemoryError":
            return True
        if isinstance(found, RuntimeError) and any(said in str(found) for said in NO_MEMORY):
            return True
        found = found.__cause__
    return False


def does_not_fit(name: str, tokens: int) -> ModelError:
    """What is said where not even one sequence fits."""
    return ModelError(
        f"{name}: the GPU's memory does not hold one sequence of {tokens} tokens; take shorter ones, a smaller model, "
        "or a GPU that nothing else runs on"
    )
