"""Secondary indexes: what they find, what they keep unique, and what is left of them after a restart."""

import psycopg
import pytest

from harness import Tidemark, eventually


@pytest.fixture
def own(folder, request):
    """A server of this test's own."""
    server = Tidemark(folder / request.node.name)
    server.start()
    yield server
    server.kill()


def duplicate(server, statement):
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        server.query(statement)
    return error.value.diag.message_primary, error.value.diag.message_detail


def plan(server, query):
    return "\n".join(row[0] for row in server.query(f"EXPLAIN {query}"))


def test_lookups_through_indexes_follow_the_rows(own):
    own.query("CREATE TABLE t (k INT PRIMARY KEY, a INT, b TEXT)")
    own.query("INSERT INTO t SELECT g, g % 10, 'b' || g % 3 FROM generate_series(1, 1000) g")
    own.query("CREATE MATERIALIZED VIEW v AS SELECT a, b, count(*) AS c FROM t GROUP BY a, b")
    own.query("CREATE INDEX ON t (a, b)")
    own.query("CREATE INDEX v_by_b ON v USING hash (b)")

    def check():
        count = own.value("SELECT count(*) FROM t WHERE a + 0 = 3")
        assert "t by (a) through its index t_a_b_idx" in plan(own, "SELECT * FROM t WHERE a = 3")
        assert len(own.query("SELECT k FROM t WHERE a = 3")) == count
        assert own.value("SELECT count(*) FROM t WHERE a = 3 AND k > 0") == count
        assert "v by (a) through its key" in plan(own, "SELECT * FROM v WHERE a = 3")
        assert "v by (b) through its index v_by_b" in plan(own, "SELECT * FROM v WHERE b = 'b1'")
        for where in ["a = 3", "a IN (3, 4, 3)", "a = 3 AND b = 'b1'", "b = 'b1' AND a IN (3, 5)", "a = 3 AND b IN ('b1', 'b2', 'x')", "b = 'b2'", "a = NULL"]:
            # What is computed of a column is looked up through nothing.
            scanned = where.replace("a ", "a + 0 ").replace("b ", "b || '' ")
            for relation in "t", "v":
                assert sorted(own.query(f"SELECT * FROM {relation} WHERE {where}")) == sorted(own.query(f"SELECT * FROM {relation} WHERE {scanned}")), where

    check()
    own.query("UPDATE t SET a = 3 WHERE k % 7 = 0")
    own.query("DELETE FROM t WHERE k % 5 = 0")
    check()
    with own.connect() as session, session.transaction():
        session.execute("INSERT INTO t VALUES (5000, 3, 'b1')")
        assert (5000,) in session.execute("SELECT k FROM t WHERE a = 3").fetchall()
        assert (5000,) not in own.query("SELECT k FROM t WHERE a = 3")
    # Another session sees a write when its epoch is published.
    eventually(lambda: (5000,) in own.query("SELECT k FROM t WHERE a + 0 = 3"))
    check()
    own.kill()
    own.start()
    check()
    own.query("DROP INDEX t_a_b_idx")
    assert "Lookup" not in plan(own, "SELECT * FROM t WHERE a = 3")
    assert own.query("SELECT indexname FROM pg_indexes WHERE tablename = 't'") == [("t_pkey",)]


def test_a_unique_index_is_enforced(own):
    own.query("CREATE TABLE t (k INT PRIMARY KEY, a INT, b TEXT)")
    own.query("INSERT INTO t VALUES (1, 1, 'x'), (2, 1, 'y'), (3, NULL, 'x'), (4, NULL, 'x')")
    assert duplicate(own, "CREATE UNIQUE INDEX u ON t (a)") == ('could not create unique index "u"', "Key (a)=(1) is duplicated.")
    own.query("CREATE UNIQUE INDEX u ON t (a, b)")
    taken = ('duplicate key value violates unique constraint "u"', "Key (a, b)=(1, x) already exists.")
    for _ in range(2):
        assert duplicate(own, "INSERT INTO t VALUES (9, 1, 'x')") == taken
        assert duplicate(own, "INSERT INTO t VALUES (9, 2, 'x'), (10, 1, 'x')") == taken
        assert duplicate(own, "UPDATE t SET b = 'x' WHERE k = 2") == taken
        assert duplicate(own, "UPDATE t SET b = lower('X') WHERE k < 3")[1] == taken[1]
        assert duplicate(own, "INSERT INTO t SELECT 9 + g, 1, 'x' FROM generate_series(1, 1) g") == taken
        with own.connect() as session:
            with pytest.raises(psycopg.errors.UniqueViolation), session.cursor().copy("COPY t FROM STDIN") as copy:
                copy.write("9\t1\tx\n")
        assert own.value("SELECT count(*) FROM t") == 4
        own.kill()
        own.start()
    # Values move around within a statement; what is deleted is free; NULLs differ.
    own.query("UPDATE t SET b = CASE b WHEN 'x' THEN 'y' ELSE 'x' END WHERE a = 1")
    own.query("DELETE FROM t WHERE k = 2")
    own.query("INSERT INTO t VALUES (2, 1, 'x'), (5, NULL, 'x')")
    with own.connect() as session:
        with pytest.raises(psycopg.errors.UniqueViolation), session.transaction():
            session.execute("INSERT INTO t VALUES (6, 7, 'z')")
            session.execute("INSERT INTO t VALUES (7, 7, 'z')")
    assert own.query("SELECT k FROM t WHERE a = 7") == []
    own.query("CREATE MATERIALIZED VIEW v AS SELECT a, count(*) AS c FROM t GROUP BY a")
    own.query("CREATE UNIQUE INDEX ON v (a)")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        own.query("CREATE UNIQUE INDEX ON v (c)")
    own.query("DROP INDEX u")
    own.query("INSERT INTO t VALUES (9, 1, 'x')")
