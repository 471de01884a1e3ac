"""A model's answer to a prompt as people ask for one: by its chat template where it has one, and piece by piece.

This is transformers' own `generate`, one prompt at a time, and no stage uses it: `alignment.sampling` draws samples.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alignment.config import PromptsConfig
from alignment.data.chat import Chat, require_messages
from alignment.errors import ConfigError, ModelError
from alignment.models import Loaded, using

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or the messages of a chat, each with `role` and `content`."""
OnText = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to write: what is None is as the model's own generation config has it, which a registered one was given."""

    max_new_tokens: int = 256
    temperature: float | None = None
    """0 takes the likeliest token each time; above, tokens are drawn."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer and are left out of it, beside those of the generation config."""
    seed: int | None = None
    """The same seed, prompt and model give the same answer on the same machine; None draws anew each time."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of bounds."""
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {self.max_new_tokens}: should be at least 1")
        if self.temperature is not None and not 0 <= self.temperature <= 10:
            raise ConfigError(f"temperature = {self.temperature:g}: should be from 0, the likeliest token, to 10")
        if "" in self.stop:
            raise ConfigError("stop: an empty text would end every answer; leave it out")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed = {self.seed}: should be from 0 to 9223372036854775807")


def has_template(loaded: Loaded) -> bool:
    """Whether a plain prompt becomes the user's turn of a chat."""
    return bool(getattr(loaded.tokenizer, "chat_template", None))


def encode(loaded: Loaded, prompt: Prompt, *, system: str = "", raw: bool = False) -> list[int]:
    """The token ids of a prompt: a plain one is the user's turn where the model has a chat template, unless `raw`.

    Raises ModelError where messages or `system` are given for a model without a template, DataError where messages are
    no chat or the template refuses them.
    """
    if isinstance(prompt, str) and (raw or not (system or has_template(loaded))):
        return loaded.encode([prompt])[0] or list(loaded.conventions.opening)
    if raw:
        raise ConfigError("raw: takes a text as it is, and messages are none; leave raw out, or give a text")
    chat = Chat(loaded.tokenizer, PromptsConfig(system=system), loaded.name)
    if isinstance(prompt, str) and not prompt.strip():
        raise ConfigError("prompt is empty: give a text, or raw to have the model begin by itself")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    ids = chat.encode(chat.with_system(require_messages(list(messages), "prompt")))
    loaded.conventions.require_known([ids], loaded.name, loaded.tokenizer)
    return ids


def write(loaded: Loaded, ids: Sequence[int], settings: Settings, on_text: OnText | None = None) -> str:
    """The completion of a prompt's token ids, up to any of the model's end tokens; special tokens are left out.

    `on_text` is given each piece as it is written; the pieces make the completion. Raises ModelError where the prompt
    fills the model's context, or the model cannot be used.
    """
    import torch

    longest = loaded.conventions.longest
    room = settings.max_new_tokens if longest is None else min(settings.max_new_tokens, longest - len(ids))
    if room < 1:
        raise ModelError(
            f"{loaded.name}: the prompt has {len(ids)} tokens and the model's context {longest}, so there is no room "
            "for an answer; shorten the prompt"
        )
    device = next(loaded.model.parameters()).device
    config = _generation(loaded, settings, room)
    pieces = _Pieces(loaded, config.stop_strings or (), on_text)
    given = torch.tensor([list(ids)], device=device)
    with using(loaded.name, "generation"), _seeded(settings.seed, device), torch.inference_mode():
        loaded.model.generate(
            given,
            attention_mask=torch.ones_like(given),
            generation_config=config,
            tokenizer=loaded.tokenizer,  # for the texts that end an answer
            streamer=pieces,
        )
    return pieces.text


def _generation(loaded: Loaded, settings: Settings, room: int) -> Any:
    config = copy.deepcopy(loaded.model.generation_config)
    config.max_length = config.min_length = None
    config.max_new_tokens = room
    config.eos_token_id, config.pad_token_id = list(loaded.conventions.ends), loaded.pad_id
    config.num_beams = config.num_return_sequences = None  # one answer, written from left to right
    named = config.stop_strings or ()
    config.stop_strings = [*([named] if isinstance(named, str) else named), *settings.stop] or None
    if settings.temperature is not None:
        config.do_sample = settings.temperature > 0
        config.temperature = settings.temperature or None
        if not config.do_sample:
            config.top_k = config.top_p = None
    return config


@contextmanager
def _seeded(seed: int | None, device: Any) -> Iterator[None]:
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _Pieces:
    """A streamer of transformers that decodes the whole completion at every token, as a character may need several."""

    def __init__(self, loaded: Loaded, stops: Sequence[str], on_text: OnText | None) -> None:
        self.loaded = loaded
        self.stops = stops
        self.on_text = on_text
        self.text = ""
        self.ids: list[int] | None = None  # None until the prompt, which comes first, was given

    def put(self, value: Any) -> None:
        """Take the prompt, then each token."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        if self.on_text is not None:
            text = until_stop(self._decoded(), self.stops)
            self._show(text[: len(text) - begun_stop(text, self.stops)])

    def end(self) -> None:
        """Show what was held back."""
        self._show(until_stop(self._decoded(), self.stops))

    def _decoded(self) -> str:
        ids = self.ids or []
        return self.loaded.decode([ids], [bool(ids) and ids[-1] in self.loaded.conventions.ends])[0]

    def _show(self, text: str) -> None:
        new, self.text = text[len(self.text) :], text
        if new and self.on_text is not None:
            self.on_text(new)


def until_stop(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the texts that end it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def begun_stop(text: str, stops: Sequence[str]) -> int:
    """How many characters at a text's end may be the beginning of a text that ends it."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
