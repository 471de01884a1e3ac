"""Addresses: paths in and out of them, what is shown of them, and what a failure there means."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from prefect.settings import PREFECT_UI_URL, temporary_settings

from tasks.addresses import flow_run_url, reason, scheme_of, shown, sqlite_file, sqlite_uri, unfit_signs

HINTS = {"start": "START", "sign_in": "SIGN_IN", "certificate": "CERTIFICATE"}
FIT = [
    *("a b", "ü日本", "100%20", "%3F", "a%b", "#1", "a;b", "a@b", "a:b", "a&b=c", "a+b", "[x]", "{y}", "$HOME", "~"),
    *("'q'", '"d"', "a\\b", "a,b", "a|b", "!x", "*", "é", "\u00a0", "a://b"),
]


@pytest.mark.parametrize("name", FIT)
def test_a_database_is_made_where_its_path_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "x.db"
    file.parent.mkdir(parents=True)
    assert not unfit_signs(str(file))
    engine = sqlalchemy.create_engine(sqlite_uri(file))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (a)"))
    engine.dispose()
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [file]
    assert sqlite_file(sqlite_uri(file)) == file


@pytest.mark.parametrize(
    ("sign", "named"), [("?", "'?'"), ("\n", r"'\\n'"), ("\x7f", r"'\\x7f'"), ("\udce9", r"'\\udce9'")]
)
def test_a_sign_that_would_lead_elsewhere_is_named(sign: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        sqlite_uri(Path(f"/home/a{sign}b/x.db"))


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////home/x.db", Path("/home/x.db")),
        ("sqlite:///x.db", Path("x.db")),
        ("sqlite:////home/x.db?timeout=5", Path("/home/x.db")),
        ("sqlite+pysqlite:////home/x.db", Path("/home/x.db")),
        ("sqlite:///file:/home/a%3Fb/x.db?uri=true", Path("/home/a?b/x.db")),
        ("sqlite:///file:///home/x.db?mode=rwc&uri=true", Path("/home/x.db")),
        ("sqlite:///file:x.db", Path("file:x.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:x?mode=memory&uri=true", None),
        ("postgresql://me@host/x", None),
        ("http://host:5000", None),
    ],
)
def test_the_file_of_an_address(uri: str, file: Path | None) -> None:
    assert sqlite_file(uri) == file


def test_sqlalchemy_agrees_on_a_file_with_a_question_mark(tmp_path: Path) -> None:
    uri = f"sqlite:///file:{tmp_path}/a%3Fb.db?uri=true"
    file = sqlite_file(uri)
    assert file is not None
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (a)")
    engine = sqlalchemy.create_engine(uri)
    assert sqlalchemy.inspect(engine).get_table_names() == ["t"]
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("http://me:secret@host:5000/a@b", "http://host:5000/a@b"),
        ("see https://me:se@cret@host and http://host/x@y", "see https://host and http://host/x@y"),
        ("postgresql+psycopg://me:se/cr?et@host/db", "postgresql+psycopg://host/db"),
        ("redis://:secret@host", "redis://host"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
        ("models:/name@champion", "models:/name@champion"),
        ("http://host", "http://host"),
    ],
)
def test_no_secret_is_shown(text: str, without: str) -> None:
    assert shown(text) == without


@pytest.mark.parametrize(
    "url", ["host:4200", "http://", "http://[::1", "http://h:port", "http://h:99999", "/x", "", "http://a..b"]
)
def test_no_address(url: str) -> None:
    assert scheme_of(url) in ("", "host")


@pytest.mark.parametrize(
    ("url", "scheme"), [("HTTP://Host", "http"), ("https://[::1]:1/x", "https"), ("ftp://h", "ftp")]
)
def test_an_address(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused; START"),
        (OSError("[Errno -2] Name or service not known"), "no such host; START"),
        (TimeoutError("timed out"), "no answer in time; START"),
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "its certificate is not trusted; have CERTIFICATE"),
        (OSError("[SSL: WRONG_VERSION_NUMBER]"), "it does not speak TLS"),
        (RuntimeError("Client error '401 Unauthorized' for url 'http://a:b@c'"), "not signed in; set SIGN_IN"),
        (RuntimeError("Server error '500 Oh' for url 'http://a:b@c'\nmore"), "Server error '500 Oh'"),
        (RuntimeError("http://me:secret@host broke\nmore"), "http://host broke"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_reason_is_one_line_and_names_the_way_out(error: Exception, meaning: str) -> None:
    told = reason(error, **HINTS)
    assert told.startswith(meaning)
    assert "\n" not in told
    assert "secret" not in told


def test_a_flow_run_s_page_is_in_the_prefect_that_is_named_else_in_that_of_the_settings() -> None:
    assert flow_run_url("abc", "http://127.0.0.1:4200") == "http://127.0.0.1:4200/runs/flow-run/abc"
    with temporary_settings({PREFECT_UI_URL: "http://prefect.here"}):
        assert flow_run_url("abc") == "http://prefect.here/runs/flow-run/abc"
