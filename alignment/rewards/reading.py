"""What a classifier reads of a sample, in its own token ids: the whole text, the completion, or the conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.errors import ConfigError, ModelError
from alignment.models import Loaded, using

NO_LIMIT = 10**9  # tokens

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """The token ids of N samples, their token types where the tokenizer makes them, and how many samples were cut."""

    ids: list[list[int]]
    types: list[list[int]] | None
    truncated: int


def read_samples(loaded: Loaded, samples: Sequence[Sample], how: str) -> Read:
    """The samples as `reward.reads` says: `whole`, `completion`, `chat`, or `auto`.

    `auto` takes a chat's conversation where the reward model's tokenizer has a chat template, and any other text whole.
    Raises ConfigError where a conversation is asked for and there is none, and ModelError where the template fails or
    a token is one that the model lacks.
    """
    if how == "chat":
        _require_chats(loaded, samples)
    has_template = bool(getattr(loaded.tokenizer, "chat_template", None))
    chats = [how == "chat" or (how == "auto" and has_template and bool(sample.get("messages"))) for sample in samples]
    text = "completion" if how == "completion" else "text"
    of_chats = read_chats(loaded, [sample for sample, chat in zip(samples, chats, strict=True) if chat])
    of_texts = read_texts(loaded, [sample[text] for sample, chat in zip(samples, chats, strict=True) if not chat])
    if not of_chats.ids or not of_texts.ids:
        return of_chats if of_chats.ids else of_texts
    either = {True: iter(range(len(of_chats.ids))), False: iter(range(len(of_texts.ids)))}
    order = [(of_chats if chat else of_texts, next(either[chat])) for chat in chats]
    return Read(
        ids=[read.ids[row] for read, row in order],
        types=None
        if of_texts.types is None
        else [read.types[row] if read.types else [0] * len(read.ids[row]) for read, row in order],
        truncated=of_chats.truncated + of_texts.truncated,
    )


def read_texts(loaded: Loaded, texts: Sequence[str]) -> Read:
    """Texts as the tokenizer begins and ends them; one that is longer than the model reads keeps its start."""
    limit = longest(loaded)
    if not texts:
        return Read([], None, 0)
    with using(loaded.name, "tokenization"):
        whole = loaded.tokenizer(list(texts), return_attention_mask=False, verbose=False)
        ids, types = whole["input_ids"], whole.get("token_type_ids")
        cut = [row for row, found in enumerate(ids) if limit is not None and len(found) > limit]
        if cut:
            starts = loaded.tokenizer([texts[row] for row in cut], truncation=True, max_length=limit, verbose=False)
            for number, row in enumerate(cut):
                ids[row] = starts["input_ids"][number]
                if types is not None:
                    types[row] = starts["token_type_ids"][number]
    loaded.conventions.require_known(ids, loaded.name, loaded.tokenizer)
    return Read(ids, types, len(cut))


def read_chats(loaded: Loaded, samples: Sequence[Sample]) -> Read:
    """Conversations as `apply_chat_template` gives them, the completion being the assistant's last message.

    The template writes what begins and ends a text, so nothing is added. One that is longer than the model reads keeps
    its end, where the answer is.
    """
    if not samples:
        return Read([], None, 0)
    chats = [[*sample["messages"], {"role": "assistant", "content": sample["completion"]}] for sample in samples]
    try:
        texts = loaded.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # a template raises whatever it likes
        raise ModelError(
            f"{loaded.name}: its chat template fails ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "leave out what it does not know, such as a system message, or set reward.reads to whole"
        ) from error
    with using(loaded.name, "tokenization"):
        ids = loaded.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    limit = longest(loaded)
    cut = [row[-limit:] if limit else row for row in ids]
    loaded.conventions.require_known(cut, loaded.name, loaded.tokenizer)
    return Read(cut, None, sum(len(short) < len(row) for short, row in zip(cut, ids, strict=True)))


def longest(loaded: Loaded) -> int | None:
    """The most tokens that model and tokenizer allow; a tokenizer without a limit names a huge one."""
    limits = (loaded.conventions.longest, loaded.tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit and limit < NO_LIMIT), default=None)


def _require_chats(loaded: Loaded, samples: Sequence[Sample]) -> None:
    if not getattr(loaded.tokenizer, "chat_template", None):
        raise ConfigError(
            f"reward.reads = chat: the tokenizer of {loaded.name} has no chat template; set it to whole, or take a "
            "reward model that has one"
        )
    if any(not sample.get("messages") for sample in samples):
        raise ConfigError(
            "reward.reads = chat: the prompts are no chats; set it to whole, or prompts.source to messages"
        )
