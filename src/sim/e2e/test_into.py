"""Sinks into tables: exactly once through kills at any moment, beside other writers of the table, in order of nothing but the log."""

import random
import threading
import time

import psycopg
from harness import eventually

SETUP = """CREATE TABLE events (n BIGINT, g BIGINT) APPEND ONLY;
CREATE TABLE stock (id BIGINT PRIMARY KEY, g BIGINT, v BIGINT);
CREATE TABLE history (n BIGINT, g BIGINT, from_sink BOOLEAN DEFAULT true);
CREATE TABLE totals (g BIGINT PRIMARY KEY, rows BIGINT, v BIGINT);
CREATE SINK to_history INTO history (n, g) FROM events;
CREATE SINK to_totals INTO totals AS SELECT g, count(*) AS rows, sum(v)::BIGINT AS v FROM stock GROUP BY g;
CREATE MATERIALIZED VIEW seen AS SELECT g, count(*) AS rows, sum(n) AS n FROM history GROUP BY g;"""


def agree(server):
    """What the sinks have written is what their queries have."""
    copied = server.query("SELECT n, g FROM history WHERE from_sink ORDER BY n, g")
    if copied != server.query("SELECT n, g FROM events ORDER BY n, g"):
        return False
    return server.query("SELECT g, rows, v FROM totals ORDER BY g") == server.query("SELECT g, count(*), sum(v)::BIGINT FROM stock GROUP BY g ORDER BY g")


def test_kills(own_server):
    """Each event is in the table once, whatever was on its way; rows by key are those of the query."""
    rng = random.Random(3)
    own_server.start(workers=2, checkpoint_ms=400)
    own_server.run(SETUP)
    next_n = 0
    for round in range(12):
        over = threading.Event()

        def writes():
            nonlocal next_n
            try:
                with own_server.connect() as connection:
                    while not over.is_set():
                        connection.execute("INSERT INTO events SELECT n, n %% 7 FROM generate_series(%s::bigint, %s::bigint) AS s(n)", (next_n, next_n + rng.randrange(40)))
                        next_n += 100
                        key = rng.randrange(30)
                        connection.execute("INSERT INTO stock VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET g = excluded.g, v = excluded.v", (key, key % 5 + rng.randrange(2), rng.randrange(100)))
                        if rng.randrange(5) == 0:
                            connection.execute("DELETE FROM stock WHERE id = %s", (rng.randrange(30),))
                        if rng.randrange(5) == 0:
                            connection.execute("INSERT INTO history VALUES (%s, 1, false)", (next_n,))
            except psycopg.Error:
                pass

        writer = threading.Thread(target=writes)
        writer.start()
        time.sleep(rng.random() * 0.8)
        own_server.kill()
        over.set()
        writer.join()
        own_server.start(workers=rng.choice([1, 2, 3]), checkpoint_ms=400)
        if round % 4 == 3:
            eventually(lambda: agree(own_server), timeout=30)
    eventually(lambda: agree(own_server), timeout=30)
    assert own_server.query("SELECT g, rows, n FROM seen ORDER BY g") == own_server.query("SELECT g, count(*), sum(n) FROM history GROUP BY g ORDER BY g")


def test_large_snapshot_and_alterations(own_server):
    """A snapshot that leaves in parts, while the table gets and loses columns."""
    own_server.start(workers=2)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT); CREATE TABLE copy (id BIGINT PRIMARY KEY, v BIGINT, w INT);")
    own_server.query("INSERT INTO t SELECT n, n * 2 FROM generate_series(1, 400000) AS g (n)")
    own_server.query("CREATE SINK k INTO copy (id, v) FROM t")
    own_server.query("ALTER TABLE copy ADD COLUMN x INT DEFAULT 3, DROP COLUMN w")
    own_server.query("UPDATE t SET v = v + 1 WHERE id % 1000 = 0")
    expected = own_server.query("SELECT count(*), sum(v) FROM t")
    eventually(lambda: own_server.query("SELECT count(*), sum(v) FROM copy") == expected, timeout=60)
    assert own_server.query("SELECT DISTINCT x FROM copy") == [(3,)]


def test_who_may(server, unique):
    name = unique("into")
    server.run(f"CREATE TABLE {name} (a INT PRIMARY KEY); CREATE TABLE {name}_from (a INT PRIMARY KEY); CREATE USER {name}_u; GRANT SELECT ON {name}_from TO {name}_u; GRANT CREATE ON SCHEMA public TO {name}_u;")
    with server.connect() as connection:
        connection.execute(f"SET ROLE {name}_u")
        try:
            connection.execute(f"CREATE SINK {name}_k INTO {name} FROM {name}_from")
            raise AssertionError("it may not")
        except psycopg.Error as error:
            assert error.sqlstate == "42501"
        connection.execute("RESET ROLE")
        connection.execute(f"GRANT INSERT, UPDATE, DELETE ON {name} TO {name}_u")
        connection.execute(f"SET ROLE {name}_u")
        connection.execute(f"CREATE SINK {name}_k INTO {name} FROM {name}_from")
