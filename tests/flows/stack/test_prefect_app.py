"""Prefect's server application: it is made, and a failed statement never holds up the event loop."""

import asyncio
import gc
import sys
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from flows.stack.prefect_app import begin_at_once, close_failed_cursors, create_app

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


async def write_after_a_read_while_another_writes(path: Path, *, mended: bool) -> None:
    """Two of Prefect's transactions at once: each reads, and then writes what it read plus one."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{path}", sqlalchemy_pool_size=5)
    engine = await database.engine()
    begin = begin_at_once if mended else AioSqliteConfiguration.begin_transaction

    async def count() -> None:
        async with await database.session(engine) as session, begin(database, session):
            (now,) = (await session.execute(text("SELECT count FROM counts"))).one()
            await asyncio.sleep(0.2)
            await session.execute(text(f"UPDATE counts SET count = {now + 1}"))

    try:
        async with engine.connect() as first:
            await first.exec_driver_sql("CREATE TABLE counts (count INTEGER)")
            await first.exec_driver_sql("INSERT INTO counts VALUES (0)")
        # Both end before the engine does: a connection whose task is cancelled is left to the garbage collector.
        for error in filter(None, await asyncio.gather(count(), count(), return_exceptions=True)):
            raise error
        async with engine.connect() as last:
            assert (await last.exec_driver_sql("SELECT count FROM counts")).one() == (2,)
    finally:
        await engine.dispose()


async def read_and_write_within_a_write(path: Path) -> int:
    """As where Prefect tells of a work queue that it is just pausing: sessions within the transaction of another."""
    from prefect.server.database.configurations import AioSqliteConfiguration

    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{path}", sqlalchemy_pool_size=5)
    engine = await database.engine()
    try:
        async with engine.connect() as first:
            await first.exec_driver_sql("CREATE TABLE counts (count INTEGER)")
            await first.exec_driver_sql(INSERT)
        async with await database.session(engine) as outer, begin_at_once(database, outer):
            await outer.execute(text("UPDATE counts SET count = 2"))
            async with await database.session(engine) as inner:
                (by_itself,) = (await inner.execute(text("SELECT count FROM counts"))).one()
            async with await database.session(engine) as inner, begin_at_once(database, inner):
                (in_another,) = (await inner.execute(text("SELECT count FROM counts"))).one()
        assert by_itself == in_another
        return int(by_itself)
    finally:
        await engine.dispose()


def test_what_is_read_within_a_write_does_not_wait_for_it(tmp_path: Path) -> None:
    """It sees what was there before; waiting would take the minute until SQLite gives up."""
    assert asyncio.run(asyncio.wait_for(read_and_write_within_a_write(tmp_path / "some.db"), 20)) == 1


def test_a_write_of_prefect_s_waits_for_another(tmp_path: Path) -> None:
    """It is what "Worker channel heartbeat persistence failed" and "Failed in consume_loop" came from."""
    asyncio.run(write_after_a_read_while_another_writes(tmp_path / "some.db", mended=True))


def test_otherwise_it_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(write_after_a_read_while_another_writes(tmp_path / "some.db", mended=False))


def test_the_application_is_made_and_its_connections_close_failed_cursors() -> None:
    """prefect 3.8.8 allows a fastapi with which its server does not start; `pip check` does not see it."""
    try:
        assert create_app().app.routes
        assert event.contains(Engine, "do_connect", close_failed_cursors)
    finally:
        event.remove(Engine, "do_connect", close_failed_cursors)
        gc.unfreeze()
