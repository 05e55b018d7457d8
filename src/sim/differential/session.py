"""One connection to PostgreSQL or Tidemark, right on libpq: a statement goes in, an `Answer` comes out, and no exception.

An answer has the result's columns as the server names and types them and its cells as the bytes that it sent, or the error, or the news that the connection was lost or that
nothing came within the deadline. Nothing is decoded on the way: what the server wrote is what is compared.
"""

import select
import time
from dataclasses import dataclass, field

from psycopg import pq

# The statement is cancelled by the server after the first; a server that has not answered after the second hangs.
STATEMENT_SECONDS = 5
HANG_SECONDS = 15


@dataclass(frozen=True)
class Answer:
    """`rows` of a query (bytes or None), or `code` and `message` of an error; `code` is LOST or HANG where the server gave none."""

    names: tuple = ()
    types: tuple = ()
    rows: tuple = ()
    code: str = ""
    message: str = ""
    tag: str = field(default="", compare=False)

    @property
    def ok(self):
        return not self.code

    def text(self, rows_max=8):
        """For people."""
        if self.code:
            return " ".join(f"{self.code} {self.message}".split())
        shown = [", ".join("NULL" if cell is None else _shown(cell) for cell in row) for row in self.rows[:rows_max]]
        more = [f".. {len(self.rows)} rows"] if len(self.rows) > rows_max else []
        return " | ".join(shown + more) if self.rows else (self.tag or "no rows")


def _shown(cell):
    text = cell.decode(errors="backslashreplace")
    text = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)
    return text if len(text) <= 300 else f"{text[:300]}.. ({len(cell)} bytes)"


class Session:
    def __init__(self, host, port, database, setup=()):
        self.address = f"host={host} port={port} dbname={database} user=root connect_timeout=10 options='' client_encoding=UTF8"
        self.setup = list(setup)
        self.connection = None

    def close(self):
        if self.connection is not None:
            self.connection.finish()
            self.connection = None

    def connect(self):
        """False where nobody answers."""
        self.close()
        connection = pq.PGconn.connect(self.address.encode())
        if connection.status != pq.ConnStatus.OK:
            connection.finish()
            return False
        connection.nonblocking = 1
        connection.notice_handler = None
        self.connection = connection
        return all(self.ask(statement).ok for statement in [f"SET statement_timeout = '{STATEMENT_SECONDS}s'", "SET TimeZone = 'UTC'", *self.setup])

    def ask(self, statement, values=None, types=None, binary_values=False, binary=False):
        """The answer to one statement; with `values` (bytes or None, of the types with these oids) or `binary` by the extended protocol."""
        if self.connection is None and not self.connect():
            return Answer(code="LOST", message="no connection")
        try:
            if values is None and not binary:
                self.connection.send_query(statement.encode())
            else:
                count = len(values or ())
                self.connection.send_query_params(statement.encode(), values or [], param_types=types or [0] * count,
                                                  param_formats=[pq.Format.BINARY if binary_values else pq.Format.TEXT] * count,
                                                  result_format=pq.Format.BINARY if binary else pq.Format.TEXT)
            return self._answer()
        except Exception as error:
            self.close()
            return Answer(code="LOST", message=str(error).strip())

    def _answer(self):
        connection, deadline, last = self.connection, time.monotonic() + HANG_SECONDS, None
        flushing = connection.flush()
        while True:
            while connection.is_busy() or flushing:
                left = deadline - time.monotonic()
                if left < 0:
                    self.close()
                    return Answer(code="HANG", message=f"no answer within {HANG_SECONDS} s")
                readable, _, _ = select.select([connection.socket], [connection.socket] if flushing else [], [], min(left, 1.0) if not flushing else 0.01)
                if readable:
                    connection.consume_input()
                flushing = connection.flush() if flushing else 0
            result = connection.get_result()
            if result is None:
                break
            last = last if last is not None and not last.ok else self._read(result)
            result.clear()
        if connection.status != pq.ConnStatus.OK:
            self.close()
            return Answer(code="LOST", message=last.message if last else "the connection was closed")
        return last or Answer(code="LOST", message="no result")

    @staticmethod
    def _read(result):
        if result.status == pq.ExecStatus.FATAL_ERROR:
            code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"LOST").decode()
            message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            return Answer(code=code, message=message.decode(errors="replace").strip())
        columns = range(result.nfields)
        return Answer(names=tuple(result.fname(c).decode() for c in columns), types=tuple(result.ftype(c) for c in columns),
                      rows=tuple(tuple(result.get_value(r, c) for c in columns) for r in range(result.ntuples)), tag=(result.command_status or b"").decode())
