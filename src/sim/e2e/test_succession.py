"""CREATE OR REPLACE MATERIALIZED VIEW with what depends on it: all of it or nothing, at one moment, through kills, cancels and failures; its sinks tell the difference, once."""

import random
import signal
import threading
import time

import psycopg
import pytest
from harness import eventually, replay_upserts

# Of each group the number of rows and their sum, times a factor that only the rows' own view knows.
SETUP = """CREATE TABLE t (id BIGINT PRIMARY KEY, g BIGINT NOT NULL, x BIGINT NOT NULL);
INSERT INTO t SELECT n, n % 5, n FROM generate_series(1, 50) AS s (n);
CREATE MATERIALIZED VIEW v AS SELECT id, g, 1 * x AS x, 1 AS factor FROM t;
CREATE MATERIALIZED VIEW w AS SELECT g, count(*) AS n, sum(x)::BIGINT AS x, min(factor) AS factor FROM v GROUP BY g;
CREATE VIEW plain AS SELECT * FROM w;
CREATE MATERIALIZED VIEW y AS SELECT sum(n)::BIGINT AS n, sum(x)::BIGINT AS x, min(factor) AS factor FROM plain;
CREATE TABLE copy (g BIGINT PRIMARY KEY, n BIGINT, x BIGINT, factor INT);
CREATE SINK into_copy INTO copy FROM w;"""
READ = "SELECT (SELECT min(factor) FROM v), (SELECT min(factor) FROM w), (SELECT factor FROM y), (SELECT sum(x) FROM v), (SELECT sum(x) FROM w), (SELECT x FROM y)"


def replacement(factor, more=""):
    return f"CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT id, {more} g, {factor} * x AS x, {factor} AS factor FROM t"


def check(row):
    """All of one query, at one epoch."""
    v, w, y, *sums = row
    assert v == w == y and len(set(sums)) == 1, row
    return v


def settled(server):
    return all("running" in row for row in server.query("SHOW JOBS"))


def answer(server):
    return sorted(server.query("SELECT g, n, x, factor FROM w"))


