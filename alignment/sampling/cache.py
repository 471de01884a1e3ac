"""A key/value cache with one time axis: every row ends at the present column, and nothing grows by copying.

A row of a batch begins at a column of its own, so that rows of unlike lengths share the axis as if padded on the left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


def is_plain(cache: Any) -> bool:
    """Whether a cache that a model filled is keys and values [B, H, T, D] a layer and nothing else."""
    return type(cache) is DynamicCache and bool(cache.layers) and all(map(_is_plain_layer, cache.layers))


def _is_plain_layer(layer: Any) -> bool:
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) or layer.keys is None:
        return False
    return bool(layer.keys.dim() == layer.values.dim() == 4 and layer.keys.numel() and layer.values.numel())


def bytes_per_token(cache: Any) -> int:
    """What a plain cache takes per row and token."""
    return sum(
        states.shape[1] * states.shape[3] * states.element_size()
        for layer in cache.layers
        for states in (layer.keys, layer.values)
    )


@dataclass
class Axis:
    """The columns in use, `start` to `now`, of the first `rows` rows; the next token comes into column `now`."""

    start: int = 0
    now: int = 0
    rows: int = 0


class AxisLayer(CacheLayerMixin):
    """One layer's keys and values, allocated once; a model is handed views of the columns in use.

    With a sliding window the views hold the last `window` columns only, as transformers' own layer does.
    """

    def __init__(self, axis: Axis, keys: Tensor, values: Tensor, window: int) -> None:
        """`keys` and `values` are [rows, H, columns, D] and hold numbers everywhere; a window of 0 sees all."""
        super().__init__()
        self.axis, self.window = axis, window
        self.store = (keys, values)
        self.is_sliding = window > 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """There is nothing left to do."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the present column(s) in place: -> views of all that these may attend to."""
        axis, count = self.axis, key_states.shape[-2]
        begin, end = self._begin(), axis.now + count
        keys, values = self.store
        keys[: axis.rows, :, axis.now : end] = key_states
        values[: axis.rows, :, axis.now : end] = value_states
        return keys[: axis.rows, :, begin:end], values[: axis.rows, :, begin:end]

    def get_seq_length(self) -> int:
        """Columns in use before the present one."""
        return self.axis.now - self.axis.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns `update` will hand out, and how many in use lie before them."""
        begin = self._begin()
        return self.axis.now + query_length - begin, begin - self.axis.start

    def get_max_length(self) -> int:
        """None that a model has to know of."""
        return -1

    def _begin(self) -> int:
        return max(self.axis.start, self.axis.now + 1 - self.window) if self.window else self.axis.start


class AxisCache:
    """The layers of a model on one axis, and what happens to all of them alike."""

    def __init__(self, like: Any, rows: int, columns: int) -> None:
        """Room for `rows` of `columns`, in the shapes and types of a plain cache that the model filled."""
        self.axis = Axis()
        self.columns = columns

        def store(states: Tensor) -> Tensor:
            kept = states.new_zeros((rows, columns, states.shape[1], states.shape[3]))
            return kept.transpose(1, 2)  # a token's heads lie together: fewer places to write, and to read

        self.layers = [
            AxisLayer(self.axis, store(layer.keys), store(layer.values), getattr(layer, "sliding_window", 0))
            for layer in like.layers
        ]
        self.cache = Cache(layers=list(self.layers))

    def put(self, filled: Any, of_row: Tensor) -> None:
        """Give new rows, after those there are, the filled plain cache's rows `of_row`, ending before `now`."""
        axis, count = self.axis, len(of_row)
        for layer, given in zip(self.layers, filled.layers, strict=True):
            for store, states in zip(layer.store, (given.keys, given.values), strict=True):
                begin = axis.now - states.shape[-2]
                store[axis.rows : axis.rows + count, :, begin : axis.now] = states.index_select(0, of_row)
        axis.rows += count

    def keep(self, moved: Sequence[int], into: Sequence[int], rows: int) -> None:
        """Copy the rows `moved` over the rows `into`, and keep the first `rows`."""
        axis = self.axis
        if moved:
            device = self.layers[0].store[0].device
            source, target = (torch.tensor(places, device=device) for places in (moved, into))
            for layer in self.layers:
                for store in layer.store:
                    used = store[:, :, axis.start : axis.now]
                    used[target] = used[source]
        axis.rows = rows

    def move(self, now: int) -> int:
        """Move the columns in use so that the next token's is `now`; by how many they went up."""
        axis = self.axis
        by = now - axis.now
        for layer in self.layers:
            for store in layer.store:
                used = store[: axis.rows, :, axis.start : axis.now].clone()
                store[: axis.rows, :, axis.start + by : now] = used
        axis.start, axis.now = axis.start + by, now
        return by
