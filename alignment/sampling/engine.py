"""What draws samples: the request of one, what comes back, and the protocol of an engine."""

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from alignment.config import SamplingConfig
from alignment.kinds import ENGINE_VERSIONS, ENGINES, registers

if TYPE_CHECKING:  # they bring torch
    from alignment.layout import Tokens
    from alignment.models import Loaded

EngineT = TypeVar("EngineT", bound=Callable[..., list[Any]])


@dataclass(frozen=True)
class Request:
    """One sample to draw: its prompt, the uniforms in [0, 1) that decide each token, and so the most it may have."""

    prompt: "Tokens"
    uniforms: Sequence[float]


@dataclass(frozen=True)
class Completion:
    """One drawn completion: token ids (EOS included where it ended), and log-prob under the model, sum in nats.

    Of one that came to a stop text, only the tokens before it are there and count, and it is finished.

    The log-prob is that of the model itself, at temperature 1 and unfiltered, whatever the sampling settings were; it
    is exact where it agrees with an fp32 forward pass to rounding, else it is computed again where it is needed.
    """

    ids: list[int]
    finished: bool
    logprob: float
    exact: bool = True


def request(
    prompt: "Tokens", config: SamplingConfig, *, seed: int, purpose: str, prompt_id: str, index: int
) -> Request:
    """The request for sample `index` of a prompt; its random numbers depend on the arguments alone.

    So a sample is the same in every batch and shard, and two models asked the same way get common random numbers.
    """
    key = hashlib.sha256(f"{seed}:{purpose}:{prompt_id}:{index}".encode()).digest()
    draws = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    room = config.total_tokens - len(prompt)
    if config.new_tokens_max:
        room = min(room, int(draws.integers(config.new_tokens_min, config.new_tokens_max + 1)))
    return Request(prompt, array("d", draws.random(room, dtype=np.float64).tobytes()))  # a quarter of a list of floats


def completion_text(loaded: "Loaded", prompt: str, text: str, completion: Completion) -> str:
    """The text of a completion alone: what follows the prompt, or where that is no part of the whole, its tokens'."""
    if text.startswith(prompt):
        return text.removeprefix(prompt)
    return loaded.decode([completion.ids], [completion.finished])[0]


class Engine(Protocol):
    """A way to draw samples; `sampling.engine` names it."""

    def __call__(
        self,
        loaded: "Loaded",
        requests: Sequence[Request],
        config: SamplingConfig,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Draw every request from the model, in the given order.

        A completion ends at one of `loaded.conventions.ends`, before one of the texts of `config.stop`, which
        `alignment.sampling.stops.Stops` finds, or after as many tokens as its request has uniforms. The same requests
        give the same completions, and two models that are asked the same way share random numbers: the uniforms are
        there for that. Where that does not hold, the engine's decorator says so. `progress` takes (done, total) and may
        raise to stop the work.
        """


class EngineVersion(Protocol):
    """What decides an engine's samples beside this project's code, such as the version of a server.

    It stands in the samples' key in the place of the engine's own fields.
    """

    def __call__(self, config: SamplingConfig) -> Mapping[str, Any]:
        """Values that JSON has; called whenever a key is needed, also for a plan.

        Raises ConfigError or EndpointError, with the way out, where it cannot be told.
        """


def engine(
    name: str,
    *,
    exact_logprobs: bool = False,  # noqa: ARG001 - what follows is read from the source, without an import
    common_random_numbers: bool = True,  # noqa: ARG001
    any_model: bool = True,  # noqa: ARG001
    keeps: bool = False,  # noqa: ARG001
) -> Callable[[EngineT], EngineT]:
    """Register an engine under the name that `sampling.engine` takes; what it declares has to be constants.

    `exact_logprobs`: in fp32 its log-probs agree with a plain forward pass to rounding. `common_random_numbers`: two
    models that are asked the same way share random numbers. Without `any_model` it draws from the base model alone,
    and the models of an evaluation are sampled by `local`. One that `keeps` is given a folder as `kept`, which survives
    a crash, for what it need not draw again.
    """
    return registers(ENGINES, name)


def engine_version(name: str) -> Callable[[EngineVersion], EngineVersion]:
    """Register what decides the samples of the engine of this name beside the project's code."""
    return registers(ENGINE_VERSIONS, name)
