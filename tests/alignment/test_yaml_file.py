"""A configuration's file: every value as it is written, every key once."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import ConfigError
from alignment.yaml_file import read_yaml


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(text)` -> what the file holds."""

    def read(text: str) -> dict[str, Any]:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8", newline="")
        return read_yaml(tmp_path / "mine.yaml")

    return read


@pytest.fixture
def refusal(read: Any, tmp_path: Path) -> Any:
    """`refusal(text)` -> the one line in which the file is refused, without its name."""

    def refusal(text: str) -> str:
        with pytest.raises(ConfigError) as raised:
            read(text)
        message = str(raised.value)
        assert "\n" not in message
        assert message.startswith(f"config {tmp_path / 'mine.yaml'}: ")
        return message.removeprefix(f"config {tmp_path / 'mine.yaml'}: ")

    return refusal


@pytest.mark.parametrize(
    "value",
    [
        "yes", "no", "on", "off", "y", "true", "False", "1", "010", "0x1F", "1_000", "1e3", "1.0", ".5", ".inf", ".nan",
        "12:30", "190:20:30", "2024-01-01", "2001-12-14 21:59:43.10", "=", "<", "None", "nil", "+1",
    ],
)  # fmt: skip
def test_a_value_is_the_text_that_was_written(read, value):
    assert read(f"a: {value}\nb: [{value}]\nc: {{d: {value}}}") == {"a": value, "b": [value], "c": {"d": value}}


@pytest.mark.parametrize("value", ["", "~", "null", "Null", "NULL"])
def test_an_empty_value_is_none(read, value):
    assert read(f"a: {value}") == {"a": None}
    assert read(f'a: "{value}"') == {"a": value}


@pytest.mark.parametrize("key", ["on", "no", "1", "010", "2024-01-01"])
def test_a_key_is_a_text_too(read, key):
    assert read(f"{key}: a") == {key: "a"}


def test_marks_and_line_ends_of_other_systems_are_no_content(read):
    assert read("\ufeffa: 1\r\nb:\r\n  c: 2\r\n") == {"a": "1", "b": {"c": "2"}}


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~"])
def test_a_file_that_holds_nothing_is_empty(read, text):
    assert read(text) == {}


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126))
NESTED = st.recursive(TEXTS, lambda below: st.lists(below) | st.dictionaries(TEXTS, below), max_leaves=8)


@given(values=st.dictionaries(TEXTS, NESTED), flow=st.booleans())
def test_texts_that_a_writer_wrote_are_read_as_they_were(tmp_path_factory, values, flow):
    path = tmp_path_factory.mktemp("yaml") / "mine.yaml"
    path.write_text(yaml.safe_dump(values, default_flow_style=flow), encoding="utf-8")
    assert read_yaml(path) == values


# Merging


def test_a_key_may_override_what_is_merged(read):
    """`b` is merged when it has itself merged `a`; of a list of mappings the first one wins."""
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc: &c\n  x: 5\n  <<: *b\n  z: 4\nd: {<<: [*c, *a]}\n"
    assert read(text) == {
        "a": {"x": "1", "y": "2"},
        "b": {"x": "3", "y": "2"},
        "c": {"x": "5", "y": "2", "z": "4"},
        "d": {"x": "5", "y": "2", "z": "4"},
    }


def test_an_anchor_stands_for_its_value(read):
    assert read("a: &a 010\nb: *a") == {"a": "010", "b": "010"}


# Keys that are there twice


@pytest.mark.parametrize(
    ("text", "key", "line", "first"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 3, 1),
        ("b: 1\na:\n  x: 1\n  y: 1\n  x: 1\n", "x", 5, 3),
        ("a: {x: 1, y: {z: 1, z: 1}}", "z", 1, 1),
        ("a:\n- x: 1\n- x: 1\n  x: 2\n", "x", 4, 3),
        ('a: 1\n"a": 1\n', "a", 2, 1),
        ("1: a\n'1': b\n", "1", 2, 1),
        ("a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n", "<<", 5, 4),
        ("a: &a {x: 1}\nc:\n  <<: *a\n  x: 1\n  x: 2\n", "x", 5, 4),
        ("c:\n  <<: {x: 1, x: 2}\n", "x", 2, 2),
    ],
)
def test_a_key_that_is_there_twice_is_refused_at_every_depth(refusal, text, key, line, first):
    assert refusal(text) == (
        f"line {line}: `{key}` is written twice, first on line {first}; write it once, "
        "with everything that belongs to it"
    )


# What is no such file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "holds a list, expected names with values, a line each"),
        ("a\n", "holds a text, expected names with values, a line each"),
        ("0", "holds a text, expected names with values, a line each"),
        ("a: {b: 1\n", "not readable as YAML (while parsing a flow mapping"),
        ("a: b: c\n", "not readable as YAML (mapping values are not allowed here"),
        ("a:\n\tb: 1\n", "not readable as YAML (while scanning for the next token found character '\\t'"),
        ("a: 1\n---\nb: 2\n", "not readable as YAML (expected a single document"),
        ("a: *b\n", "not readable as YAML (found undefined alias 'b'"),
        ("a: !!python/name:os.system x\n", "not readable as YAML (could not determine a constructor"),
        ("a: !!int x\n", "not readable as YAML (invalid literal for int()"),
        ("? [a]\n: 1\n", "not readable as YAML (while constructing a mapping"),
        ("a: \x01\n", "not readable as YAML (unacceptable character"),
        ("a: " + "[" * 100_000, "not readable as YAML ("),
    ],
    ids=range(13),
)
def test_what_cannot_be_used_is_told_in_one_line(refusal, text, message):
    assert refusal(text).startswith(message)
