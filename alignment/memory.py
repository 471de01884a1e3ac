"""The memory that work with a model takes at its fullest: arithmetic from the model's config.json and what is done.

Nothing is loaded, and nothing asked of a device. `benchmarks/memory.py` holds it beside measured peaks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignment.batching import KEPT, PREFILL_TOKENS

FLOAT, HALF = 4, 2
"""Bytes of a number in fp32, and in bf16."""

WEIGHT = {"fp32": FLOAT, "bf16": HALF, "4bit": 0.53}
"""Bytes of a weight of a linear layer as it is loaded; in 4 bits with its share of the blocks' scales, which are
quantised too (Dettmers et al. 2023, section 3)."""

STATES = {"adamw": 2 * FLOAT, "rmsprop": FLOAT, "adamw_8bit": 2}
"""Bytes that an optimiser keeps for each weight that it trains."""

FRAGMENTS = 1.25
"""What an allocator takes for blocks that come and go, of what they hold: activations alone are many of unlike sizes.

Measured on CPUs over three steps: 1.2 in full training, 1.5 with adapters.
"""

BESIDE = 1.1
"""The same of keys and values and of a layer's states where nothing is trained."""

ERROR = 0.2
"""How far a measured peak is from the estimate at most; what is over the device by more cannot fit."""

_NAMES = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "d_ff"),
    "positions": ("n_positions", "max_position_embeddings"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "used": ("num_experts_per_tok", "num_experts_per_token"),
}
"""What configs call a figure."""

