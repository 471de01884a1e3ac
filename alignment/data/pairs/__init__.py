"""Pairs: by a source that is open to other packages, such as the samples of a prompt by a strategy."""

from alignment.data.pairs.source import Indices, PairSource, StrategyFunction, pair_source, strategy

__all__ = ["Indices", "PairSource", "StrategyFunction", "pair_source", "strategy"]
