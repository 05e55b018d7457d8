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
    assert (5000,) in own.query("SELECT k FROM t WHERE a + 0 = 3")
    # The view follows; only the session that wrote waits for it.
    eventually(lambda: own.value("SELECT sum(c) FROM v") == own.value("SELECT count(*) FROM t"))
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


def test_values_that_are_equal_are_one_to_a_unique_index(own):
    """Numbers of another scale, zeros of either sign, NaN, spans of another spelling and blanks at a char's end; published, not published, in one statement and after a restart."""
    columns = {"n": ("NUMERIC", "1.0", "1.000"), "m": ("NUMERIC", "NaN", "nan"), "d": ("DOUBLE PRECISION", "0", "-0"), "e": ("REAL", "NaN", "nan"), "i": ("INTERVAL", "1 day", "24:00:00"), "c": ("CHAR(5)", "a", "a  "), "j": ("JSONB", '{"a": [1, 2.0]}', '{"a": [1.0, 2]}')}
    own.query("CREATE TABLE t (k INT PRIMARY KEY, " + ", ".join(f"{name} {kind}" for name, (kind, _, _) in columns.items()) + ")")
    for name in columns:
        own.query(f"CREATE UNIQUE INDEX t_{name} ON t ({name})")

    def check():
        for name, (_, _, other) in columns.items():
            assert duplicate(own, f"INSERT INTO t (k, {name}) VALUES (9, '{other}')")[0].endswith(f'"t_{name}"'), name
            own.query(f"INSERT INTO t (k, {name}) VALUES (9, '{other}') ON CONFLICT ({name}) DO NOTHING")
            own.query(f"INSERT INTO t (k, {name}) VALUES (9, '{other}') ON CONFLICT DO NOTHING")
        assert own.query("SELECT k FROM t") == [(1,)]

    for name, (_, one, other) in columns.items():
        assert duplicate(own, f"INSERT INTO t (k, {name}) VALUES (1, '{one}'), (2, '{other}')")[0].endswith(f'"t_{name}"'), name
    own.query("INSERT INTO t VALUES (1, " + ", ".join(f"'{one}'" for _, one, _ in columns.values()) + ")")
    check()
    # The row's own new value is no other's.
    own.query("UPDATE t SET " + ", ".join(f"{name} = '{other}'" for name, (_, _, other) in columns.items()) + " WHERE k = 1")
    check()
    assert own.value("SELECT n::text FROM t WHERE k = 1") == "1.000"
    assert duplicate(own, "INSERT INTO t (k, d) VALUES (9, '-0')")[1] == "Key (d)=(-0) already exists."
    own.kill()
    own.start()
    check()
    own.query("DROP INDEX t_n")
    own.query("INSERT INTO t (k, n) VALUES (2, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        own.query("CREATE UNIQUE INDEX t_n ON t (n)")


def test_updates_and_deletes_look_their_rows_up(own):
    own.query("CREATE TABLE t (a INT, b INT, c INT, v INT, PRIMARY KEY (a, b))")
    own.query("INSERT INTO t SELECT g / 10, g % 10, g % 100, 0 FROM generate_series(0, 999) g")
    own.query("CREATE INDEX by_c ON t (c)")
    assert plan(own, "UPDATE t SET v = v + 1 WHERE c = 7 AND v >= 0").startswith("Update on t\n")
    assert "Lookup: t by (c) through its index by_c" in plan(own, "UPDATE t SET v = v + 1 WHERE c = 7 AND v >= 0")
    assert "Lookup: t by (a) through its key" in plan(own, "DELETE FROM t WHERE a = 7 AND v >= 0")
    assert "Lookup: t by (a, b) through its key" in plan(own, "DELETE FROM t WHERE a = 7 AND b IN (1, 2)")
    assert "Lookup" not in plan(own, "DELETE FROM t WHERE v = 7")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        plan(own, "ANALYZE DELETE FROM t WHERE v = 7")
    with own.connect() as session, session.transaction():
        # Also of what the block itself has written.
        session.execute("UPDATE t SET c = 500 WHERE c = 7 AND a < 50")
        assert session.execute("UPDATE t SET v = 1 WHERE c = 500").rowcount == 5
        assert session.execute("DELETE FROM t WHERE c = 7").rowcount == 5
        assert session.execute("DELETE FROM t WHERE a = 0 AND v = 1").rowcount == 1
        lookup = session.execute("EXPLAIN DELETE FROM t WHERE c = 500").fetchall()
        assert any("Lookup: t by (c) through its index by_c" in line for (line,) in lookup)
        assert session.execute("SELECT count(*), sum(v) FROM t").fetchone() == (994, 4)


def test_who_names_columns_in_a_conflict_may_read_them(own):
    own.query("CREATE TABLE t (k INT PRIMARY KEY, v INT)")
    own.query("CREATE USER writer WITH PASSWORD 'w'")
    own.query("GRANT INSERT, UPDATE ON t TO writer")
    with psycopg.connect(host="127.0.0.1", port=own.port, dbname="dev", user="writer", password="w", autocommit=True) as session:
        session.execute("INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING")
        for statement in ["INSERT INTO t VALUES (1, 2) ON CONFLICT (k) DO NOTHING", "INSERT INTO t VALUES (1, 2) ON CONFLICT (k) DO UPDATE SET v = 3"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
        own.query("GRANT SELECT ON t TO writer")
        session.execute("INSERT INTO t VALUES (1, 2) ON CONFLICT (k) DO UPDATE SET v = 3")
    eventually(lambda: own.query("SELECT v FROM t") == [(3,)])
