"""Where notifications go, what makes them, and that nobody's changes are undone nor a secret shown."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from alignment.errors import ConfigError

# apprise imports it on Python 3.11 and 3.12
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRET = "T0K3N"
SLACK = f"https://hooks.slack.com/services/TAAAAAAAA/BBBBBBBBB/{SECRET}{SECRET}CCCCCCCCCCCCCC"


@pytest.fixture
def client(prefect_server: None) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    from flows.stack.notifications import OFF, apply_notifications

    with get_client(sync_client=True) as client:
        yield client
        list(apply_notifications(client, OFF))


@pytest.fixture
def apply(client: Any) -> Callable[..., dict[str, str]]:
    from flows.stack.notifications import apply_notifications

    return lambda url=None: {change.what: change.how for change in apply_notifications(client, url)}


def block(client: Any, slug: str) -> Any:
    from flows.stack.notifications import BLOCK

    return client.read_block_document_by_name(BLOCK, slug)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (SLACK, "SlackWebhook"),
        ("https://chat.example.org/hooks/x", "Webhook"),
        ("http://127.0.0.1:9000/x", "Webhook"),
        ("http://mattermost:8065/hooks/x", "Webhook"),
        ("mailtos://ann:word@smtp.example.org?to=bob@example.org", "Mail"),
        ("mailto://127.0.0.1:2525?to=bob@example.org&from=ann@example.org", "Mail"),
    ],
)
def test_the_address_says_which_block_sends(url: str, kind: str) -> None:
    from flows.stack.notifications import channel

    assert type(channel(url)).__name__ == kind


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"http://chat.example.org/{SECRET}", r"not encrypted.*use https://"),
        (f"http://192.0.3.1/{SECRET}", r"not encrypted"),
        (f"mailto://ann:{SECRET}@smtp.example.org?to=bob@example.org", r"not encrypted.*use mailtos://"),
        ("mailto:bob@example.org", r"mail is sent through a server; give mailtos://USER:PASSWORD@SERVER\?to=ADDRESS"),
        (f"mailtos://ann:{SECRET}@smtp.example.org", r"mail is sent through a server"),
        (f"https://hooks.slack.com/services/{SECRET}", r"not a complete address of its kind"),
        (f"ftp://example.org/{SECRET}", r"give https://…"),
        (f"https:///{SECRET}", r"names no host"),
        (f"http://[::1/{SECRET}", r"give https://…"),
        ("", r"give https://…"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secret(
    url: str, why: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from flows.stack.notifications import channel

    with pytest.raises(ConfigError, match=why) as refusal:
        channel(url)
    assert SECRET not in str(refusal.value) + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("url", [f"https://chat.example.org/hooks/{SECRET}", SLACK])
def test_a_delivery_that_fails_does_not_tell_the_secret(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    from flows.stack.notifications import channel

    def no_such_host(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def deliver(block: Any) -> None:
        if hasattr(block, "call"):
            await block.call({})
        else:
            with block.raise_on_failure():
                await block.notify("text", "title")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever the client of the block raises
        asyncio.run(deliver(channel(url)))
    assert SECRET not in f"{failed.value!r} {getattr(failed.value, 'log', '')} {caplog.text}"


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("localhost", True),
        ("mattermost", True),
        ("8.8.8.8", False),
        ("chat.example.org", False),
    ],
)
def test_only_an_address_that_is_private_by_itself_may_go_without_encryption(host: str, private: bool) -> None:
    from flows.stack.notifications import channel

    url = f"http://{f'[{host}]' if ':' in host else host}/hook"
    if private:
        channel(url)
    else:
        with pytest.raises(ConfigError, match="not encrypted"):
            channel(url)


def test_without_an_address_there_is_nothing(client: Any, apply: Callable[..., dict[str, str]]) -> None:
    assert apply() == {"notifications": "skipped"}


def test_the_first_time_makes_everything_and_the_second_leaves_it(
    client: Any, apply: Callable[..., dict[str, str]]
) -> None:
    from flows.stack.notifications import KINDS

    made = apply("https://chat.example.org/hook")
    assert set(made.values()) == {"made"}
    assert len(made) == 1 + len(KINDS)
    assert "automation 'plumbline: notify, an approval is awaited'" in made
    assert set(apply("https://chat.example.org/hook").values()) == {"left"}
    assert set(apply().values()) == {"left"}, "an address that is known is not asked for again"


def test_what_a_person_disabled_or_changed_stays(client: Any, apply: Callable[..., dict[str, str]]) -> None:
    from prefect.client.schemas.actions import BlockDocumentUpdate
    from prefect.events import AutomationCore

    apply("https://chat.example.org/hook")
    name = "plumbline: notify, a run is late"
    [late] = client.read_automations_by_name(name)
    without = late.model_dump(exclude={"id", "owner_resource"}) | {"enabled": False}
    client.update_automation(late.id, AutomationCore.model_validate(without))
    found = block(client, "webhook")
    client.update_block_document(found.id, BlockDocumentUpdate(data=found.data | {"allow_private_urls": True}))

    assert set(apply("https://chat.example.org/hook").values()) == {"left"}
    [late] = client.read_automations_by_name(name)
    assert late.enabled is False
    assert block(client, "webhook").data["allow_private_urls"] is True


def test_another_address_takes_the_place_of_the_first_and_off_ends_them(
    client: Any, apply: Callable[..., dict[str, str]]
) -> None:
    from prefect.exceptions import ObjectNotFound

    from flows.stack.notifications import KINDS

    apply("https://chat.example.org/hook")
    assert apply("https://chat.example.org/other")["block plumbline-notify"] == "changed"
    assert block(client, "webhook").data["url"] == "https://chat.example.org/other"

    assert set(apply(SLACK).values()) == {"changed"}, "the automations call another kind of block"
    assert block(client, "slack-webhook").data["url"] == SLACK
    with pytest.raises(ObjectNotFound):
        block(client, "webhook")

    assert apply("off") == {"notifications": "changed"}
    assert apply("off") == {"notifications": "left"}
    for kind in KINDS:
        assert client.read_automations_by_name(f"plumbline: notify, {kind.name}") == []


def test_the_address_is_a_secret_that_nothing_prints(client: Any) -> None:
    from flows.stack.notifications import BLOCK, apply_notifications

    told = list(apply_notifications(client, SLACK))
    assert SECRET not in str(told)
    assert told[0].note == "https://hooks.slack.com/…"
    shown = client.read_block_document_by_name(BLOCK, "slack-webhook", include_secrets=False)
    assert SECRET not in str(shown)


def test_every_kind_s_message_is_valid_json_whatever_is_in_it() -> None:
    """As Prefect's server renders it: with quotes, line breaks and braces in the texts."""
    from uuid import uuid4

    from prefect.blocks.webhook import Webhook
    from prefect.server.utilities.user_templates import render_user_template_sync, validate_user_template

    from flows.stack.notifications import KINDS, automation

    payload = {"title": 'film "2" waits', "text": "one\ntwo {{ three }}", "link": "http://127.0.0.1/x"}
    for kind in KINDS:
        [action] = automation(kind, uuid4(), Webhook).actions
        template = action.payload  # type: ignore[union-attr]
        validate_user_template(template)
        if "event.payload" in kind.title:
            rendered = render_user_template_sync(template, {"event": {"payload": payload}})
            assert json.loads(rendered) == payload


