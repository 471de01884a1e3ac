"""Notifications: what people are told of, where to, and the block and the automations of Prefect that do it."""

import ipaddress
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events import AutomationCore, EventTrigger
from prefect.events.actions import CallWebhook, SendNotification
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from alignment.errors import ConfigError
from flows.stack.automations import apply_automation
from flows.stack.changes import Change
from flows.stack.mail import Mail
from flows.stack.services import NOTIFY_URL
from tasks.events import (
    APPROVAL_REMINDED,
    APPROVAL_WAITING,
    CHAMPION_CHANGED,
    MODEL_DRIFTED,
    NOTIFICATION_TEST,
    PROMOTION_REJECTED,
    PROMOTION_REVERTED,
    RUN_REFUSED,
)

OFF = "off"
BLOCK = "plumbline-notify"
ONCE_WITHIN = timedelta(minutes=1)  # one crash is reported by the worker, and by the automation for silent runs

Channel: TypeAlias = SlackWebhook | Mail | Webhook
CHANNELS: tuple[type[Channel], ...] = (SlackWebhook, Mail, Webhook)
SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
ENCRYPTED = {"http": "https", "mailto": "mailtos"}
"""The schemes that need a private network, and what to use elsewhere."""

OF_A_MODEL = {"prefect.resource.id": "plumbline.model.*"}
OF_A_RUN = {"prefect.resource.id": "prefect.flow-run.*"}
OURS = {"prefect.resource.id": "prefect.tag.plumbline", "prefect.resource.role": "tag"}
RUN = "{{ event.resource['prefect.resource.name'] }}"


@dataclass(frozen=True)
class Kind:
    """Something that people are told of: its name, what triggers it, and templates of the three parts of a message."""

    name: str
    trigger: EventTrigger
    title: str = "{{ event.payload.title }}"
    text: str = "{{ event.payload.text }}"
    link: str = "{{ event.payload.link }}"


def _about_a_model(*events: str) -> EventTrigger:
    """A trigger by events of ours, which bring their message along (`tasks.notices`)."""
    return EventTrigger(match=OF_A_MODEL, expect=set(events), threshold=1, within=timedelta(0))


def _about_a_run(event: str, **match: Any) -> EventTrigger:
    """A trigger by a state of runs of ours, once a run and minute."""
    return EventTrigger(
        match=OF_A_RUN | match,
        match_related=OURS,
        for_each={"prefect.resource.id"},
        expect={event},
        threshold=1,
        within=ONCE_WITHIN,
    )


KINDS = (
    Kind("an approval is awaited", _about_a_model(APPROVAL_WAITING, APPROVAL_REMINDED)),
    Kind("a run was refused", _about_a_model(RUN_REFUSED)),
    Kind("a model has drifted", _about_a_model(MODEL_DRIFTED)),
    Kind("the champion changed", _about_a_model(CHAMPION_CHANGED)),
    Kind("a version was rejected", _about_a_model(PROMOTION_REJECTED)),
    Kind("a champion set by hand was reverted", _about_a_model(PROMOTION_REVERTED)),
    Kind(
        "a run failed",
        _about_a_run("prefect.flow-run.*", **{"prefect.state-type": ["FAILED", "CRASHED"]}),
        title=f"{RUN} {{{{ event.resource['prefect.state-type'] | lower }}}}",
        text="{{ event.resource['prefect.state-message'] }}",
        link="{{ flow_run | ui_url }}",
    ),
    Kind(
        "a run is late",
        _about_a_run("prefect.flow-run.Late"),
        title=f"{RUN} is late",
        text="It was due at {{ flow_run.expected_start_time.strftime('%H:%M UTC on %d %b %Y') }} and has not started: "
        "no worker takes it, or others are ahead of it in the queue.",
        link="{{ flow_run | ui_url }}",
    ),
    Kind("a test message", _about_a_model(NOTIFICATION_TEST)),
)


def apply_notifications(client: SyncPrefectClient, url: str | None) -> Iterator[Change]:
    """Send notifications to `url` from now on; None leaves the address that the server has, `off` ends them.

    Raises ConfigError where the address cannot be used. It is kept as a secret, and never shown whole.
    """
    if url == OFF:
        yield from _remove(client)
        return
    wanted = None if url is None else channel(url)
    found = _find(client)
    if wanted is None and found is None:
        yield Change("skipped", "notifications", f"neither --notify nor {NOTIFY_URL} is given")
        return
    if wanted is not None:
        change, found = _apply_block(client, wanted, found)
        yield change
    assert found is not None
    for kind in KINDS:
        yield apply_automation(client, automation(kind, *found))


