"""Prefect tasks, one per stage, and what they need: they pass references between stages and never data."""

from tasks.home import set_defaults

set_defaults()  # before any of them imports Prefect, MLflow or a Hugging Face library
