"""Keeps the descriptions of a registered model and its versions current, wherever aliases move or somebody decides."""

import logging

from alignment.aliases import CHALLENGER, CHAMPION, PREVIOUS
from alignment.errors import PlumblineError
from tasks.registry import summaries, versions
from tasks.registry.descriptions import can_be_cut, is_theirs, with_ours

logger = logging.getLogger("plumbline")

SHOWN = (CHAMPION, CHALLENGER, PREVIOUS)


def keep_current(name: str, *numbers: str) -> None:
    """Write anew what Plumbline keeps of the descriptions of a model and of these versions; the caller holds its lock.

    What people wrote stays. They are for reading only: a failure is logged.
    """
    try:
        for number in numbers:
            _describe_version(name, number)
        _describe_model(name)
    except PlumblineError as error:
        logger.warning("models:/%s: its description was not brought up to date: %s", name, error)


def _describe_version(name: str, number: str) -> None:
    version = versions.get_version(name, number)
    ours = summaries.version_summary(version.tags)
    text = with_ours(version.description, ours)
    if not can_be_cut(text):
        logger.warning("models:/%s/%s: its description has no room for the last decision", name, number)
    elif ours and text != version.description:
        versions.describe_version(name, number, text)


def _describe_model(name: str) -> None:
    model = versions.read_model(name)
    if model is None or is_theirs(model.description):
        return
    found = {alias: versions.get_version(name, model.aliases[alias]) for alias in SHOWN if alias in model.aliases}
    text = with_ours(model.description, summaries.model_summary(found))
    if text != model.description:
        versions.describe_model(name, text)
