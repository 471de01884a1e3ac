"""The gradient of an embedding that is tied to the output layer, without a second matrix of the vocabulary's size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def added_in_place(model: Any) -> Iterator[None]:
    """Have `backward` add the gradient of a tied embedding's rows to what its weight's `grad` holds.

    Autograd makes a [V, E] of them, nearly all zeros, and adds that to the output layer's: on a CPU 6% of a step of
    GPT-2 small. `torch.autograd.grad` does not see what is added. Other models stay as they are, and all do on a GPU,
    where sums of this kind differ from run to run.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    embedding: Any = model.get_input_embeddings() if head is not None else None
    is_tied = type(embedding) is torch.nn.Embedding and embedding.weight is getattr(head, "weight", None)
    if not is_tied or embedding.weight.device.type != "cpu":
        yield
        return
    hook = embedding.register_forward_hook(_look_up)
    try:
        yield
    finally:
        hook.remove()


def _look_up(embedding: Any, given: tuple[Tensor, ...], found: Tensor) -> Tensor | None:
    if not (given and torch.is_grad_enabled() and embedding.weight.requires_grad):
        return None
    leaf = torch.zeros((), device=found.device, requires_grad=True)  # for its sake alone is there a backward pass
    rows: Tensor = _Rows.apply(leaf, found.detach(), given[0], embedding)  # type: ignore[no-untyped-call]
    return rows


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _: Tensor, found: Tensor, ids: Tensor, embedding: Any) -> Tensor:
        ctx.embedding = embedding
        ctx.save_for_backward(ids)
        return found.clone()  # of what is returned as it came, autograd forbids a change in place, as CTRL makes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        (ids,) = ctx.saved_tensors
        weight, padding = ctx.embedding.weight, ctx.embedding.padding_idx
        if padding is not None:
            gradient = gradient.masked_fill((ids == padding)[..., None], 0.0)
        with torch.no_grad():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, -2).to(weight.dtype))
        return None, None, None, None
