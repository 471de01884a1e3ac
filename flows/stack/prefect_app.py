"""The Prefect server as an application for uvicorn, with two fixes for SQLite's locks.

One would block it for a minute, the other fails a write that could have waited.
"""

import gc
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tasks.importing import collector_paused

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

    from flows.stack.form_check import FormCheck


def create_app() -> "FormCheck":
    """Prefect's application, made once per process, behind the check of what people submit.

    Its SQLite connections are opened by `close_failed_cursors`, its transactions on SQLite by `begin_at_once`.
    """
    with collector_paused():
        from prefect.server.api.server import create_app as create_prefect_app
        from prefect.server.database.configurations import AioSqliteConfiguration
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        import flows.stack.mail  # noqa: F401 - a block that notifications may use, loaded by its class

        event.listen(Engine, "do_connect", close_failed_cursors)
        AioSqliteConfiguration.begin_transaction = begin_at_once  # type: ignore[method-assign, assignment]
        from flows.stack.form_check import FormCheck

        made = FormCheck(create_prefect_app())
    gc.freeze()  # all of this stays for good: no later collection looks through it
    return made


_IN_TRANSACTION: ContextVar[bool] = ContextVar("_in_transaction", default=False)


@asynccontextmanager
async def begin_at_once(
    _: Any, session: "AsyncSession", with_for_update: bool = False
) -> "AsyncIterator[AsyncSessionTransaction]":
    """A transaction of Prefect's on SQLite that takes the database's lock at its start, and waits for it.

    Prefect opens transactions only to write, and begins most of them by reading; SQLite fails their first write at once
    ("database is locked") where another wrote since that read, however long it may wait for a lock. What is opened
    inside of one must not ask for the lock that this one holds, and begins as with Prefect.
    """
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE

    outermost = not _IN_TRANSACTION.get()
    inside = _IN_TRANSACTION.set(True)
    try:
        async with session.begin() as transaction:
            mode = SQLITE_BEGIN_MODE.set("IMMEDIATE" if outermost or with_for_update else "DEFERRED")
            try:
                await session.connection()
            finally:
                SQLITE_BEGIN_MODE.reset(mode)
            yield transaction
    finally:
        _IN_TRANSACTION.reset(inside)


def close_failed_cursors(dialect: "Dialect", _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    """A listener of SQLAlchemy that opens connections whose cursors close when a statement fails.

    Python 3.11 does not reset a failed statement (such as "database is locked"), and SQLAlchemy's adapter for aiosqlite
    leaves its cursor to the garbage collector. The collector resets the statement in the thread that it happens to run
    in, usually the event loop's, which then waits until the cursor's connection is free. If that connection waits for
    the database's lock, and the lock's owner for the event loop, the server blocks until SQLite gives up: 60 s with
    Prefect's settings.
    """
    if dialect.name == "sqlite":
        options["factory"] = ClosingConnection


class ClosingCursor(sqlite3.Cursor):
    """A cursor that closes itself when its statement fails, in the thread that executed it."""

    def execute(self, *arguments: Any) -> "ClosingCursor":
        """Execute as `sqlite3.Cursor` does; close the cursor on an error."""
        try:
            return super().execute(*arguments)
        except sqlite3.Error:
            self.close()
            raise

    def executemany(self, *arguments: Any) -> "ClosingCursor":
        """Execute as `sqlite3.Cursor` does; close the cursor on an error."""
        try:
            return super().executemany(*arguments)
        except sqlite3.Error:
            self.close()
            raise


class ClosingConnection(sqlite3.Connection):
    """A connection whose cursors close when their statement fails."""

    def cursor(self, factory: Any = None) -> Any:
        """A new cursor: a `ClosingCursor` unless `factory` says otherwise."""
        return super().cursor(factory or ClosingCursor)
