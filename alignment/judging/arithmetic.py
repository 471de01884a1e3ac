"""The arithmetic of the metrics: plain functions over token ids, log-probs and rewards, that know no model and no text.

A sequence is one completion's token ids, EOS included, and nothing else. Log-probs are sums over a completion, in nats,
at temperature 1. Shapes: (samples,) unless said otherwise. An input without anything to measure raises ValueError.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Tokens: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
Values: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
Lengths: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


def token_entropy(sequences: Sequence[Tokens]) -> float:
    """Shannon entropy, in nats, of the unigram distribution over all tokens of all sequences; 0..ln(distinct tokens).

    Blind to word order: shuffled words have the entropy of the text they came from.
    """
    tokens, _ = _flatten(sequences, "token_entropy")
    _, counts = np.unique(tokens, return_counts=True)
    p = counts / tokens.size
    return float(-(p @ np.log(p))) + 0.0  # -0.0 becomes 0.0


def distinct_n(sequences: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams of all sequences over their total number of tokens, in 0..1.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models". The paper divides by
    tokens, not by n-grams, so the value is defined, and 0, where no sequence has n tokens. It falls as more text is
    measured: compare only samples of like size.
    """
    tokens, owners = _flatten(sequences, f"distinct_{n}")
    grams, _ = _ngrams(tokens, owners, n)
    return float(np.count_nonzero(np.bincount(grams)) / tokens.size)


def repetition(sequences: Sequence[Tokens], n: int = 3) -> float:
    """Mean over sequences of 1 - distinct n-grams / n-grams, in 0..1.

    Sequences shorter than n are left out; 0 if all are. This is seq-rep-n of Welleck et al. 2020, "Neural Text
    Generation with Unlikelihood Training".
    """
    tokens, owners = _flatten(sequences, "repetition")
    grams, owners = _ngrams(tokens, owners, n)
    if not grams.size:
        return 0.0
    texts, text, total = np.unique(owners, return_inverse=True, return_counts=True)
    _, first = np.unique(text * (grams.max() + 1) + grams, return_index=True)  # each n-gram of each text, once
    distinct = np.bincount(text[first], minlength=texts.size)
    return float(np.mean(1.0 - distinct / total))


def perplexity(logprobs: Values, lengths: Lengths) -> float:
    """exp of minus the total log-prob over the total number of tokens; at least 1, and inf where that overflows."""
    total, tokens = _totals("perplexity", lengths, logprobs)
    with np.errstate(over="ignore"):
        return float(np.exp(-total / tokens))


def kl_per_sequence(policy_logprobs: Values, reference_logprobs: Values) -> float:
    """KL(policy || reference) in nats per sequence, from the policy's own samples; it may be negative by chance.

    The unbiased Monte-Carlo estimate: the mean of log policy(y|x) - log reference(y|x) over y drawn from the policy.
    Both arguments are log-probs of those same samples.
    """
    policy, reference = _aligned("kl_per_sequence", policy_logprobs, reference_logprobs)
    with np.errstate(invalid="ignore"):
        return float(np.mean(policy - reference))


def kl_per_token(policy_logprobs: Values, reference_logprobs: Values, lengths: Lengths) -> float:
    """KL(policy || reference) in nats per token: the total of those differences over the total of tokens."""
    policy, reference = _aligned("kl_per_token", policy_logprobs, reference_logprobs)
    with np.errstate(invalid="ignore"):
        total, tokens = _totals("kl_per_token", lengths, policy - reference)
    return total / tokens


def reward_mean(rewards: Values) -> float:
    """Mean reward, in the reward's own units."""
    (values,) = _aligned("reward_mean", rewards)
    with np.errstate(invalid="ignore"):
        return float(np.mean(values))


def reward_sd(rewards: Values) -> float:
    """Sample standard deviation (n - 1 below) of the rewards, in the reward's own units."""
    (values,) = _aligned("reward_sd", rewards)
    if values.size < 2:
        raise ValueError("reward_sd: one reward has no spread, give two or more")
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1))


def _flatten(sequences: Sequence[Tokens], name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All tokens in a row, and for each the index of its sequence; both (tokens,)."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if not lengths.sum():
        raise ValueError(f"{name}: no tokens to measure in {len(sequences)} sequences")
    tokens = np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])
    return tokens, np.repeat(np.arange(lengths.size), lengths)


def _ngrams(
    tokens: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A number from 0 for each n-gram, the same for equal ones, and its sequence's index; none spans two sequences."""
    if n < 1:
        raise ValueError(f"n-grams of n = {n}: n must be at least 1")
    count = max(tokens.size - n + 1, 0)
    inside = owners[:count] == owners[tokens.size - count :]
    vocabulary, ids = np.unique(tokens, return_inverse=True)
    grams = ids[:count]
    for k in range(1, n):
        _, grams = np.unique(grams * vocabulary.size + ids[k : k + count], return_inverse=True)
    return grams[inside], owners[:count][inside]


def _aligned(name: str, *columns: Values) -> tuple[npt.NDArray[np.float64], ...]:
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    sizes = [array.size for array in arrays]
    if len(set(sizes)) > 1:
        raise ValueError(f"{name}: inputs of different lengths, {' and '.join(map(str, sizes))}")
    if not sizes[0]:
        raise ValueError(f"{name}: no samples to measure")
    return arrays


def _totals(name: str, lengths: Lengths, values: Values) -> tuple[float, float]:
    values, tokens = _aligned(name, values, np.asarray(lengths, dtype=np.float64))
    if not tokens.sum():
        raise ValueError(f"{name}: no tokens to measure in {tokens.size} sequences")
    return float(values.sum()), float(tokens.sum())
