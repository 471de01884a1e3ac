"""Prompts of a batch: the distinct ones, and their columns padded on the left."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignment.layout import Tokens


def distinct(prompts: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """The distinct prompts, and for each of those given its place among them."""
    places: dict[tuple[int, ...], int] = {}
    of_given = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
    return list(places), of_given


def pad_left(prompts: Sequence[Tokens], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids [P, T], every prompt ending in the last column, and the mask [P, T] of what is no padding."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return ids, mask
