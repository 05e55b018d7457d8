"""What one session was told is written, every other session that asks the table reads: a pool writes on one connection and reads on the next. Nothing here is tried twice."""

import random

import psycopg
import pytest

from harness import eventually, in_threads

TURNS = 1000


@pytest.fixture
def pair(server):
    """Two sessions."""
    with server.connect() as one, server.connect() as two:
        yield one, two


def take_turns(pair, turns, write, read):
    """Each writes and the other reads, in turn."""
    for n in range(turns):
        write(pair[n % 2], n)
        read(pair[1 - n % 2], n)


def insert(table):
    return lambda session, n: session.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", (n, n % 10, f"row {n}"))


@pytest.fixture
def table(server, unique):
    name = unique("pool")
    server.run(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, k INT, t TEXT)")
    return name


def test_rows_are_found_by_key(pair, table):
    def found(session, n):
        assert session.execute(f"SELECT t FROM {table} WHERE id = %s", (n,)).fetchall() == [(f"row {n}",)]

    take_turns(pair, TURNS, insert(table), found)


def test_rows_are_counted_by_a_scan(pair, table):
    def counted(session, n):
        assert session.execute(f"SELECT count(*), sum(id) FROM {table}").fetchone() == (n + 1, n * (n + 1) // 2)

    take_turns(pair, TURNS, insert(table), counted)


def test_rows_are_found_through_an_index(server, pair, table):
    server.query(f"CREATE INDEX ON {table} (k)")

    def found(session, n):
        assert len(session.execute(f"SELECT id FROM {table} WHERE k = {n % 10}").fetchall()) == n // 10 + 1

    take_turns(pair, TURNS, insert(table), found)


def test_updates_and_deletes_are_seen(pair, table):
    pair[0].execute(f"INSERT INTO {table} SELECT i, 0, 'x' FROM generate_series(0, {TURNS - 1}) AS i")

    def change(session, n):
        if n % 3:
            session.execute(f"UPDATE {table} SET k = k + {n} WHERE id = {n}")
        else:
            session.execute(f"DELETE FROM {table} WHERE id = {n}")

    def changed(session, n):
        assert session.execute(f"SELECT k FROM {table} WHERE id = {n}").fetchall() == [(n,)] * bool(n % 3)
        if n % 50 == 0:
            assert session.execute(f"SELECT count(*) FROM {table}").fetchone() == (TURNS - n // 3 - 1,)

    take_turns(pair, TURNS, change, changed)


def test_copies_and_blocks_are_seen(pair, table):
    """Also in a block that has read nothing yet, through a cursor, and of a block that wrote several times."""

    def write(session, n):
        if n % 2:
            with session.cursor().copy(f"COPY {table} FROM STDIN") as rows:
                rows.write(f"{n}\t{n % 10}\tcopied\n")
            return
        with session.transaction():
            session.execute(f"INSERT INTO {table} VALUES ({n}, 0, 'first')")
            session.execute(f"UPDATE {table} SET t = 'second' WHERE id = {n}")

    def read(session, n):
        with session.transaction(), session.cursor("rows") as cursor:
            cursor.execute(f"SELECT id, t FROM {table}")
            assert dict(cursor.fetchall())[n] == ("copied" if n % 2 else "second")
            assert session.execute(f"SELECT count(*) FROM {table}").fetchone() == (n + 1,)

    take_turns(pair, TURNS // 2, write, read)


def test_many_rows_are_seen(pair, table):
    """Of statements that write to a file on their way."""
    rows = 300_000

    def write(session, n):
        session.execute(f"INSERT INTO {table} SELECT i, {n}, repeat('x', 200) FROM generate_series({n * rows}, {(n + 1) * rows - 1}) AS i")

    def read(session, n):
        assert session.execute(f"SELECT count(*) FROM {table}").fetchone() == ((n + 1) * rows,)

    take_turns(pair, 4, write, read)


def test_tables_are_read_together(server, pair, table, unique):
    """A statement over several tables, and a view that keeps up beside them, shows what was written to any."""
    other = unique("other")
    server.run(f"CREATE TABLE {other} (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW {other}_v AS SELECT count(*) AS n FROM {other};")

    def write(session, n):
        session.execute(f"INSERT INTO {table} VALUES ({n}, 0, '')" if n % 2 else f"INSERT INTO {other} VALUES ({n})")

    def read(session, n):
        counts = session.execute(f"SELECT (SELECT count(*) FROM {table}), (SELECT count(*) FROM {other})").fetchone()
        assert counts == ((n + 1) // 2, n // 2 + 1)

    take_turns(pair, TURNS, write, read)
    eventually(lambda: server.value(f"SELECT n FROM {other}_v") == TURNS // 2)


def test_a_pool_beside_a_slow_view(own_server):
    """A view over the table takes hours: the table is read at once by all, and together with the view as of where that is."""
    own_server.start()
    own_server.run("""
        CREATE TABLE t (id BIGINT PRIMARY KEY, k INT, v INT);
        CREATE MATERIALIZED VIEW slow AS SELECT count(*) AS n, max(a.v + b.v) AS m FROM t a JOIN t b USING (k);
    """)
    # In parts: who writes so many at once waits until all can be read.
    for first in range(1, 100_001, 10_000):
        own_server.query(f"INSERT INTO t SELECT i, 1, i FROM generate_series({first}, {first + 9_999}) AS i")
    with own_server.connect() as one, own_server.connect() as two:
        def read(session, n):
            assert session.execute("SELECT count(*) FROM t").fetchone() == (100_001 + n,)
            assert session.execute(f"SELECT k FROM t WHERE id = {-n}").fetchone() == (n,)

        take_turns((one, two), 300, lambda session, n: session.execute(f"INSERT INTO t VALUES ({-n}, {n}, 0)"), read)
    # Those two would wait for what they wrote.
    with own_server.connect() as other:
        assert other.execute("SELECT n, (SELECT count(*) FROM t) FROM slow").fetchone() == (0, 0)
        other.execute("DROP MATERIALIZED VIEW slow")


def test_what_was_acknowledged_is_seen_after_a_kill(own_server):
    """Many sessions write, and tell each other; the server is killed in between."""
    chance = random.Random(7)
    own_server.start(checkpoint_ms=300)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY, x INT);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;")
    told = []
    for number in range(4):
        def work(who):
            with own_server.connect() as session:
                for n in range(100):
                    id = number * 10_000 + who * 1000 + n
                    session.execute(f"INSERT INTO t VALUES ({id}, {n})")
                    told.append(id)
                    other = chance.choice(list(told))
                    assert session.execute(f"SELECT id FROM t WHERE id = {other}").fetchall() == [(other,)]

        in_threads(4, work)
        own_server.kill()
        own_server.start(checkpoint_ms=300)
        with own_server.connect() as session:
            assert session.execute("SELECT count(*) FROM t").fetchone() == (len(told),)
            assert session.execute("SELECT n FROM v").fetchone() == (len(told),)


def test_a_table_that_is_dropped_meanwhile_holds_nobody_up(pair, table, unique):
    """Its readers get an error, or its rows."""
    for n in range(30):
        name = unique("gone")
        pair[0].execute(f"CREATE TABLE {name} (id INT)")
        pair[0].execute(f"INSERT INTO {name} VALUES (1)")
        assert pair[1].execute(f"SELECT count(*) FROM {name}").fetchone() == (1,)
        pair[0].execute(f"DROP TABLE {name}")
        with pytest.raises(psycopg.errors.UndefinedTable):
            pair[1].execute(f"SELECT count(*) FROM {name}")