def channel(url: str) -> Channel:
    """The block that sends to an address: Slack's webhook, a mail server, or any other webhook, which gets JSON.

    Raises ConfigError for any other address, and for one that is not encrypted, except to a private network. Prefect's
    own look at the address before each call is off: where it refuses, it writes the whole address into its log.
    """
    scheme, host = _parts(url)
    if scheme not in {*ENCRYPTED, *ENCRYPTED.values()}:
        raise ConfigError(f"{_named(url)}: give https://… for Slack or another webhook, mailtos://… for mail, or {OFF}")
    if scheme in ("mailto", "mailtos") and (not host or "to=" not in url):
        raise ConfigError(
            f"{_named(url)}: mail is sent through a server; give mailtos://USER:PASSWORD@SERVER?to=ADDRESS"
        )
    if not host:
        raise ConfigError(f"{_named(url)}: names no host")
    if scheme in ENCRYPTED and not is_private(host):
        raise ConfigError(
            f"{_named(url)}: not encrypted, which is for this machine or a private network alone; use "
            f"{ENCRYPTED[scheme]}://"
        )
    if scheme in ("mailto", "mailtos"):
        return _require_usable(lambda: Mail(url=SecretStr(url)), url)
    if host in SLACK:
        return _require_usable(lambda: SlackWebhook(url=SecretStr(url), allow_private_urls=True), url)
    return Webhook(
        url=SecretStr(url),
        headers=SecretDict({"Content-Type": "application/json"}),
        allow_private_urls=True,
    )


def is_private(host: str) -> bool:
    """Whether an address names this machine or a private network by itself: its number, or a name without a dot."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_private or address.is_loopback


def shown(url: str) -> str:
    """An address without what is secret about it."""
    scheme, host = _parts(url)
    return f"{scheme}://{host}/…"


def automation(kind: Kind, block: UUID, channel_type: type[Channel]) -> AutomationCore:
    """The automation that tells people of one kind of thing through the block."""
    if issubclass(channel_type, Webhook):
        parts = {"title": kind.title, "text": kind.text, "link": kind.link}
        given = "".join(f"{{% set {name} %}}{template}{{% endset %}}" for name, template in parts.items())
        content = ", ".join(f'"{name}": {{{{ {name} | tojson }}}}' for name in parts)
        action: Any = CallWebhook(block_document_id=block, payload=f"{given}{{{content}}}")
    else:
        action = SendNotification(block_document_id=block, subject=kind.title, body=f"{kind.text}\n{kind.link}")
    return AutomationCore(
        name=f"plumbline: notify, {kind.name}",
        description=f"Sends a notification through the block {BLOCK} when {kind.name}.",
        trigger=kind.trigger,
        actions=[action],
    )


Found: TypeAlias = tuple[UUID, type[Channel]]


def _apply_block(client: SyncPrefectClient, wanted: Channel, found: Found | None) -> tuple[Change, Found]:
    """Keep the address as a block; what a person changed in it stays while the address does."""
    what, where = f"block {BLOCK}", shown(wanted.url.get_secret_value())
    before = None if found is None else _document(client, found[1])
    if before is not None and found is not None and found[1] is type(wanted):
        if before.data["url"] == wanted.url.get_secret_value():
            return Change("left", what, where), found
    elif before is not None:
        client.delete_block_document(before.id)
    made = wanted.save(BLOCK, overwrite=True)
    assert isinstance(made, UUID)
    return Change("made" if before is None else "changed", what, where), (made, type(wanted))


def _remove(client: SyncPrefectClient) -> Iterator[Change]:
    for kind in KINDS:
        name = automation(kind, UUID(int=0), Webhook).name
        for each in client.read_automations_by_name(name):
            client.delete_automation(each.id)
    found = _find(client)
    if found is not None:
        client.delete_block_document(found[0])
    yield Change("changed" if found else "left", "notifications", "off")


def _find(client: SyncPrefectClient) -> Found | None:
    for kind in CHANNELS:
        document = _document(client, kind)
        if document is not None:
            return document.id, kind
    return None


def _document(client: SyncPrefectClient, kind: type[Channel]) -> BlockDocument | None:
    try:
        return client.read_block_document_by_name(BLOCK, kind.get_block_type_slug())
    except ObjectNotFound:
        return None


def _require_usable(make: Callable[[], SlackWebhook | Mail], url: str) -> SlackWebhook | Mail:
    """A block. Raises ConfigError where Apprise, which sends it and would print the address, cannot use that."""
    apprise = logging.getLogger("apprise")
    before, apprise.disabled = apprise.disabled, True
    try:
        block = make()
    finally:
        apprise.disabled = before
    if not len(block._apprise_client):
        raise ConfigError(f"{_named(url)}: not a complete address of its kind; copy it whole")
    return block


def _parts(url: str) -> tuple[str, str]:
    """Scheme and host of an address; the host is empty where it names none."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or ""
    except ValueError:
        return "", ""


def _named(url: str) -> str:
    return f"notifications to {shown(url)}"
