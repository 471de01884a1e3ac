"""The stand-in for a model: words, with the white space before them, and chats that begin alike."""

from hypothesis import given
from hypothesis import strategies as st

from alignment.config import PromptsConfig
from alignment.data.chat import Chat
from alignment.data.words import BEGIN, Words

TEXTS = st.text(alphabet="ab \n", max_size=12)
USER = {"role": "user", "content": "Is it  fine?"}


@given(text=TEXTS)
def test_a_text_is_its_words_after_the_token_that_begins_it(text):
    base = Words()
    (ids,) = base.encode([text])
    assert ids[0] == BEGIN
    assert len(ids) == 1 + len(text.split()) + (not text.strip() and bool(text)) + (
        bool(text.strip()) and text[-1].isspace()
    )
    assert base.decode([ids], [True]) == [text]


@given(prompt=TEXTS, completion=TEXTS)
def test_a_completion_that_begins_with_a_space_leaves_the_prompts_tokens_as_they_are(prompt, completion):
    base = Words()
    before, whole = base.encode([prompt.rstrip(), f"{prompt.rstrip()} {completion}"])
    assert whole[: len(before)] == before


def test_a_conversation_begins_with_the_tokens_of_its_prompt():
    chat = Chat(Words().tokenizer, PromptsConfig())
    asked = chat.encode([USER])
    whole = chat.encode([USER, {"role": "assistant", "content": "Yes, it is."}], add_generation_prompt=False)
    assert whole[: len(asked)] == asked
    assert len(whole) - len(asked) == 3


def test_it_has_no_limit_and_no_end():
    conventions = Words().conventions
    assert (conventions.longest, conventions.ends, conventions.embeddings) == (None, (), None)
