"""The judge: a model behind an endpoint that grades texts."""

from pydantic import Field

from alignment.config.group import Group


class JudgeConfig(Group):
    """The reward `judge`: a model behind an OpenAI-compatible endpoint that grades each text."""

    url: str = Field("", description="Base URL of the endpoint, such as http://localhost:8000/v1")
    model: str = Field("", description="Name of the model there")
