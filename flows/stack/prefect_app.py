"""Prefect's server as an application that uvicorn serves, with SQLite kept from standing still."""

import sqlite3
from typing import Any

from fastapi import FastAPI
from prefect.server.api.server import create_app as create_prefect_app
from sqlalchemy import event
from sqlalchemy.engine import Dialect, Engine


def create_app() -> FastAPI:
    """Prefect's application, to be made once in a process; its engines connect to SQLite by `close_failed_cursors`."""
    event.listen(Engine, "do_connect", close_failed_cursors)
    return create_prefect_app()


def close_failed_cursors(dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    """Have SQLAlchemy open a connection whose failed statements do not stay open.

    Python 3.11 leaves a failed statement ("database is locked", say) as it is, and SQLAlchemy's adapter of aiosqlite
    leaves its cursor to the garbage collector. That one resets the statement in whatever thread it runs in, mostly the
    event loop's, which has to wait until the cursor's connection is free. Where by then the connection waits for the
    lock of the database, and the owner of the lock for the event loop, the whole server stands still until SQLite gives
    up: 60 s with Prefect's settings.
    """
    if dialect.name == "sqlite":
        options["factory"] = ClosingConnection


class ClosingCursor(sqlite3.Cursor):
    """A cursor that closes when its statement fails, in the thread that executed it."""

    def execute(self, *arguments: Any) -> "ClosingCursor":
        """As of the parent."""
        try:
            return super().execute(*arguments)
        except sqlite3.Error:
            self.close()
            raise

    def executemany(self, *arguments: Any) -> "ClosingCursor":
        """As of the parent."""
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
