"""Statements that write more than the server would keep in memory for them: they stream into a file, and are there wholly or not at all, whatever happens."""

import os
import threading
import time

import psycopg
import pytest

from harness import eventually

MB = 1 << 20
ROWS = 1_500_000
# Of a table of (k BIGINT, t TEXT, n NUMERIC(12, 2), at TIMESTAMPTZ).
COLUMNS = "k BIGINT PRIMARY KEY, t TEXT NOT NULL, n NUMERIC(12, 2), at TIMESTAMPTZ"


def lines(first, last):
    for start in range(first, last, 10_000):
        yield "".join(f"{k}\trow {k:040d}\t{k % 1000}.25\t2026-01-02 03:04:05.{k % 1000000:06d}+00\n" for k in range(start, min(start + 10_000, last)))


def copy(connection, table, parts):
    with connection.cursor().copy(f"COPY {table} FROM STDIN") as rows:
        for part in parts:
            rows.write(part)


def peak(server):
    """The most memory that the server has held, in bytes."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def objects(server):
    return os.listdir(os.path.join(server.data, "log", "objects"))


def summary(server, table):
    return server.query(f"SELECT count(*), sum(k), count(DISTINCT t), sum(n) FROM {table}")[0]


def expected(keys):
    keys = list(keys)
    return (len(keys), sum(keys), len(keys), sum(k % 1000 for k in keys) + len(keys) / 4)


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS.replace(" PRIMARY KEY", "")], ids=["key", "no key"])
def test_a_copy_streams_and_is_there_at_once_after_any_end(own_server, columns):
    own_server.start()
    own_server.run(f"CREATE TABLE t ({columns}); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(k) AS s FROM t;")
    before = peak(own_server)
    with own_server.connect() as connection:
        copy(connection, "t", lines(0, ROWS))
        # Everybody sees it: nobody has to have written it.
        assert own_server.value("SELECT count(*) FROM t") == ROWS
    # The table itself, its changes since the last checkpoint, and little else: 40 MB of these are text.
    assert peak(own_server) - before < 900 * MB
    assert own_server.query("SELECT c, s FROM v") == [(ROWS, sum(range(ROWS)))]
    own_server.kill()
    own_server.start()
    assert summary(own_server, "t") == expected(range(ROWS))
    assert own_server.query("SELECT c, s FROM v") == [(ROWS, sum(range(ROWS)))]
    eventually(lambda: not objects(own_server))


def test_what_was_acknowledged_is_replayed_without_a_checkpoint(own_server):
    own_server.start(checkpoint_ms=3_600_000)
    own_server.run(f"CREATE TABLE t ({COLUMNS});")
    with own_server.connect() as connection:
        copy(connection, "t", lines(0, 600_000))
        connection.execute("UPDATE t SET n = n + 1")
        connection.execute("DELETE FROM t WHERE k >= 500000")
        connection.execute("INSERT INTO t VALUES (600000, 'last', 0.25, now())")
    # Those of COPY and UPDATE; the rows that leave are few enough for memory, and too many for an entry.
    assert len(objects(own_server)) == 3
    for _ in range(2):
        own_server.kill()
        own_server.start(checkpoint_ms=3_600_000)
        count, keys, _, numbers = summary(own_server, "t")
        assert (count, keys) == (500_001, sum(range(500_000)) + 600_000)
        assert numbers == sum(k % 1000 + 1 for k in range(500_000)) + 500_001 / 4


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS.replace(" PRIMARY KEY", "")], ids=["key", "no key"])
@pytest.mark.parametrize("last", ["x\tbad\t1\t2026-01-01\n", "1\t\\N\t1\t2026-01-01\n", "1\n"], ids=["22P02", "23502", "22P04"])
def test_a_copy_that_fails_in_its_last_line_leaves_nothing(server, unique, columns, last, request):
    table = unique("failed")
    server.run(f"CREATE TABLE {table} ({columns}); INSERT INTO {table} VALUES (7, 'seven', 1, now());")
    with server.connect() as connection:
        with pytest.raises(psycopg.Error) as raised:
            copy(connection, table, [*lines(0, 600_000), last])
        assert raised.value.sqlstate in request.node.name
        assert connection.execute(f"SELECT k, t FROM {table}").fetchall() == [(7, "seven")]
        # The lock is free, and no file stays.
        with server.connect() as other:
            other.execute("SET lock_timeout = '5s'")
            other.execute(f"INSERT INTO {table} VALUES (8, 'eight', 1, now())")
            eventually(lambda: not objects(server))
            assert other.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)


@pytest.mark.parametrize("end", ["kill", "disconnect", "cancel"])
def test_a_copy_that_does_not_come_to_its_end_leaves_nothing(own_server, end):
    own_server.start()
    own_server.run(f"CREATE TABLE t ({COLUMNS}); INSERT INTO t VALUES (7, 'seven', 1, now());")
    connection = own_server.connect()
    stored = threading.Event()

    def parts():
        for part in lines(0, 100_000_000):
            if stored.is_set():
                return
            yield part

    def run():
        with pytest.raises(psycopg.Error):
            with connection.cursor().copy("COPY t FROM STDIN") as rows:
                for part in parts():
                    rows.write(part)
                if end == "cancel":
                    connection.cancel()
                    time.sleep(0.5)
                elif end == "disconnect":
                    os.close(os.dup(connection.fileno()))
                    connection.close()
                else:
                    own_server.kill()
                rows.write("1\t1\t1\t\\N\n")

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: objects(own_server), timeout=60)
    stored.set()
    thread.join(60)
    assert not thread.is_alive()
    if end == "kill":
        own_server.start()
    assert own_server.query("SELECT k, t FROM t") == [(7, "seven")]
    own_server.run("INSERT INTO t VALUES (8, 'eight', 1, now());")
    eventually(lambda: not objects(own_server))


@pytest.mark.parametrize("begin", ["3\tfirst\n4\tfirst\n4\tsecond\n", "3\tfirst\n4\tfirst\n"], ids=["at_once", "in_the_file"])
def test_the_last_row_of_a_key_counts_and_what_was_there_is_replaced(server, unique, begin):
    """Keys that are there, keys that come twice within one part and far from each other, also behind many that ascend."""
    table, kept = unique("twice"), unique("kept")
    server.run(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, t TEXT); INSERT INTO {table} VALUES (3, 'before'), (-1, 'stays');")
    server.run(f"CREATE TABLE {kept} (k BIGINT, t TEXT, PRIMARY KEY (k)) ON CONFLICT IGNORE; INSERT INTO {kept} VALUES (3, 'before'), (-1, 'stays');")
    filler = "y" * 80

    def parts():
        yield begin
        for start in range(1_000, 601_000, 10_000):
            yield "".join(f"{k}\t{filler}\n" for k in range(start, start + 10_000))
        yield "3\tlast\n4\tlast\n1000\tlast\n"

    for name, answer in ((table, [(-1, "stays"), (3, "last"), (4, "last"), (1000, "last")]), (kept, [(-1, "stays"), (3, "before"), (4, "first"), (1000, filler)])):
        with server.connect() as connection:
            copy(connection, name, parts())
            assert connection.execute(f"SELECT * FROM {name} WHERE k <= 1000 ORDER BY k").fetchall() == answer
            assert connection.execute(f"SELECT count(*), count(DISTINCT k) FROM {name}").fetchone() == (600_003, 600_003)


def test_queries_write_as_much_as_they_like(own_server):
    own_server.start()
    own_server.run("CREATE TABLE t (k BIGINT PRIMARY KEY, t TEXT, n BIGINT); CREATE TABLE u (k BIGINT, t TEXT, n BIGINT); CREATE MATERIALIZED VIEW v AS SELECT n % 2 AS m, count(*) AS c FROM t GROUP BY n % 2;")
    with own_server.connect() as connection:
        tags = [
            connection.execute(text).statusmessage
            for text in (
                "INSERT INTO t SELECT i, 'text of the row ' || i, i FROM generate_series(1, 1500000) g(i)",
                "UPDATE t SET n = n + 1 WHERE k <= 1000000",
                "INSERT INTO u SELECT * FROM t",
                "INSERT INTO u SELECT * FROM u",
                "DELETE FROM t WHERE k % 3 <> 0",
            )
        ]
        assert tags == ["INSERT 0 1500000", "UPDATE 1000000", "INSERT 0 1500000", "INSERT 0 1500000", "DELETE 1000000"]
        assert connection.execute("SELECT count(*), sum(n - k) FROM t").fetchone() == (500_000, 333_333)
        assert connection.execute("SELECT count(*), count(DISTINCT k), sum(n - k) FROM u").fetchone() == (3_000_000, 1_500_000, 2_000_000)
        assert connection.execute("SELECT sum(c) FROM v").fetchone() == (500_000,)


def test_a_statement_that_memory_would_not_hold_is_refused(own_server):
    own_server.start(memory_limit="600MB")
    own_server.run("CREATE TABLE t (k BIGINT, t TEXT);")
    error = own_server.error("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 100000000) g(i)")
    assert error.sqlstate in {"54000", "53200"}, error
    assert own_server.value("SELECT count(*) FROM t") == 0
    assert peak(own_server) < 600 * MB
    own_server.run("INSERT INTO t VALUES (1, 'x');")
    eventually(lambda: not objects(own_server))
