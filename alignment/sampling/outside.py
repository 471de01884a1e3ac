"""What engines that compute in another process share: seeds, a check of the weights there, and completions."""

import hashlib
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from alignment.config import SamplingConfig
from alignment.errors import EndpointError, ModelError
from alignment.sampling.engine import Completion, Request, request
from alignment.sampling.kept import Drawn, KeptDraws
from alignment.sampling.stops import Stops

if TYPE_CHECKING:  # they bring torch
    from alignment.layout import Tokens
    from alignment.models import Loaded

COMPARED, LENGTH = 16, 24
"""Sequences on which the weights are compared, and the most tokens of each that count."""
ROUNDING = 1e-3
"""What a log-prob may exceed 0 by, in nats."""
BROKEN_OFF = ("abort", "error")
"""What servers call the end of a text that another try may bring to an end of its own."""
KNOWN_FOR = 60.0
"""Seconds for which an engine is not asked again who it is: a run's stages ask for their keys many times."""

K = TypeVar("K")
V = TypeVar("V")
Scorer = Callable[[Sequence[Sequence[int]]], list[list[float | None]]]
"""From sequences of token ids to the log-prob of each token behind those before it; None for the first."""

_known: WeakKeyDictionary[Any, list[tuple[list[int], list[float]]]] = WeakKeyDictionary()


class Remembered(Generic[K, V]):
    """What `look` finds of something, asked again after a while."""

    def __init__(self, look: Callable[[K], V]) -> None:
        """Nothing is looked at yet."""
        self._look = look
        self._found: dict[K, tuple[float, V]] = {}

    def __call__(self, key: K) -> V:
        """What was found less than a while ago, or is now. Raises as `look` does."""
        since, found = self._found.get(key, (-math.inf, None))
        if found is None or time.monotonic() - since >= KNOWN_FOR:
            found = self._look(key)
            self._found[key] = time.monotonic(), found
        return found


