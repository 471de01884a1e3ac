"""The choice of a token: temperature, top-k and top-p, then the inverse of the distribution function."""

import numpy as np
import torch
from torch import Tensor

from alignment.config import SamplingConfig

BLOCK = 256
"""Weights whose sum is one entry of the upper level."""

RANKS = (128, 2_048)
"""Likeliest tokens among which a nucleus is looked for, on a CPU, before all are sorted."""


def choose(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """Invert the distribution function of each row: logits [B, V] and uniforms [B] in [0, 1) -> token ids [B].

    Temperature, then top-k, then top-p (Holtzman et al. 2020), as in every common sampler. A token as likely as the
    last one that a filter keeps is kept as well, so that no sort decides between them.
    """
    return draw(logits.clone(), uniforms, config)[0]


def draw(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """The tokens [B] that `choose` gives, and their log-probs [B] in nats, fp64; `logits` [B, V] are overwritten.

    The log-prob is the model's own, at temperature 1 and unfiltered. Where the temperature is 1, it and the choice come
    from one exp(logits - max).
    """
    shifted = logits.sub_(logits.amax(-1, keepdim=True))
    if config.temperature == 1:
        own = shifted.exp_()
        total = block_sums(own)[:, -1]
        token = invert(_filter(own, config), uniforms)
        return token, (own.gather(1, token[:, None])[:, 0].double() / total).log()
    weights = shifted.exp()
    total = block_sums(weights)[:, -1]
    torch.div(shifted, config.temperature, out=weights).exp_()
    token = invert(_filter(weights, config), uniforms)
    return token, shifted.gather(1, token[:, None])[:, 0].double() - total.log()


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first token at which the sum of the weights [B, V] exceeds its uniform's share of their total: -> ids [B].

    Two levels: the block whose running sum passes the target, then the token within it. Only sums within a block are in
    fp32, and of numbers that are not negative, so that a token's share is right to a few fp32 roundings. Running sums
    are in fp64, over V / 256 and then 256 entries. The target is held strictly below the last sum of its level, also
    for a uniform just below 1 and where the two levels round differently. So at each level there is a first entry whose
    sum exceeds it, and there the sum rises: its weight is greater than zero.
    """
    size = weights.shape[-1]
    sums = block_sums(weights)
    target = _below(uniforms.double() * sums[:, -1], sums[:, -1])
    block = torch.searchsorted(sums, target[:, None], right=True).clamp_(max=sums.shape[-1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp_(min=0)), 0.0)[:, 0]
    places = block * BLOCK + torch.arange(min(BLOCK, size), device=weights.device)
    within = weights.gather(1, places.clamp(max=size - 1)).double().masked_fill_(places >= size, 0.0).cumsum(1)
    target = _below(target - before, within[:, -1])
    found = block[:, 0] * BLOCK + torch.searchsorted(within, target[:, None], right=True)[:, 0]
    return found.clamp_(max=size - 1)  # no numbers at all lead beyond


def block_sums(weights: Tensor) -> Tensor:
    """The running sums of weights [B, V] at the end of each block, fp64: the last is their total."""
    whole = weights.shape[-1] // BLOCK * BLOCK
    blocks = weights[:, :whole].view(len(weights), whole // BLOCK, BLOCK).sum(-1)
    rest = weights[:, whole:].sum(-1, keepdim=True)
    return torch.cat([blocks, rest], 1).double().cumsum(1)


def largest(values: Tensor, k: int) -> Tensor:
    """The k largest of each row [B, V], in falling order: [B, k].

    On a CPU by NumPy, which selects and sorts values many times faster than torch does values with their places.
    """
    if values.device.type != "cpu":
        return values.topk(k).values
    size = values.shape[-1]
    rows = values.numpy()
    ranked = rows if k == size else np.partition(rows, size - k, axis=1)[:, size - k :]
    return torch.from_numpy(np.sort(ranked, axis=1)[:, ::-1].copy())


def _below(target: Tensor, total: Tensor) -> Tensor:
    """The target, or the largest number below the total where it is not below it."""
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))


def _filter(weights: Tensor, config: SamplingConfig) -> Tensor:
    """The weights [B, V] with those of tokens outside of the top k, and then of the nucleus, set to zero."""
    size = weights.shape[-1]
    ranked = None
    if 0 < config.top_k < size:
        ranked = largest(weights, config.top_k)
        weights = torch.where(weights < ranked[:, -1:], 0.0, weights)
    if config.top_p < 1:
        mass = config.top_p * block_sums(weights)[:, -1:]
        if ranked is None:
            ranked = _enough(weights, mass)
        running = ranked.double().cumsum(1)
        last = (running - ranked < mass).sum(1, keepdim=True) - 1
        weights = torch.where(weights < ranked.gather(1, last.clamp_(min=0)), 0.0, weights)
    return weights


def _enough(weights: Tensor, mass: Tensor) -> Tensor:
    """As many of each row's largest weights [B, V], in falling order, as have the mass [B, 1] together."""
    size = weights.shape[-1]
    if weights.device.type == "cpu":  # elsewhere asking would wait for the device
        for count in RANKS:
            if count < size:
                ranked = largest(weights, count)
                if bool((ranked.double().sum(1, keepdim=True) >= mass).all()):
                    return ranked
    return largest(weights, size)
