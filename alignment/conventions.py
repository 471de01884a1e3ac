"""How a model's texts begin, end and are padded, how long they may be, and which token ids it knows.

A tokenizer, a config and the weights each say a part of it, and do not always agree; here they are asked once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from alignment.errors import ModelError

CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "seq_length",
    "n_ctx",
    "context_length",
)
"""What configs call the longest sequence, in tokens."""

REPLACEMENT = "\ufffd"
"""What decoders write for a part of a character."""

POSITION_TABLES = ("position_embeddings", "position_embedding", "wpe", "embed_positions", "positions_embed", "pos_emb")
"""What models call their table of learned positions."""


@dataclass(frozen=True)
class Conventions:
    """What holds of one model's texts, in token ids.

    `begins` stands before every text and `opening` is the prompt without any text. Any of `ends` ends a text; a
    classifier may have none. `pad_id` is masked everywhere. `longest` is the most tokens that the model sees at once,
    None where it names no limit, and `first_position` the number of the first one. Ids below `embeddings` are known.
    """

    ends: tuple[int, ...]
    pad_id: int
    begins: tuple[int, ...] = ()
    opening: tuple[int, ...] = ()
    longest: int | None = None
    first_position: int = 0
    embeddings: int | None = None
    names_padding: bool = True
    """Whether the config names `pad_id`: a classifier that finds a text's end by it may else be given another one."""

    def require_known(self, rows: Iterable[Sequence[int]], name: str, tokenizer: Any = None) -> None:
        """Raise ModelError where a row holds an id that the model has no embedding for."""
        require_known(rows, self.embeddings, name, tokenizer)


def require_known(rows: Iterable[Sequence[int]], known: int | None, name: str, tokenizer: Any = None) -> None:
    """Raise ModelError where a row holds an id that is not below `known`: on a GPU it would abort the process."""
    largest = max((max(row) for row in rows if row), default=0)
    if known is not None and largest >= known:
        token = "" if tokenizer is None else f" ({tokenizer.convert_ids_to_tokens(largest)!r})"
        raise ModelError(
            f"{name}: a text holds the token id {largest}{token}, and the model has embeddings for ids below {known}; "
            "call `model.resize_token_embeddings(len(tokenizer))`, train and save it again, or take that token out of "
            "the texts"
        )


def conventions(model: Any, tokenizer: Any, name: str = "the model") -> Conventions:
    """Ask a model and its tokenizer. Raises ModelError where a text would begin with an id that the model lacks."""
    size = embeddings(model)
    begins, _ = affixes(tokenizer)
    ends = end_ids(model, tokenizer)
    pad_id = _pad_id(text_config(model.config), tokenizer, size)
    found = Conventions(
        ends=ends,
        pad_id=pad_id,
        begins=begins,
        opening=begins
        or ((ends[0] if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id),) if ends else ()),
        longest=longest(model),
        first_position=_first_position(model),
        embeddings=size,
        names_padding=getattr(text_config(model.config), "pad_token_id", None) == pad_id,
    )
    found.require_known([found.begins, found.opening], name, tokenizer)
    return found


def affixes(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a tokenizer puts before and after every text, as a text that it can spell shows.

    Where none shows it, what stands around no text at all is taken to begin one, up to EOS.
    """
    around = list(tokenizer("")["input_ids"])
    if not around:
        return (), ()
    for probe in _probes(tokenizer):
        try:
            bare = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
            whole = list(tokenizer(probe)["input_ids"])
        except Exception:  # noqa: BLE001, S112 - a vocabulary may lack the probe's signs, and raises anything then
            continue
        for start in range(len(whole) - len(bare) + 1 if bare else 0):
            if whole[start : start + len(bare)] == bare:
                return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    begins = tuple(takewhile(lambda token: token != tokenizer.eos_token_id, around))
    return begins, tuple(around[len(begins) :])


def _probes(tokenizer: Any) -> Iterator[str]:
    """Texts to try: a letter, and what tokens of the vocabulary stand for, as not every one knows that letter."""
    yield "a"
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    for token in ordinary[:: max(1, len(ordinary) // 50)]:
        yield tokenizer.decode([token])


def end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a text: the tokenizer's, the config's and the generation config's that have an embedding."""
    named: list[int] = []
    for source in (tokenizer, model.config, text_config(model.config), getattr(model, "generation_config", None)):
        value = getattr(source, "eos_token_id", None)
        named += value if isinstance(value, list | tuple) else [] if value is None else [value]
    size = embeddings(model)
    return tuple(dict.fromkeys(int(token) for token in named if token >= 0 and (size is None or token < size)))


def embeddings(model: Any) -> int | None:
    """How many ids the model has an input embedding for; None where it does not say."""
    table = getattr(model.get_input_embeddings(), "weight", None)
    return None if table is None else int(table.shape[0])


def longest(model: Any) -> int | None:
    """The longest sequence in tokens that config and position table allow, or None where there is no limit."""
    limits = [context_length(model.config), *(limit for limit, _ in _position_tables(model))]
    return min((limit for limit in limits if limit), default=None)


def context_length(config: Any) -> int | None:
    """The longest sequence in tokens that a model's config names, or None."""
    named = (getattr(text_config(config), name, None) for name in CONTEXT_NAMES)
    return min((limit for limit in named if isinstance(limit, int) and limit > 0), default=None)


def text_config(config: Any) -> Any:
    """The part of a config that is about text, of a model that knows more than text."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _first_position(model: Any) -> int:
    return max((first for _, first in _position_tables(model)), default=0)


def _position_tables(model: Any) -> list[tuple[int, int]]:
    """For each table of learned positions: how many tokens it has room for, and the number of the first.

    RoBERTa's family counts from the padding id + 1, and so loses as many; OPT's and BART's tables are longer by an
    offset that they add themselves.
    """
    found: list[tuple[int, int]] = []
    for parent in model.modules():
        for name, table in parent.named_children():
            weight = getattr(table, "weight", None)
            if name not in POSITION_TABLES or weight is None or weight.dim() != 2:
                continue
            counts_from_padding = hasattr(type(parent), "create_position_ids_from_inputs_embeds")
            first = int(getattr(parent, "padding_idx", 0) or 0) + 1 if counts_from_padding else 0
            found.append((int(weight.shape[0]) - int(getattr(table, "offset", 0)) - first, first))
    return found


def _pad_id(config: Any, tokenizer: Any, size: int | None) -> int:
    """The id to pad with: the config's own where it has one, as the model may look for it in what it is given."""
    for wanted in (getattr(config, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id):
        if wanted is not None and wanted >= 0 and (size is None or wanted < size):
            return int(wanted)
    return 0