def test_mail_is_sent_through_a_server() -> None:
    """To an SMTP server on loopback, which says what it got."""
    from flows.stack.notifications import channel

    got: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=answer_smtp, args=(listening, got), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        mail: Any = channel(f"mailto://127.0.0.1:{port}?to=bob@example.org&from=ann@example.org")
        mail.notify(subject="film version 2 waits", body="reward gain +1.50\nhttp://127.0.0.1/x")
        thread.join(20)
    text = b"".join(got).decode()
    assert "to:<bob@example.org>" in text.lower()
    assert "film version 2 waits" in text
    assert "reward gain +1.50" in text


def answer_smtp(listening: socket.socket, got: list[bytes]) -> None:
    """One conversation with whoever sends a mail."""
    link, _ = listening.accept()
    with link, link.makefile("rb") as lines:
        link.sendall(b"220 here\r\n")
        in_data = False
        for line in lines:
            got.append(line)
            if in_data:
                in_data = line != b".\r\n"
                link.sendall(b"" if in_data else b"250 ok\r\n")
            elif line[:4].upper() == b"DATA":
                in_data = True
                link.sendall(b"354 go on\r\n")
            elif line[:4].upper() == b"QUIT":
                link.sendall(b"221 bye\r\n")
                return
            else:
                link.sendall(b"250 ok\r\n")
