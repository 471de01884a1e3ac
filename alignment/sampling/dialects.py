"""What servers that take and give token ids are asked, and what their answers say: vLLM's and SGLang's protocols."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from alignment.config import SamplingConfig
from alignment.sampling.kept import Drawn

Body = dict[str, Any]


class Dialect(Protocol):
    """How one kind of server is asked of one of its models; answers are read strictly.

    What is no such answer raises KeyError, IndexError, TypeError, AttributeError or ValueError.
    """

    path: ClassVar[str]
    """Where samples and log-probs are asked for, behind the base URL, or from the server's root with a slash before."""
    version_paths: ClassVar[Sequence[str]]
    """Where the server may say its `version`, the first of them where it does so today."""

    def __init__(self, model: str) -> None:
        """`model` is its name at the server."""

    def sample(
        self, prompt: Sequence[int], tokens: int, seed: int, ends: Sequence[int], config: SamplingConfig
    ) -> Body:
        """Ask for one sample of at most so many tokens, with the log-prob of each."""

    def drawn(self, answer: Any) -> Drawn:
        """What was drawn."""

    def score(self, ids: Sequence[int]) -> Body:
        """Ask for the log-prob of each token of a text."""

    def scored(self, answer: Any, ids: Sequence[int]) -> list[float | None]:
        """These log-probs, None for the first token."""


class Vllm:
    """vLLM's completions: `prompt` as ids, `return_token_ids`, `logprobs`, `prompt_logprobs`; log-probs are unfiltered.

    All that a model's `generation_config.json` may set on the server is set here. Only the end tokens given end a text.
    """

    path: ClassVar[str] = "completions"
    version_paths: ClassVar[Sequence[str]] = ("/version",)

    def __init__(self, model: str) -> None:
        """`model` is its name at the server."""
        self.model = model

    def sample(
        self, prompt: Sequence[int], tokens: int, seed: int, ends: Sequence[int], config: SamplingConfig
    ) -> Body:
        """See `Dialect`."""
        return {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "seed": seed,
            **_choice(config, every_token=0),
            "ignore_eos": True,
            "stop_token_ids": list(ends),
            "stop": list(config.stop),
            "logprobs": 0,
            "return_token_ids": True,
        }

    def drawn(self, answer: Any) -> Drawn:
        """See `Dialect`."""
        (choice,) = answer["choices"]
        logprobs = [float(each) for each in choice["logprobs"]["token_logprobs"]]
        return Drawn(_ids(choice["token_ids"]), logprobs, str(choice.get("finish_reason") or ""))

    def score(self, ids: Sequence[int]) -> Body:
        """See `Dialect`."""
        return {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": 1,
            "return_token_ids": True,
        }

    def scored(self, answer: Any, ids: Sequence[int]) -> list[float | None]:
        """See `Dialect`."""
        (choice,) = answer["choices"]
        return [
            None if row is None else float(row[str(token)]["logprob"])
            for token, row in zip(ids, choice["prompt_logprobs"], strict=True)
        ]


class Sglang:
    """SGLang's own `/generate`: `input_ids`, `return_logprob`, and a token's log-prob beside its id.

    At another temperature than 1 it gives log-probs at that temperature, and its seeds count with
    `--enable-deterministic-inference` alone. Its `ignore_eos` would switch off the end tokens given as well, so that
    those of the served model's own end a text too.
    """

    path: ClassVar[str] = "/generate"
    version_paths: ClassVar[Sequence[str]] = ("/server_info", "/get_server_info")

    def __init__(self, model: str) -> None:
        """`model` is its name at the server, which serves no other."""
        self.model = model

    def sample(
        self, prompt: Sequence[int], tokens: int, seed: int, ends: Sequence[int], config: SamplingConfig
    ) -> Body:
        """See `Dialect`."""
        settings = {
            "max_new_tokens": tokens,
            "sampling_seed": seed,
            **_choice(config, every_token=-1),
            "stop_token_ids": list(ends),
            "stop": list(config.stop),
            "no_stop_trim": True,
        }
        return {"input_ids": list(prompt), "sampling_params": settings, "return_logprob": True}

    def drawn(self, answer: Any) -> Drawn:
        """See `Dialect`."""
        meta = answer["meta_info"]
        pairs = meta["output_token_logprobs"]
        reason = (meta.get("finish_reason") or {}).get("type", "")
        return Drawn(_ids([pair[1] for pair in pairs]), [float(pair[0]) for pair in pairs], str(reason))

    def score(self, ids: Sequence[int]) -> Body:
        """See `Dialect`."""
        settings = {"max_new_tokens": 1, "temperature": 1.0}
        return {"input_ids": list(ids), "sampling_params": settings, "return_logprob": True, "logprob_start_len": 0}

    def scored(self, answer: Any, ids: Sequence[int]) -> list[float | None]:
        """See `Dialect`."""
        found: list[float | None] = []
        for token, pair in zip(ids, answer["meta_info"]["input_token_logprobs"], strict=True):
            if pair[1] != token:
                raise ValueError(f"token {pair[1]} in the place of {token}")
            found.append(None if pair[0] is None else float(pair[0]))
        return found


DIALECTS: Mapping[str, type[Dialect]] = {"vllm": Vllm, "sglang": Sglang}
"""By what `sampling.endpoint.server` says."""


def _choice(config: SamplingConfig, every_token: int) -> Body:
    """How a token is chosen; `every_token` is the server's word for a top-k that keeps all."""
    return {
        "temperature": config.temperature,
        "top_k": config.top_k or every_token,
        "top_p": config.top_p,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def _ids(given: Sequence[Any]) -> list[int]:
    """Token ids, none of them below 0 or a truth value."""
    if any(type(each) is not int or each < 0 for each in given):
        raise ValueError("what stands for token ids is none")
    return list(given)
