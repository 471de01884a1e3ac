"""Prefect's server application: it is made, and a failed statement never holds up the event loop."""

import asyncio
import gc
import sys
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from flows.stack.prefect_app import close_failed_cursors, create_app

INSERT = "INSERT INTO counts VALUES (1)"


async def collect_while_one_waits(path: Path, patience: int, *, mended: bool) -> None:
    """One connection owns the lock, the other fails on it, then waits `patience` ms as the failure becomes garbage."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", isolation_level="AUTOCOMMIT")
    if mended:
        event.listen(engine.sync_engine, "do_connect", close_failed_cursors)
    try:
        async with engine.connect() as owner, engine.connect() as other:
            await owner.exec_driver_sql("CREATE TABLE counts (count INTEGER)")
            await owner.exec_driver_sql("BEGIN IMMEDIATE")
            await other.exec_driver_sql("PRAGMA busy_timeout = 0")
            with pytest.raises(OperationalError, match="database is locked") as failure:
                await other.exec_driver_sql(INSERT)
            await other.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")
            waiting = asyncio.create_task(other.exec_driver_sql(INSERT))
            await asyncio.sleep(0.3)  # until its thread waits
            del failure
            gc.collect()
            await owner.exec_driver_sql("COMMIT")
            await waiting
    finally:
        await engine.dispose()


def test_a_failed_statement_that_becomes_garbage_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    asyncio.run(collect_while_one_waits(tmp_path / "some.db", 60_000, mended=True))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="its sqlite3 may reset a failed statement by itself")
def test_otherwise_it_does(tmp_path: Path) -> None:
    """Once this fails, SQLAlchemy closes the cursor itself, and `flows/prefect_app.py` can go."""
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(collect_while_one_waits(tmp_path / "some.db", 2_000, mended=False))


def test_the_application_is_made_and_its_connections_close_failed_cursors() -> None:
    """prefect 3.8.8 allows a fastapi with which its server does not start; `pip check` does not see it."""
    try:
        assert create_app().routes
        assert event.contains(Engine, "do_connect", close_failed_cursors)
    finally:
        event.remove(Engine, "do_connect", close_failed_cursors)
        gc.unfreeze()
