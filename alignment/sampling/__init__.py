"""Sampling engines: what draws completions from a model."""
