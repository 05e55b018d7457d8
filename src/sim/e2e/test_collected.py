"""What a statement collects before it goes on is bounded; what is beyond is an error of its statement alone, and another connection is answered at once."""

import time
from pathlib import Path

import psycopg
import pytest


def answers(server):
    """A new client is answered at once."""
    began = time.monotonic()
    with server.connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert time.monotonic() - began < 5


def test_a_write_is_collected_up_to_its_limit(server, unique):
    table = unique("collected")
    server.run(f"CREATE TABLE {table} (a BIGINT, b TEXT DEFAULT '{'x' * 100_000}');")
    endless = "SELECT g FROM generate_series(1, 100000000000) AS s(g)"
    for statement in (f"INSERT INTO {table} (a) {endless}", f"INSERT INTO {table} (a) SELECT generate_series(1, 100000000000)", f"CREATE TABLE {table}_copy AS {endless}"):
        assert server.error(statement).sqlstate == "54000"
        answers(server)
    # Lines of two bytes that become a hundred thousand.
    with server.connect() as connection, pytest.raises(psycopg.Error) as raised, connection.cursor().copy(f"COPY {table} (a) FROM STDIN") as copy:
        for _ in range(100):
            copy.write("1\n" * 1000)
    assert raised.value.sqlstate == "54000"
    assert server.value(f"SELECT count(*) FROM {table}") == 0
    answers(server)


def test_copy_in_parts(server, unique):
    """Lines that end anywhere, in parts that are split one after the other; the line of an error is counted through all of them."""
    table = unique("parts")
    server.run(f"CREATE TABLE {table} (a BIGINT PRIMARY KEY, b TEXT);")
    text = "".join(f'{n},"line {n}\n""quoted"""\n' for n in range(200_000)).encode()
    with server.connect() as connection:
        with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
            for at in range(0, len(text), 99_991):
                copy.write(text[at:at + 99_991])
        assert connection.execute(f"SELECT count(*), sum(a), min(b) FROM {table}").fetchone() == (200_000, sum(range(200_000)), 'line 0\n"quoted"')
        with pytest.raises(psycopg.Error) as raised, connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write("".join(f"{n}\tx\n" for n in range(300_000)) + "1\n" + "2\tx\n" * 100_000)
        assert raised.value.sqlstate == "22P04" and "line 300001" in raised.value.diag.message_detail
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (200_000,)


def test_a_block_is_bounded_before_it_commits(server, unique):
    table = unique("block")
    server.run(f"CREATE TABLE {table} (a TEXT);")
    large = f"INSERT INTO {table} SELECT repeat('x', 100000) FROM generate_series(1, 6000)"
    with server.connect(autocommit=False) as connection:
        connection.execute(large)
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(large)
        assert raised.value.sqlstate == "54000"
        connection.rollback()
        connection.execute(f"INSERT INTO {table} VALUES ('y')")
        connection.execute("SAVEPOINT s")
        connection.execute(large)
        connection.execute("ROLLBACK TO SAVEPOINT s")
        connection.execute(large)
        connection.rollback()
    assert server.value(f"SELECT count(*) FROM {table}") == 0
    answers(server)


def test_fetch_costs_what_it_fetches(own_server):
    """Processor time, which does not depend on who else uses the machine: ten times a few rows are less than all rows once."""
    own_server.start()
    own_server.query("CREATE TABLE t (k INT PRIMARY KEY, a TEXT)")
    own_server.query("INSERT INTO t SELECT g, 'a text of some length ' || g FROM generate_series(1, 400000) AS s(g)")
    own_server.query("FLUSH")

    def spent(work):
        def ticks():
            fields = Path(f"/proc/{own_server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        work()
        return ticks() - before

    with own_server.connect(autocommit=False) as connection, connection.cursor() as cursor, own_server.connect() as whole:

        def few():
            for number in range(10):
                cursor.execute(f"DECLARE c{number} CURSOR FOR SELECT * FROM t")
                cursor.execute(f"FETCH 5 FROM c{number}")
                assert len(cursor.fetchall()) == 5
                cursor.execute(f"CLOSE c{number}")

        few()
        all_rows = spent(lambda: whole.execute("SELECT * FROM t").fetchall())
        assert spent(few) < all_rows


def test_fetch_sends_rows_as_they_are_taken(server):
    with server.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 100000000000) AS s(g)")
        cursor.execute("FETCH 3 FROM c")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        rows = cursor.stream("FETCH ALL FROM c")
        assert [next(rows) for _ in range(2)] == [(4,), (5,)]
        connection.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            for _ in rows:
                pass
        connection.rollback()
        cursor.execute("DECLARE d CURSOR FOR SELECT g FROM generate_series(1, 10000) AS s(g)")
        for expected in (9_000, 1_000, 0, 0):
            cursor.execute("FETCH 9000 FROM d")
            assert len(cursor.fetchall()) == expected
    answers(server)