def seed(asked: Request) -> int:
    """The seed of a request, which depends on its random numbers alone: from 0 to 2^31 - 1."""
    digest = hashlib.sha256(array("d", asked.uniforms).tobytes()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def completion(
    asked: Request,
    ids: "Tokens",
    logprobs: Sequence[float],
    *,
    loaded: "Loaded",
    stops: Stops | None,
    name: str,
    reason: str = "",
) -> Completion:
    """What an engine drew, up to its end token or before its stop text; `reason` is why it says that it ended.

    Raises EndpointError where it is none: it ended in neither way before it had all its tokens, or its log-probs are
    none. Raises ModelError where the model does not know its tokens.
    """
    room, ends = len(asked.uniforms), loaded.conventions.ends
    if len(ids) != len(logprobs) or not 0 < len(ids) <= room:
        raise EndpointError(
            f"{name}: gave {len(ids)} tokens with {len(logprobs)} log-probs where 1 to {room} were asked for; check "
            "that it is of a version that the documentation names"
        )
    if not all(math.isfinite(each) and each <= ROUNDING for each in logprobs):
        raise EndpointError(f"{name}: gave log-probs that are none, such as {_worst(logprobs)}; check its weights")
    loaded.conventions.require_known([ids], name)
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    kept = list(ids if end is None else ids[: end + 1])
    finished = end is not None
    if stops is not None:
        before = kept[:-1] if finished else kept
        found = stops.kept([before], grown=len(before))[0] if before else None
        if found is None and not finished and len(kept) < room:
            found = _kept_behind(asked.prompt, kept, stops, loaded)
        if found is not None:
            kept, finished = kept[:found], True
    if not finished and len(kept) < room:
        error = EndpointError(
            f"{name}: ended a text after {len(kept)} of {room} tokens ({reason or 'it does not say why'}), without an "
            "end token or a stop text; give it a context of sampling.total_tokens at least (vLLM: --max-model-len, "
            "SGLang: --context-length)"
        )
        error.transient = reason in BROKEN_OFF
        raise error
    return Completion(kept, finished, math.fsum(logprobs[: len(kept)]), exact=False)


class Answers:
    """What another process draws for requests: checked as it comes, and kept once it is sound."""

    def __init__(
        self,
        requests: Sequence[Request],
        bodies: Sequence[Mapping[str, Any]],
        kept: KeptDraws,
        *,
        loaded: "Loaded",
        stop: Sequence[str],
        name: str,
    ) -> None:
        """`bodies` is what each request is asked by; `name` is how errors name the engine."""
        self._requests, self._bodies, self._kept = requests, bodies, kept
        self._loaded, self._name = loaded, name
        self._stops = Stops(stop, loaded.texts) if stop else None
        self._found: dict[int, Completion] = {}

    @property
    def missing(self) -> list[int]:
        """The places of the requests that are still to be asked; one without room for a token is not."""
        pairs = enumerate(zip(self._requests, self._bodies, strict=True))
        return [place for place, (asked, body) in pairs if asked.uniforms and self._kept.find(body) is None]

    def take(self, place: int, drawn: Drawn) -> None:
        """What was drawn for the request at a place. Raises as `completion` does, and then it is not kept."""
        self._found[place] = self._completion(place, drawn)
        self._kept.keep(self._bodies[place], drawn)

    def completions(self) -> list[Completion]:
        """The completion of each request. Raises as `completion` does of what was kept before, and where one lacks."""
        found = []
        for place, (asked, body) in enumerate(zip(self._requests, self._bodies, strict=True)):
            drawn = self._kept.find(body)
            if not asked.uniforms:
                found.append(Completion([], finished=False, logprob=0.0, exact=False))
            elif drawn is None:
                raise EndpointError(f"{self._name}: left {len(self.missing)} requests unanswered; run again")
            else:
                found.append(self._found.get(place) or self._completion(place, drawn))
        return found

    def _completion(self, place: int, drawn: Drawn) -> Completion:
        return completion(
            self._requests[place],
            drawn.ids,
            drawn.logprobs,
            loaded=self._loaded,
            stops=self._stops,
            name=self._name,
            reason=drawn.reason,
        )


def require_same_weights(loaded: "Loaded", score: Scorer, most: float, name: str, field: str) -> None:
    """Raise ModelError where an engine gives texts of the model's own other log-probs than the model does.

    They are the same texts for a model each time. The mean of the differences of all tokens may be `most` nats.
    """
    texts, given = _texts(loaded), len(loaded.conventions.opening)
    scored = score(texts_to_compare(loaded))
    found = [each for row in scored for each in row[given:] if each is not None]
    expected = [each for _, row in texts for each in row]
    if len(found) != len(expected) or not all(map(math.isfinite, found)):
        raise EndpointError(
            f"{name}: gave {len(found)} log-probs of {len(expected)} tokens of given texts, so that its weights cannot "
            "be compared; check that it is of a version that the documentation names"
        )
    difference = math.fsum(abs(there - here) for there, here in zip(found, expected, strict=True)) / len(expected)
    if difference > most:
        raise ModelError(
            f"{name}: its log-probs of {len(texts)} texts differ from those of {loaded.name} by {difference:.3g} "
            f"nats a token, and {field} = {most:g}: it has other weights, or rounded ones; have it load that model, or "
            f"raise {field}"
        )


def _kept_behind(prompt: "Tokens", ids: "Tokens", stops: Stops, loaded: "Loaded") -> int | None:
    """How many tokens stand before a stop text that is one behind the prompt alone; None without one.

    Some tokenizers drop a space at the start of a text, and a server that decodes on from the prompt keeps it.
    """
    start, whole = loaded.texts([prompt, [*prompt, *ids]])
    begins = min((at for stop in stops.stops if (at := whole.find(stop, len(start))) >= 0), default=None)
    if begins is None or not whole.startswith(start):
        return None
    parts = loaded.texts([[*prompt, *ids[:count]] for count in range(len(ids))])
    return max(count for count, part in enumerate(parts) if len(part) <= begins and whole.startswith(part))


def texts_to_compare(loaded: "Loaded") -> list[list[int]]:
    """The texts on which weights are compared, in token ids; the model's own log-probs of them are known from here."""
    return [ids for ids, _ in _texts(loaded)]


def _texts(loaded: "Loaded") -> list[tuple[list[int], list[float]]]:
    """Texts that a model writes itself, opening included, each with the log-probs of the tokens behind its opening."""
    if loaded.model not in _known:
        from alignment.sampling.local import local

        opening = list(loaded.conventions.opening)
        longest = loaded.conventions.longest or math.inf  # a server wants to add one token
        config = SamplingConfig(total_tokens=int(min(len(opening) + LENGTH, longest - 1)))
        drawn = local(
            loaded,
            [
                request(opening, config, seed=0, purpose="comparison", prompt_id="", index=index)
                for index in range(COMPARED)
            ],
            config,
        )
        _known[loaded.model] = [([*opening, *each.ids], _logprobs(loaded, opening, each.ids)) for each in drawn]
    return _known[loaded.model]


def _logprobs(loaded: "Loaded", prompt: Sequence[int], ids: Sequence[int]) -> list[float]:
    """The log-prob of each token of a completion, by one forward pass."""
    import torch

    from alignment.models import using

    with torch.inference_mode(), using(loaded.name, "the comparison with another engine"):
        whole = torch.tensor([[*prompt, *ids]], device=next(loaded.model.parameters()).device)
        logits = loaded.model(input_ids=whole).logits[0, len(prompt) - 1 : -1].float()
        found: list[float] = logits.log_softmax(-1).gather(1, whole[0, len(prompt) :, None])[:, 0].tolist()
    return found


def _worst(logprobs: Sequence[float]) -> float:
    return next(each for each in logprobs if not (math.isfinite(each) and each <= ROUNDING))
