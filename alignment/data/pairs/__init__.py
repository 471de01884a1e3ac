"""Pairs: by a source that is open to other packages, such as the samples of a prompt by a strategy."""

from alignment.data.pairs.source import Built, Indices, PairSource, StrategyFunction, pair_source, strategy

__all__ = ["Built", "Indices", "PairSource", "StrategyFunction", "pair_source", "strategy"]
