"""Attention over sequences that lie flat, one behind another: `transformers`' attention interface, told where they are.

A model whose attention goes through that interface runs on a flat layout without a change: each of its layers computes
on T tokens without padding, and only attention itself sees rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignment.layout import Layout

NAME = "plumbline_flat"
"""What the attention is called in `transformers`; it has no mask function, so no mask is made for it."""


class Rows(NamedTuple):
    """Where the sequences' tokens are: see `Layout`."""

    gather: Tensor
    first: Tensor
    again: Tensor
    again_of: Tensor


def inputs(layout: Layout) -> dict[str, Any]:
    """What a model is called with; of a flat layout, its attention has to be switched over by `attention`.

    The rows go through the model as an argument, so that a layer that gradient checkpointing computes again, in
    whichever thread, has its own.
    """
    if not layout.is_flat:
        return {"input_ids": layout.ids}
    rows = Rows(layout.gather, layout.first, layout.again, layout.again_of)
    mask = torch.ones_like(layout.ids)  # some look for padding, and so for numbers of the device, where there is none
    return {"input_ids": layout.ids, "position_ids": layout.positions, "attention_mask": mask, "flat_rows": rows}


def can_serve(model: Any) -> bool:
    """Whether a model's attention goes through the interface, and tells it by arguments all that a mask would say.

    The second is what flash attention asks for as well.
    """
    own = _pretrained(model)
    return own is not None and bool(own._can_set_attn_implementation() and own._supports_flash_attn)


@contextmanager
def attention(model: Any) -> Iterator[None]:
    """Switch a model's attention over to flat layouts, and back to its own, which is saved with it, at the end."""
    own = _pretrained(model)
    configs = {id(part.config): part.config for part in own.modules() if isinstance(part, PreTrainedModel)}
    before = [(config, config._attn_implementation) for config in configs.values()]
    own.set_attn_implementation(NAME)
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def _pretrained(model: Any) -> Any:
    """The model itself, or what an adapter wraps."""
    return next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    flat_rows: Rows | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence: query, key, value [1, heads, T, D] to [1, T, heads, D].

    Raises NotImplementedError where the model asks for more.
    """
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if flat_rows is None or attention_mask is not None or others.get("is_causal") is False or unknown:
        raise NotImplementedError(f"flat attention without rows, with a mask, or with {unknown}")
    rows, length = flat_rows.gather.shape
    mask = None
    if sliding_window is not None and sliding_window < length:
        places = torch.arange(length, device=query.device)
        back = places[:, None] - places
        mask = ((back >= 0) & (back < sliding_window))[None, None]

    def gathered(states: Tensor) -> Tensor:
        found: Tensor = _Gather.apply(states[0].transpose(0, 1), *flat_rows)  # type: ignore[no-untyped-call]
        return found.view(rows, length, *found.shape[1:]).transpose(1, 2)

    output, _ = sdpa_attention_forward(module, gathered(query), gathered(key), gathered(value), mask, **others)
    flat: Tensor = _Scatter.apply(output.flatten(0, 1), flat_rows.first)  # type: ignore[no-untyped-call]
    return flat[None], None


class _Gather(torch.autograd.Function):
    """[T, ...] to rows [R·L, ...]. A token's gradients from several rows are added; most tokens are in one."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, gather: Tensor, first: Tensor, again: Tensor, again_of: Tensor) -> Tensor:
        ctx.save_for_backward(first, again, again_of)
        return states.index_select(0, gather.view(-1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        first, again, again_of = ctx.saved_tensors
        found = gradient.index_select(0, first)
        if len(again):
            found.index_add_(0, again_of, gradient.index_select(0, again))
        return found, None, None, None, None


class _Scatter(torch.autograd.Function):
    """Rows [R·L, ...] back to [T, ...]: of a token that is in several rows, what the first gave."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, first: Tensor) -> Tensor:
        ctx.save_for_backward(first)
        ctx.size = len(states)
        return states.index_select(0, first)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (first,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, first, gradient), None


AttentionInterface.register(NAME, _attend)
