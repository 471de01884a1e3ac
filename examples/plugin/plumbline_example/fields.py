"""Settings of the kinds in this package: light, since every command imports them."""

from pydantic import Field

from alignment.config import Group


class BrevityFields(Group):
    """The reward `brevity`."""

    words: int = Field(12, ge=1, le=10_000, description="Words that a text should have")


class FewExclamationsFields(Group):
    """The check `few_exclamations`."""

    most: int = Field(3, ge=0, le=1_000, description="Row: exclamation marks in a text, at most")


class ExclamationsFields(Group):
    """The gate `exclamations`."""

    most: float = Field(0.5, ge=0, le=1, description="Fraction of the aligned model's texts that shout, at most")
