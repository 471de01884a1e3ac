"""The fields of engines that draw samples outside of this process: a server, and vLLM in an environment of its own."""

from typing import Literal

from pydantic import Field, field_validator

from alignment.config.group import Group
from alignment.config.server import KEY_VARIABLE, usable_address, usable_variable

MAX_DIFFERENCE = 0.05
"""Between an engine that rounds to bf16 and fp32 there were 0.01 to 0.02 nats a token."""


class EndpointConfig(Group):
    """The engine `endpoint`: a server that has the base model loaded, vLLM's or SGLang's."""

    server: Literal["vllm", "sglang"] = Field(
        "vllm", description="What answers: `vllm` by its completions with token ids, `sglang` by its own /generate"
    )
    base_url: str = Field(
        "",
        max_length=2_000,
        description="Base URL of the server, up to what stands before /completions, such as http://127.0.0.1:8000/v1; "
        "it is in no key",
    )
    model: str = Field(
        "", max_length=500, description="Name of the model at the server; empty: the only one that it serves"
    )
    version: str = Field(
        "",
        max_length=100,
        description="Version of the server, which is part of the samples' key; empty: it is asked, and has to run "
        "whenever the key is needed",
    )
    api_key_env: str = Field(
        "SAMPLING_API_KEY",
        min_length=1,
        pattern=KEY_VARIABLE,
        max_length=200,
        description="Environment variable that holds the key, and ends in _API_KEY; unset, no key is sent",
    )
    max_difference: float = Field(
        MAX_DIFFERENCE,
        gt=0,
        le=10,
        description="Mean difference from the base model's own log-probs, in nats a token, beyond which nothing is "
        "drawn: the server has other weights",
    )
    concurrency: int = Field(64, ge=1, le=1_024, description="Requests under way at the same time")
    timeout: float = Field(600.0, gt=0, le=86_400, description="Seconds that one request may take")
    retries: int = Field(
        6, ge=0, le=100, description="Further tries of a request that failed for a reason that may pass"
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return usable_address(url, "sampling.endpoint.base_url", "sampling.endpoint.api_key_env") if url else url

    @field_validator("api_key_env")
    @classmethod
    def _is_for_this_server(cls, name: str) -> str:
        return usable_variable(name, "sampling.endpoint.api_key_env")


class VllmConfig(Group):
    """The engine `vllm`: vLLM on this machine, by the interpreter that PLUMBLINE_VLLM_PYTHON names."""

    max_difference: float = Field(
        MAX_DIFFERENCE,
        gt=0,
        le=10,
        description="Mean difference from the model's own log-probs, in nats a token, beyond which nothing is drawn",
    )
    gpu_memory: float = Field(
        0.85, gt=0, le=1, description="Fraction of the GPU's memory that vLLM may take; the model's other copy waits"
    )
