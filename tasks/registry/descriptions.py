"""Descriptions in MLflow that Plumbline keeps current and people may add to: what is above a mark is Plumbline's.

The mark is a line that Markdown does not show.
"""

MAX_LENGTH = 5_000  # characters, the column's width in MLflow's database
MARK = "[//]: # (Plumbline keeps what stands above this line; what stands below it stays as it is)"
CUT = "\n\n… cut here; the whole text is in the run's artifact model_card.md."


def with_ours(text: str, ours: str) -> str:
    """The text with `ours` as the part that Plumbline keeps, above all that is not from Plumbline."""
    above, mark, below = text.partition(MARK)
    theirs = (below if mark else above).strip()
    return f"{ours}\n\n{MARK}\n\n{theirs}".rstrip()


def is_theirs(text: str) -> bool:
    """Whether a person wrote it, and Plumbline has no part in it."""
    return bool(text.strip()) and MARK not in text


def fit(text: str) -> str:
    """The text, cut to what MLflow takes, which it then says."""
    if len(text) <= MAX_LENGTH:
        return text
    return text.removesuffix(CUT)[: MAX_LENGTH - len(CUT)] + CUT
