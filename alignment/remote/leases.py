"""A lock that machines share: an object that its holder renews, and that another takes over once it is not renewed."""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from alignment.errors import StoreError
from alignment.remote.objects import Objects, Tag
from alignment.stages.marks import is_alive, this_host

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0  # without a renewal, as the one who waits counts them, until a lease is free
RENEWALS = 4  # in that time
LONG_DEAD_SECONDS = 900.0  # since the last renewal by its own clock: no clocks that differ less are refused by a cloud
POLL_SECONDS = 1.0  # between two looks at another's lease


class Lease:
    """A lease that this process holds, as far as it knows.

    One that stood still, as a machine that was suspended, comes back to find that another computes the same. A lease
    saves work and guards no result: a stage's manifest is created by a request that fails where there is one, that of
    its unfinished work replaces only the version that its writer knows, and a folder is renamed only to a free name. So
    of two that finish the first one's result counts for both, and neither can damage what the other has written.
    """

    def __init__(self, objects: Objects, name: str, seconds: float, mine: dict[str, Any], tag: Tag) -> None:
        """`mine` is what the object holds, `tag` its version."""
        self.name, self.lost = name, False
        self._objects, self._seconds, self._mine, self._tag = objects, seconds, mine, tag
        self._renewed, self._ended, self._turn = time.monotonic(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease {name}", daemon=True)
        self._thread.start()

    def renew(self) -> bool:
        """Renew it now; False where another has taken it over, since it was not renewed in time."""
        with self._turn:
            if not self.lost:
                self._mine = self._mine | {"beat": self._mine["beat"] + 1, "renewed": _now()}
                tag = self._objects.replace(self.name, _bytes(self._mine), self._tag)
                self.lost = tag is None
                if tag is not None:
                    self._tag, self._renewed = tag, time.monotonic()
            return not self.lost

    def end(self, delete: bool) -> None:
        """Give it back: the next one need not wait. `delete` where nobody will ask for it again."""
        self._ended.set()
        with self._turn, suppress(StoreError):  # it ends by itself
            if not self.lost:
                self.lost = True
                freed = self._objects.replace(self.name, _bytes(self._mine | {"released": True}), self._tag)
                if freed is not None and delete:
                    self._objects.discard(self.name, freed)

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            try:
                self.renew()
            except StoreError as error:
                logger.warning("%s", error)
            if self.lost:
                if not self._ended.is_set():
                    logger.warning(
                        "%s: this process did not renew its lease for %.0f s, and another has taken it over; whoever "
                        "finishes first is the one whose result counts",
                        self.name,
                        time.monotonic() - self._renewed,
                    )
                return


class Leases:
    """Leases by name in a place that several machines share."""

    def __init__(self, objects: Objects, seconds: float = LEASE_SECONDS, poll: float = POLL_SECONDS) -> None:
        """`seconds` without a renewal end a lease; who waits looks every `poll` seconds."""
        self._objects, self._seconds, self._poll = objects, seconds, poll

    @contextmanager
    def hold(
        self, name: str, why: str, wanted: Callable[[], None] = lambda: None, delete: bool = False
    ) -> Iterator[Lease]:
        """Hold a lease for as long as the context lasts; others wait, say `why` and call `wanted`, which may raise.

        That of a process that died is free after `seconds`, and at once where the process was one of this host.
        """
        lease = self._acquire(name, why, wanted)
        try:
            yield lease
        finally:
            lease.end(delete)

    def _acquire(self, name: str, why: str, wanted: Callable[[], None]) -> Lease:
        mine = owner() | {"token": uuid.uuid4().hex, "beat": 0}
        seen: Tag = None
        since = time.monotonic()
        waiting = False
        while True:
            mine["renewed"] = _now()
            found = self._objects.get(name)
            if found is None:
                tag = self._objects.create(name, _bytes(mine))
            else:
                data, version = found
                if version != seen:
                    seen, since = version, time.monotonic()
                free = is_over(data) or time.monotonic() - since > self._seconds
                tag = self._objects.replace(name, _bytes(mine), version) if free else None
            if tag is not None:
                return Lease(self._objects, name, self._seconds, mine, tag)
            if not waiting:
                who = _read(found[0]).get("host", "") if found is not None else ""
                logger.info("%s%s; waiting for it", why, f" on {who}" if who else "")
                waiting = True
            wanted()
            time.sleep(self._poll)

    def take(self, name: str) -> bool:
        """Take over, without waiting, a lease that is over, so that its holder cannot renew it; whether that was so."""
        found = self._objects.get(name)
        if found is None or not is_over(found[0]):
            return False
        return self._objects.replace(name, _bytes({"released": True, "taken": uuid.uuid4().hex}), found[1]) is not None

    def over(self, name: str) -> bool:
        """Whether nobody can hold a lease any more; one that is not there is over."""
        found = self._objects.get(name)
        return found is None or is_over(found[0])


def is_over(data: bytes) -> bool:
    """Whether a lease was given back, or its holder is dead for sure.

    A process of this host can be asked; of another one it is sure after a quarter of an hour without a renewal.
    """
    lease = _read(data)
    if lease.get("released") or "renewed" not in lease:
        return True
    if {name: lease.get(name) for name in ("host", "boot", "space")} == this_host() and not is_alive(int(lease["pid"])):
        return True
    with suppress(ValueError):
        return time.time() - datetime.fromisoformat(lease["renewed"]).timestamp() > LONG_DEAD_SECONDS
    return True


def owner() -> dict[str, Any]:
    """What tells this process from every other: host, start of the host, namespace of its process numbers, number."""
    return this_host() | {"pid": os.getpid()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _read(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