_TWO_MATRICES = {
    *("gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "codegen", "opt", "phi", "bloom", "falcon", "mpt"),
    *("starcoder2", "bert", "distilbert", "roberta"),
}
"""Types of models whose MLP has no gate."""

_LEARNED_POSITIONS = {"gpt2", "gpt_neo", "gpt_bigcode", "opt", "bert", "distilbert", "roberta"}


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory, in numbers and not in bytes."""

    weights: int
    layers: int = 0
    width: int = 0
    inner: int = 0
    queries: int = 0
    """Heads times their size."""
    keys: int = 0
    """The same of the heads of keys, which values have too."""
    vocabulary: int = 0
    gated: bool = True

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: int | None = None) -> "Shape | None":
        """The shape that a config.json tells, of a model of so many `weights` where that is known; None if too little.

        Without `weights` they are counted as transformers and mixtures of experts have them, norms and biases left out.
        """
        text = config.get("text_config")
        told = {**config, **text} if isinstance(text, Mapping) else dict(config)
        found = {name: _number(told, names) for name, names in _NAMES.items()}
        width, layers, vocabulary = found["width"], found["layers"], _number(told, ("vocab_size",))
        if not width or not layers or not vocabulary:
            return None if weights is None else cls(weights)
        kind, heads = str(told.get("model_type", "")), found["heads"] or 1
        size = _number(told, ("head_dim",)) or width // heads
        few = 1 if told.get("multi_query") else _number(told, ("num_key_value_heads",)) or heads
        gated, experts = kind not in _TWO_MATRICES, found["experts"] or 1
        of_expert = _number(told, ("moe_intermediate_size",)) if experts > 1 else 0
        inner = of_expert or found["inner"] or 4 * width
        shape = cls(
            weights or 0,
            layers,
            width,
            inner * min(found["used"] or 1, experts),
            heads * size,
            few * size,
            vocabulary,
            gated,
        )
        if weights is not None:
            return shape
        ends = vocabulary * width * (1 if told.get("tie_word_embeddings", True) else 2)
        positions = (found["positions"] or 0) * width if kind in _LEARNED_POSITIONS else 0
        attention = 2 * width * (shape.queries + shape.keys)
        each = attention + (3 if gated else 2) * width * inner * experts
        return replace(shape, weights=ends + positions + layers * each)

    @property
    def linear(self) -> int:
        """Weights of the layers between embedding and output head."""
        return max(0, self.weights - self.vocabulary * self.width)

    def loaded(self, load_in: str) -> int:
        """Bytes of the weights in memory; embedding and head are never in 4 bits."""
        rest = HALF if load_in == "4bit" else WEIGHT[load_in]
        return int(self.linear * WEIGHT[load_in] + (self.weights - self.linear) * rest)

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter of a rank on every linear layer but the head."""
        attention = 2 * (self.width + self.queries) + 2 * (self.width + self.keys)
        return self.layers * rank * (attention + (3 if self.gated else 2) * (self.width + self.inner))

    def kept(self, *, trained: bool = True) -> int:
        """Numbers that a layer keeps of each token for its backward pass, attention by a fused kernel.

        That is the inputs of what is multiplied, of norms (and what they normalised, where they are trained), of the
        activation and of its product with the gate; counted from what autograd saves of Llama's and GPT-2's layers.
        """
        norms = 4 if trained and self.gated else 2 if self.gated else 3
        products = 3 if self.gated else 2
        return (norms + products) * self.width + 2 * (self.queries + self.keys) + (4 if self.gated else 2) * self.inner

    def cached(self) -> int:
        """Numbers that all layers keep of each token in sampling."""
        return 2 * self.layers * self.keys


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage holds, by what they are for.

    Of activations and gradients the backward pass turns one into the other, so that they are not all there at once,
    unless gradients are `accumulated` over several batches.
    """

    weights: int = 0
    optimizer: int = 0
    gradients: int = 0
    activations: int = 0
    cache: int = 0
    logits: int = 0
    accumulated: bool = False

    def sharded(self, processes: int) -> "Memory":
        """What one of several processes holds that share the weights and what is kept of each."""
        own = {name: getattr(self, name) // processes for name in ("weights", "optimizer", "gradients")}
        return replace(self, **own)

    def of(self, processes: int) -> "Memory":
        """What so many processes hold together."""
        sizes = {name: size * processes for name, size in vars(self).items() if name != "accumulated"}
        return replace(self, **sizes)

    @property
    def floor(self) -> int:
        """What no length and no batch makes less: weights, gradients, and what the optimiser keeps."""
        return self.weights + self.optimizer + self.gradients

    @property
    def peak(self) -> int:
        """What it holds at its fullest."""
        passing = self.activations + self.logits + self.cache
        most = self.gradients + passing if self.accumulated else max(self.gradients, passing)
        return self.weights + self.optimizer + most

    @property
    def at_least(self) -> int:
        """What it takes however far the estimate is off."""
        return max(self.floor, int((1 - ERROR) * self.peak))

    @property
    def told(self) -> str:
        """The peak, and what it is made of."""
        named = {name: getattr(self, name) for name in ("weights", "optimizer", "gradients", "activations", "cache")}
        parts = [f"{name} {gigabytes(size)}" for name, size in (named | {"logits": self.logits}).items() if size]
        return f"{gigabytes(self.peak)} ({', '.join(parts)})"


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6)):,} MB"


def training(
    shape: Shape,
    tokens: int,
    *,
    predicted: int,
    optimizer: str = "adamw",
    precision: str = "fp32",
    load_in: str = "fp32",
    rank: int = 0,
    checkpointing: bool = False,
    accumulated: bool = False,
    kind: str = "cpu",
) -> Memory:
    """A step on so many tokens, of which `predicted` are in the loss; of an adapter of a `rank`, or of all weights."""
    rounded = precision == "bf16"
    trained = shape.adapter(rank) if rank else shape.weights
    weights = shape.loaded(load_in) + (FLOAT * trained if rank else 0)
    if rounded and load_in == "fp32":
        weights += HALF * shape.weights  # autocast's copies of what it multiplies with
    layer = shape.kept(trained=not rank) + (7 if shape.gated else 4) * rank
    each = HALF + 1 if rounded else FLOAT  # norms and what is added stay in fp32
    numbers = layer + shape.layers * shape.width if checkpointing else shape.layers * layer
    head = 0 if rank else FLOAT * shape.vocabulary * shape.width  # its gradient is there before those of the layers
    logits = FLOAT * predicted * shape.vocabulary
    return Memory(
        weights,
        STATES[optimizer] * trained,
        FLOAT * trained,
        int(FRAGMENTS * each * numbers * tokens) + head,
        logits=logits if logits <= FLOAT * KEPT.get(kind, KEPT["cuda"]) else 0,
        accumulated=accumulated,
    )


def scoring(shape: Shape, tokens: int, precision: str = "fp32", load_in: str = "") -> Memory:
    """Log-probs, or scores, of so many tokens at once; `load_in` where the weights are not loaded in the precision."""
    each = HALF if precision == "bf16" else FLOAT
    weights = shape.loaded(load_in or _loaded_as(precision))
    if precision == "bf16" and load_in == "fp32":
        weights += HALF * shape.weights  # autocast's copies of what it multiplies with
    return Memory(weights, activations=int(BESIDE * each * shape.kept() * tokens))


def sampling(shape: Shape, rows: int, length: int, precision: str = "fp32", *, copied: bool = False) -> Memory:
    """So many texts at once, each up to a length; `copied` where linear layers are laid out anew for it."""
    each = HALF if precision == "bf16" else FLOAT
    weights = shape.loaded(_loaded_as(precision)) + (each * shape.linear if copied else 0)
    prefill = min(rows * length, PREFILL_TOKENS)
    return Memory(
        weights,
        activations=int(BESIDE * each * shape.kept() * prefill),
        cache=int(BESIDE * each * shape.cached() * rows * length),
        logits=3 * FLOAT * rows * shape.vocabulary,
    )


def _loaded_as(precision: str) -> str:
    return "bf16" if precision == "bf16" else "fp32"


def _number(told: Mapping[str, Any], names: Iterable[str]) -> int:
    found = (told.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), 0)
