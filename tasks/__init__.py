"""Thin Prefect tasks, one a stage: they pass references between stages and never data."""
