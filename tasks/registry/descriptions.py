"""Descriptions in MLflow that Plumbline keeps current and people may add to: what is above a mark is Plumbline's.

The mark is a line that Markdown does not show.
"""

MAX_LENGTH = 5_000  # characters, the column's width in MLflow's database
MARK = "[//]: # (Plumbline keeps what stands above this line; what stands below it stays as it is)"
ROOM = 1_500  # characters that are left for what happens to a version later
CUT = "\n\n… cut here; the whole text is in the run's artifact model_card.md."


def with_ours(text: str, ours: str) -> str:
    """The text with `ours` as the part that Plumbline keeps, above all that is not from Plumbline."""
    above, mark, below = text.partition(MARK)
    theirs = (below if mark else above).strip()
    return f"{ours}\n\n{MARK}\n\n{theirs}".rstrip()


def is_theirs(text: str) -> bool:
    """Whether a person wrote it, and Plumbline has no part in it."""
    return bool(text.strip()) and MARK not in text


def fit(text: str, room: int = 0) -> str:
    """The text, cut to what MLflow takes less `room` characters, which it then says."""
    longest = MAX_LENGTH - room
    if len(text) <= longest:
        return text
    return text.removesuffix(CUT)[: longest - len(CUT)] + CUT


def can_be_cut(text: str) -> bool:
    """Whether cutting the text loses nothing that a person wrote: it is short enough, or ends where it was cut."""
    return len(text) <= MAX_LENGTH or text.endswith(CUT)
