"""The judge: a model behind an OpenAI-compatible endpoint that grades completions, or prefers one of two."""

import re
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from alignment.config.group import Group, json_values
from alignment.config.server import KEY_VARIABLE, usable_address, usable_variable

OWN = ("model", "messages", "stream", "n")
"""What a request has from other fields, or what an answer could not be read with."""


class JudgeConfig(Group):
    """A model behind an OpenAI-compatible endpoint, for the reward `judge` and for the pairs `judged`."""

    url: str = Field(
        "http://127.0.0.1:8000/v1",
        min_length=1,
        max_length=2_000,
        description="Base URL of the endpoint, up to what stands before /chat/completions; it is in no key",
    )
    model: str = Field("", max_length=500, description="Name of the model at the endpoint")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        min_length=1,
        pattern=KEY_VARIABLE,
        max_length=200,
        description="Environment variable that holds the key, and ends in _API_KEY; unset, no key is sent",
    )
    rubric: str = Field(
        "",
        description="File with what the judge is asked of one completion; {prompt}, {completion}, {conversation}, "
        "{columns}, {columns.NAME}, {scale_min} and {scale_max} are filled in; empty: the built-in one",
    )
    pair_rubric: str = Field(
        "",
        description="File with what the judge is asked of two completions, {first} and {second}, for pairs.source "
        "`judged`; its answer has to end in `Preferred: A`, `B` or `tie`; empty: the built-in one",
    )
    scale_min: float = Field(1.0, ge=-1e6, le=1e6, description="Lowest score; an answer below it counts as unparsable")
    scale_max: float = Field(10.0, ge=-1e6, le=1e6, description="Highest score; one above it counts as unparsable")
    pattern: str = Field(
        "",
        max_length=1_000,
        description="Regular expression with one group, the score; the last match counts; empty: the number after the "
        "last `Score:`",
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Temperature of the judge's answers")
    max_answer_tokens: int = Field(512, ge=1, le=131_072, description="Longest answer in tokens")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed sent with each request; another one asks again")
    extra: dict[str, Any] = Field(
        {},
        description="Further fields of each request, such as {chat_template_kwargs: {enable_thinking: false}}; null "
        "leaves one out, as in {seed: null}",
    )
    concurrency: int = Field(8, ge=1, le=1_024, description="Requests under way at the same time")
    timeout: float = Field(120.0, gt=0, le=3_600, description="Seconds that one request may take")
    retries: int = Field(
        6, ge=0, le=100, description="Further tries of a request that failed for a reason that may pass"
    )
    max_calls: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Most calls of one stage, kept answers and failed calls included; 0: no limit",
    )
    max_tokens_total: int = Field(
        0,
        ge=0,
        le=10**15,
        description="Most tokens of one stage, as the endpoint counts them, kept answers included; 0: no limit",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return usable_address(url, "reward.judge.url", "reward.judge.api_key_env")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_judge_s(cls, name: str) -> str:
        return usable_variable(name, "reward.judge.api_key_env")

    @field_validator("pattern")
    @classmethod
    def _has_one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"reward.judge.pattern = {pattern!r}: no regular expression ({error})") from error
        if pattern and groups != 1:
            raise ValueError(
                f"reward.judge.pattern = {pattern!r} has {groups} groups, expected one, around the score; "
                "a further one is written (?:…)"
            )
        return pattern

    @field_validator("extra")
    @classmethod
    def _adds_to_the_request(cls, extra: dict[str, Any]) -> dict[str, Any]:
        """A YAML file's values are texts: one that is JSON, such as `false` or `3`, is what it says there."""
        if taken := sorted(extra.keys() & set(OWN)):
            raise ValueError(f"reward.judge.extra: {', '.join(taken)} cannot be set here; leave it out")
        return {name: json_values(value) for name, value in extra.items()}

    @model_validator(mode="after")
    def _scale_is_one(self) -> Self:
        if self.scale_min >= self.scale_max:
            raise ValueError(
                f"reward.judge.scale_min = {self.scale_min:g} is not below reward.judge.scale_max = {self.scale_max:g}"
            )
        return self
