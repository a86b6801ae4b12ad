"""A connection that cannot hang its caller: a server that does not answer costs a call `timeout_s`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from raven.sinks.store import StoreUnavailableError
from raven.sinks.timescale.errors import explain
from raven.sinks.timescale.sql import conninfo, session_settings

T = TypeVar("T")
Call = Callable[[Any], T]
CLOSE_S: Final = 2.0


class Session:
    """A connection to `url`, each statement a transaction of its own unless BEGIN says otherwise.

    The driver blocks until the server answers, so its calls run in a thread of the session, which never holds up
    the end of the process. When one is not back in `timeout_s` the session is over: the thread gets no further
    statement, a COMMIT least of all, and closes the connection as soon as the driver returns.
    `patient`: once connected, statements may take as long as they do.

    Errors of the server and the connection are raised as StoreUnavailableError, StoreRefusedError or RowRefusedError.
    """

    def __init__(self, url: str, *, timeout_s: float, patient: bool = False) -> None:
        self._timeout_s: float | None = timeout_s
        self._calls: SimpleQueue[tuple[Future[Any], Call[Any]] | None] = SimpleQueue()
        self._over = False
        thread = threading.Thread(
            target=_serve, args=(conninfo(url, timeout_s), self._calls), name="timescale", daemon=True
        )
        thread.start()
        self._thread = thread
        try:
            self.run("SELECT 1" if patient else session_settings(timeout_s))
        except StoreUnavailableError:
            self.close()
            raise
        if patient:
            self._timeout_s = None

    def run(self, statement: str, parameters: Any = None) -> pa.Table:
        """The rows that a statement gives; `parameters`: a tuple, or an Arrow batch of which each row is one set."""

        def call(connection: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetch_arrow_table()

        return self._call(call)

    def script(self, statements: str) -> None:
        """Run statements that give nothing, in one message: when it is given up, the rest of them is not to come."""

        def call(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.executescript(statements)

        self._call(call)

    def copy_into(self, temporary_table: str, rows: pa.RecordBatch) -> None:
        """COPY `rows` into a temporary table of this session, columns by name.

        Types must be the table's own: the driver converts some others without a word, wrongly.
        """

        def call(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.adbc_ingest(temporary_table, rows, mode="append", temporary=True)

        self._call(call)

    def close(self) -> None:
        """Let go of the connection; what was begun and not committed is undone."""
        if not self._over:
            self._over = True
            self._calls.put(None)
            self._thread.join(CLOSE_S)

    def _call(self, call: Call[T]) -> T:
        if self._over:
            raise StoreUnavailableError("the connection is closed")
        future: Future[T] = Future()
        self._calls.put((future, call))
        if not wait([future], self._timeout_s).done:
            self._over = True
            self._calls.put(None)
            raise StoreUnavailableError(
                f"no answer within {self._timeout_s:g} s", hint="is the database overloaded, stopped or out of reach?"
            )
        try:
            return future.result()
        except adbc_driver_manager.Error as error:
            raise explain(error.sqlstate, str(error), error.details or []) from error


def _serve(uri: str, calls: SimpleQueue[tuple[Future[Any], Call[Any]] | None]) -> None:
    """The session's thread: connects with the first call, answers one after the other, closes."""
    connection = None
    while (item := calls.get()) is not None:
        future, call = item
        try:
            if connection is None:
                connection = dbapi.connect(uri, autocommit=True)
            future.set_result(call(connection))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer gets it
            future.set_exception(error)
        del item, future, call
    if connection is not None:
        with contextlib.suppress(adbc_driver_manager.Error):
            connection.close()


@contextlib.contextmanager
def session(url: str, *, timeout_s: float, patient: bool = False) -> Iterator[Session]:
    """A session that is closed at the end."""
    opened = Session(url, timeout_s=timeout_s, patient=patient)
    try:
        yield opened
    finally:
        opened.close()