def test_readers_see_all_or_nothing(own_server):
    """Rows come and go, the view is replaced again and again, and each read has one of its queries everywhere."""
    own_server.start(checkpoint_ms=300)
    own_server.run(SETUP)
    over, failed = threading.Event(), []
    seen = [], []

    def reads(seen):
        try:
            with own_server.connect() as connection:
                while not over.is_set():
                    seen.append(check(connection.execute(READ).fetchone()))
        except Exception as error:
            failed.append(error)

    def writes():
        with own_server.connect() as connection:
            for n in range(10_000):
                if over.is_set():
                    return
                connection.execute("INSERT INTO t VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET g = excluded.g, x = excluded.x", (n % 60, n % 7, n))

    threads = [threading.Thread(target=reads, args=(each,)) for each in seen] + [threading.Thread(target=writes)]
    [thread.start() for thread in threads]
    # A cursor keeps what it began with, or says that this is gone.
    with own_server.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("DECLARE c CURSOR FOR SELECT factor FROM w")
        assert connection.execute("FETCH 1 FROM c").fetchall() == [(1,)]
        own_server.query(replacement(2))
        try:
            assert set(connection.execute("FETCH ALL FROM c").fetchall()) == {(1,)}
        except psycopg.Error as error:
            assert error.sqlstate.startswith(("72", "40", "42", "55")), error
        connection.rollback()
    for factor in range(3, 9):
        own_server.query(replacement(factor, "x + 1 AS more," if factor % 2 else ""))
        assert check(own_server.query(READ)[0]) == factor
    over.set()
    [thread.join() for thread in threads]
    assert not failed, failed
    for each in seen:
        assert each == sorted(each) and each[0] == 1, "nobody sees an older one again"
    eventually(lambda: settled(own_server))
    eventually(lambda: sorted(own_server.query("SELECT g, n, x, factor FROM copy")) == answer(own_server))
    assert [c[0] for c in own_server.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'plain' ORDER BY ordinal_position")] == ["g", "n", "x", "factor"]
    own_server.kill()
    own_server.start()
    assert check(own_server.query(READ)[0]) == 8


POINTS = [("ddl.promote", False), ("checkpoint.manifest", False), ("checkpoint.commit", False), ("succession.held", False), ("succession.log", False), ("succession.logged", True)]


@pytest.mark.parametrize("point, takes_effect", POINTS)
def test_kill_at_every_point(own_server, point, takes_effect):
    own_server.start()
    own_server.run(SETUP)
    own_server.query("FLUSH")
    own_server.kill()
    own_server.start(failpoint=point, checkpoint_ms=600_000)
    with pytest.raises(psycopg.Error):
        own_server.run(replacement(2))
    assert own_server.wait_exit() == -signal.SIGABRT
    own_server.start()
    assert check(own_server.query(READ)[0]) == (2 if takes_effect else 1)
    own_server.query("INSERT INTO t VALUES (100, 1, 1)")
    eventually(lambda: settled(own_server))
    eventually(lambda: sorted(own_server.query("SELECT g, n, x, factor FROM copy")) == answer(own_server))
    names = sorted(row[1] for row in own_server.query("SHOW JOBS"))
    assert names == sorted(f"public.{n}" for n in ("t", "v", "w", "y", "copy", "into_copy"))
    own_server.query(replacement(3))
    assert check(own_server.query(READ)[0]) == 3


def test_kills_and_cancels_with_a_sink_to_kafka(kafka, own_server, unique):
    """At random moments. The receiver is told what the view has, and nothing twice."""
    rng = random.Random(11)
    out, of_query = kafka.create_topic(unique("out"), 1), kafka.create_topic(unique("query"), 1)
    own_server.start(checkpoint_ms=300)
    own_server.run(SETUP + f"CREATE SINK k FROM w WITH ({kafka.options(out, primary_key='g')}) FORMAT UPSERT ENCODE JSON;\n"
                   f"CREATE SINK q AS SELECT n, count(*) AS groups FROM w GROUP BY n WITH ({kafka.options(of_query, primary_key='n')}) FORMAT UPSERT ENCODE JSON;")

    def told():
        told = sorted((r["g"], r["n"], r["x"], r["factor"]) for r in replay_upserts(kafka.read(out)).values())
        groups = sorted((r["n"], r["groups"]) for r in replay_upserts(kafka.read(of_query)).values())
        return told == answer(own_server) and groups == sorted(own_server.query("SELECT n, count(*) FROM w GROUP BY n"))

    factor = 1
    for turn in range(10):
        over = threading.Event()

        def writes(turn=turn, over=over):
            try:
                with own_server.connect() as connection:
                    for n in range(10_000):
                        if over.is_set():
                            return
                        connection.execute("INSERT INTO t VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET g = excluded.g, x = excluded.x", (rng.randrange(60), n % 5, n + turn))
                        if n % 7 == 0:
                            connection.execute("DELETE FROM t WHERE id = %s", (rng.randrange(60),))
            except psycopg.Error:
                pass

        writer = threading.Thread(target=writes)
        writer.start()
        time.sleep(rng.random() * 0.3)
        new = factor + 1
        if turn % 3 == 2:
            own_server.query(f"SET statement_timeout = '{rng.randrange(20, 1500)}ms'")
            try:
                own_server.query(replacement(new))
            except psycopg.Error as error:
                assert error.sqlstate == "57014"
            own_server.query("SET statement_timeout = 0")
        else:
            own_server.start_statement_and_kill(replacement(new), rng.random() * 1.5)
            own_server.start(workers=rng.choice([1, 2, 3]), checkpoint_ms=300)
        over.set()
        writer.join()
        now = check(own_server.query(READ)[0])
        assert now in (factor, new)
        factor = now
        if turn % 3 == 0:
            eventually(lambda: settled(own_server), 30)
            eventually(told, 30)
    own_server.query(replacement(20))
    assert check(own_server.query(READ)[0]) == 20
    eventually(lambda: settled(own_server), 30)
    eventually(told, 30)
    # A view that says the same again: there is nothing to tell.
    records = len(kafka.read(out))
    own_server.query(replacement("(10 + 10)"))
    eventually(lambda: settled(own_server), 30)
    assert check(own_server.query(READ)[0]) == 20 and told() and len(kafka.read(out)) == records
    own_server.query("INSERT INTO t VALUES (1000, 3, 3)")
    eventually(told, 30)


def test_what_fails_leaves_nothing(own_server):
    """A column that is gone, a type, an error in a row, a cancel: nothing changes, and who is to blame is named."""
    own_server.start()
    own_server.run(SETUP + "CREATE MATERIALIZED VIEW strict WITH (on_error = 'fail') AS SELECT id, 100 / x AS q FROM v;")
    before = own_server.query(READ), sorted(row[1] for row in own_server.query("SHOW JOBS"))
    for statement, state, who in [
        ("SELECT id, g, x FROM t", "2BP01", "w depends on it. It names column \"factor\""),
        ("SELECT id, g, x::INT AS x, 1 AS factor FROM t", "2BP01", "x"),
        ("SELECT id, g, x - 7 AS x, 1 AS factor FROM t", "22012", "strict"),
        ("SELECT t.id, g, t.x, n::INT AS factor FROM w JOIN t USING (g)", "42P17", "v"),
    ]:
        statement = f"CREATE OR REPLACE MATERIALIZED VIEW v AS {statement}"
        error = own_server.error(statement)
        assert error.sqlstate == state and who in f"{error} {error.diag.message_detail}", (statement, error)
        assert (own_server.query(READ), sorted(row[1] for row in own_server.query("SHOW JOBS"))) == before, statement
    own_server.query("INSERT INTO t VALUES (100, 1, 1)")
    check(own_server.query(READ)[0])
    own_server.query(replacement(2))
    assert check(own_server.query(READ)[0]) == 2
    assert own_server.query("SELECT q FROM strict WHERE id = 5") == [(10,)]
