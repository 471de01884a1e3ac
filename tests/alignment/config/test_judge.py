"""The judge's fields: what cannot be asked or read is refused before anything is asked."""

from typing import Any

import pytest

from alignment.config import build_config
from alignment.errors import ConfigError


def judge(**fields: Any) -> Any:
    return build_config({"reward": {"judge": fields}}).reward.judge


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"url": "localhost:8000"},
            r"reward\.judge\.url: localhost:8000 is not an address like http://127\.0\.0\.1:8000/v1",
        ),
        ({"url": "ftp://there/v1"}, "is not an address"),
        ({"url": "http://"}, "is not an address"),
        ({"url": "http://there:99999/v1"}, "is not an address"),
        (
            {"url": "http://there/v1?key=secret"},
            r"a password or a query in it would be kept with the run; name the var",
        ),
        ({"url": "http://me:secret@there/v1"}, "a password or a query in it"),
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "reward.judge.api_key_env"),
        ({"api_key_env": "PREFECT_API_KEY"}, "that key is for a server of the run; take another"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "[0-9]+"}, "has 0 groups, expected one"),
        ({"pattern": "([0-9])([0-9])"}, "has 2 groups, expected one"),
        ({"scale_min": 5, "scale_max": 5}, r"reward\.judge\.scale_min = 5 is not below reward\.judge\.scale_max = 5"),
        ({"extra": {"stream": True}}, r"reward\.judge\.extra: stream cannot be set here"),
        ({"concurrency": 0}, r"reward\.judge\.concurrency = 0"),
        ({"timeout": 0}, r"reward\.judge\.timeout = 0"),
        ({"max_calls": -1}, r"reward\.judge\.max_calls = -1"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        judge(**fields)
    assert "secret" not in str(raised.value).replace("AWS_SECRET", "")


def test_a_local_endpoint_is_the_default_and_slashes_do_not_matter() -> None:
    assert judge().url == "http://127.0.0.1:8000/v1"
    assert judge(url="https://there/v1/").url == "https://there/v1"


def test_further_fields_of_a_request_are_what_json_says_there() -> None:
    """In YAML and in a flag every value is a text."""
    assert judge(extra="{seed: null, top_p: 0.5, kwargs: {think: false, names: [a, 1]}, word: high}").extra == {
        "seed": None,
        "top_p": 0.5,
        "kwargs": {"think": False, "names": ["a", 1]},
        "word": "high",
    }
