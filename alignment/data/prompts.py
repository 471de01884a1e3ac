"""From texts to prompts: the first tokens of each, without repeats, split so that none is on both sides."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alignment.config import AlignConfig, PromptsConfig
from alignment.conventions import REPLACEMENT
from alignment.errors import DataError
from alignment.kinds import PROMPTS, registers
from alignment.models import require_room

if TYPE_CHECKING:
    from alignment.models import Loaded

Split = Literal["train", "eval"]
Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
Decode = Callable[[Sequence[int]], str]

ENCODE_BATCH = 1_024


@dataclass(frozen=True)
class Cut:
    """A prompt as it was cut: its token ids, the side it is on, and an id that is the hash of its content."""

    id: str
    ids: tuple[int, ...]
    split: Split


@dataclass(frozen=True)
class Prompts:
    """The prompts of both sides, and what became of each text: kept, or dropped and why; `counts` sums to the texts."""

    train: list[Cut]
    held_out: list[Cut]
    counts: dict[str, int]


PromptSource = Callable[[Callable[[], list[str]], "Loaded", AlignConfig, Collection[str]], Prompts]


def prompt_source(name: str) -> Callable[[PromptSource], PromptSource]:
    """Register `(texts, base, config, excluded) -> Prompts` under its name in `prompts.source`.

    `texts` is called for the texts, where they are needed; prompts with an `excluded` id are on neither side.
    """
    return registers(PROMPTS, name)


@prompt_source("first_tokens")
def openings(texts: Callable[[], list[str]], base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The first tokens of each text, which begins as the base's tokenizer begins one."""
    begins = base.conventions.begins
    require_room(len(begins) + config.prompts.tokens_max, config.sampling.total_tokens, base)
    return first_tokens(
        texts(),
        base.encode,
        lambda ids: base.decode([ids], [True])[0],
        config.prompts,
        config.seed,
        excluded,
        begins=len(begins),
    )


@prompt_source("empty")
def nothing(_: Callable[[], list[str]], base: "Loaded", config: AlignConfig, excluded: Collection[str]) -> Prompts:
    """The empty prompt, such as BOS, as often as prompts are asked for."""
    require_room(len(base.conventions.opening), config.sampling.total_tokens, base)
    return empty(base.conventions.opening, config.prompts, excluded)


def first_tokens(
    texts: Sequence[str],
    encode: Encode,
    decode: Decode,
    config: PromptsConfig,
    seed: int,
    excluded: Collection[str] = (),
    *,
    begins: int = 0,
) -> Prompts:
    """Cut prompts from the openings of texts, in order, until both sides are full; `encode` gives token ids.

    The first `begins` of a text's ids are those that stand before every text, such as BOS; they count for no length.
    Where the length is drawn from a range, the draw belongs to the text, so the order of the texts does not matter.
    Prompts whose ids are `excluded` are on neither side: they were trained on, whatever `eval_fraction` is by now.
    Raises DataError if there is none to train on, unless some were excluded, or too few are held out to evaluate on.
    """
    counts: Counter[str] = Counter()
    sides: dict[Split, list[Cut]] = {"train": [], "eval": []}
    room: dict[Split, int] = {"train": config.count, "eval": config.eval_count}
    seen: set[str] = set()
    for start in range(0, len(texts), ENCODE_BATCH):
        batch = texts[start : start + ENCODE_BATCH]
        if all(len(sides[side]) >= room[side] for side in sides):
            counts["not_needed"] += len(batch)
            continue
        for text, ids in zip(batch, encode(batch), strict=True):
            opening = ids[: begins + config.tokens_max]
            draw = random.Random(f"{seed}:{hash_ids(opening)}")  # noqa: S311 - reproducible, not secret
            wanted = begins + draw.randint(config.tokens_min, config.tokens_max)
            prompt_id = hash_ids(ids[:wanted])
            side = split(prompt_id, config.eval_fraction)
            if not config.min_chars <= len(text) <= config.max_chars:
                counts["outside_char_bounds"] += 1
            elif len(ids) < wanted:
                counts["too_few_tokens"] += 1
            elif prompt_id in seen:
                counts["repeats"] += 1
            elif prompt_id in excluded:
                seen.add(prompt_id)
                counts["used_before"] += 1
            elif len(sides[side]) >= room[side]:
                counts["not_needed"] += 1
            elif REPLACEMENT in decode(ids[:wanted]) and REPLACEMENT not in text:
                counts["cut_inside_a_character"] += 1
            else:
                seen.add(prompt_id)
                sides[side].append(Cut(prompt_id, tuple(ids[:wanted]), side))
                counts[side] += 1
    needed: dict[Split, int] = {
        "train": 0 if counts["used_before"] else 1,
        "eval": min(config.min_eval, config.eval_count),
    }
    for side, prompts in sides.items():
        if len(prompts) < needed[side]:
            more = "lower" if side == "train" else f"lower prompts.min_eval = {config.min_eval}, raise"
            raise DataError(
                f"prompts: {len(prompts) or 'none'} left for the {side} side of {len(texts)} texts ({_told(counts)}), "
                f"which needs {needed[side]}; ask for fewer tokens than prompts.tokens_min = {config.tokens_min}, "
                f"widen the character bounds, {more} prompts.eval_fraction = {config.eval_fraction:g}, "
                "or give more texts"
            )
    return Prompts(sides["train"], sides["eval"], {"train": 0} | dict(counts))


def empty(opening: Sequence[int], config: PromptsConfig, excluded: Collection[str] = ()) -> Prompts:
    """`count` + `eval_count` copies of the empty prompt, such as BOS; each has its own id, for its random numbers.

    The train side's ids are the first that are not `excluded`.
    """
    ids = (hash_ids(opening, f"train:{i}") for i in itertools.count())
    unused = itertools.islice((prompt_id for prompt_id in ids if prompt_id not in excluded), config.count)
    train = [Cut(prompt_id, tuple(opening), "train") for prompt_id in unused]
    held_out = [Cut(hash_ids(opening, f"eval:{i}"), tuple(opening), "eval") for i in range(config.eval_count)]
    return Prompts(train, held_out, {"train": len(train), "eval": len(held_out)})


def read_ids(path: str) -> set[str]:
    """The prompt ids of a text file, one a line. Raises DataError where it cannot be read."""
    try:
        return set(Path(path).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"prompts.exclude {path}: cannot be read ({reason}); give a text file of prompt ids, or leave it empty"
        ) from error


def hash_ids(ids: Sequence[int], salt: str = "") -> str:
    """The id of a prompt: a hash of its token ids."""
    return hashlib.sha256(f"{salt}:{','.join(map(str, ids))}".encode()).hexdigest()[:16]


def split(prompt_id: str, eval_fraction: float) -> Split:
    """The side of a prompt, decided by its id alone."""
    place = int(hashlib.sha256(f"split:{prompt_id}".encode()).hexdigest()[:8], 16) / 16**8
    return "eval" if place < eval_fraction else "train"


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items())) or "no text at all"
