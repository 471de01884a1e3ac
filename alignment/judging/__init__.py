"""Judging a policy: metrics, statistics, gates, and how their results are shown."""
