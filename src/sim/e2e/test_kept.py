"""Queries whose plans are kept, and lookups by arrays of keys: the answers are those of a statement that is planned, whatever happened in between."""

import re
import time

import psycopg
import pytest

from harness import eventually


@pytest.fixture
def table(server, unique):
    name = unique("t")
    server.query(f"CREATE TABLE {name} (k INT PRIMARY KEY, g INT, x BIGINT, s TEXT, at TIMESTAMPTZ)")
    server.query(f"INSERT INTO {name} SELECT n, n % 10, n * 3, 's' || n % 7, '2024-01-01T23:30:00Z'::timestamptz + n * INTERVAL '1 hour' FROM generate_series(1, 500) AS s(n)")
    server.query(f"CREATE MATERIALIZED VIEW {name}_v AS SELECT g, count(*) AS n, sum(x) AS x FROM {name} GROUP BY g")
    yield name
    server.query(f"DROP MATERIALIZED VIEW {name}_v")
    server.query(f"DROP TABLE {name}")


def plannings(server):
    return int(re.search(r"^tidemark_plannings_total (\d+)", server.metrics(), re.M)[1])


# Answers in an order of their own, or of one row; `{t}`: the table, `{v}`: a view over it.
QUERIES = [
    "SELECT count(*), sum(x), min(k), max(k) FROM {t}",
    "SELECT count(*), sum(x) FROM {t} WHERE x < 300",
    "SELECT g, count(*), sum(x), avg(x) FROM {t} GROUP BY g ORDER BY g",
    "SELECT g, max(x) FROM {t} WHERE s <> 's3' GROUP BY g HAVING count(*) > 3 ORDER BY 2 DESC",
    "SELECT k, x FROM {t} ORDER BY x DESC LIMIT 5",
    "SELECT k, x FROM {t} ORDER BY x LIMIT 3 OFFSET 2",
    "SELECT DISTINCT s FROM {t} ORDER BY s",
    "WITH few AS (SELECT * FROM {t} WHERE g < 4) SELECT count(*), sum(few.x) FROM few",
    "SELECT sum(n) FROM (SELECT s, count(*) AS n FROM {t} GROUP BY s) AS each",
    "SELECT sum(n), sum(x) FROM {v}",
    "SELECT g, n, x FROM {v} WHERE n > 10 ORDER BY g",
    "SELECT coalesce(max(x), -1), upper(min(s)), round(avg(x), 2) FROM {t} WHERE g = 3",
    "SELECT date_trunc('day', at), count(*) FROM {t} GROUP BY 1 ORDER BY 1",
]


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "prepared"])
def test_a_kept_plan_answers_with_the_rows_of_now(server, table, prepare):
    queries = [query.format(t=table, v=f"{table}_v") for query in QUERIES]
    changes = [
        f"INSERT INTO {table} SELECT n, n % 12, -n, 'other', '2025-01-01Z'::timestamptz FROM generate_series(1000, 1100) AS s(n)",
        f"UPDATE {table} SET x = x + 1000000 WHERE k % 50 = 0",
        f"DELETE FROM {table} WHERE k < 400",
        f"DELETE FROM {table}",
    ]
    with server.connect() as session:
        for change in [None, None, *changes]:
            if change:
                session.execute(change)
                session.execute("FLUSH")
            before = plannings(server)
            answers = [session.execute(query, prepare=prepare).fetchall() for query in queries]
            again = [session.execute(query, prepare=prepare).fetchall() for query in queries]
            assert again == answers
            if change:
                # None of them was planned, whoever else was.
                assert plannings(server) - before < len(queries)
            # Another text is planned.
            for query, answer in zip(queries, answers):
                assert server.query(query.replace("SELECT", f"SELECT /* {time.time()} */", 1)) == answer, query


def test_parameters_are_part_of_what_is_kept(server, table):
    with server.connect() as session:
        query = f"SELECT count(*), sum(x) FROM {table} WHERE g < %s AND s <> %s"
        for _ in range(3):
            for g in range(12):
                for s in ("s1", "none"):
                    expected = server.query(f"SELECT count(*), sum(x) FROM {table} WHERE g + 0 < {g} AND s || '' <> '{s}'")
                    assert session.execute(query, (g, s), prepare=True).fetchall() == expected
        # The type of a parameter is part of it, too.
        for _ in range(3):
            for value in (2, 2.5, 10**12):
                expected = server.query(f"SELECT count(*) FROM {table} WHERE x + 0 < {value}")
                assert session.execute(f"SELECT count(*) FROM {table} WHERE x < %s", (value,), prepare=True).fetchall() == expected


def test_what_a_kept_plan_depends_on_may_change(server, table, unique):
    other = unique("schema")
    count = f"SELECT count(*), max(x) FROM {table}"
    with server.connect() as session:

        def ask(query=count):
            # Kept by the first, if at all.
            return [session.execute(query).fetchall() for _ in range(3)][-1]

        assert ask() == [(500, 1500)]
        # Another relation of the name, by the search path.
        session.execute(f"CREATE SCHEMA {other}")
        session.execute(f"CREATE TABLE {other}.{table} (k INT PRIMARY KEY, x BIGINT)")
        session.execute(f"SET search_path = {other}, public")
        assert ask() == [(0, None)]
        session.execute("RESET search_path")
        assert ask() == [(500, 1500)]
        session.execute(f"DROP SCHEMA {other} CASCADE")
        # Another time zone.
        days = f"SELECT count(DISTINCT date_trunc('day', at)) FROM {table} WHERE k <= 24"
        assert ask(days) == [(1,)]
        session.execute("SET timezone = 'Asia/Tokyo'")
        assert ask(days) == [(2,)]
        session.execute("RESET timezone")
        # Another table of the name.
        again = unique("again")
        session.execute(f"CREATE TABLE {again} (k INT PRIMARY KEY)")
        session.execute(f"INSERT INTO {again} VALUES (1), (2)")
        assert ask(f"SELECT count(*) FROM {again}") == [(2,)]
        session.execute(f"DROP TABLE {again}")
        with pytest.raises(psycopg.errors.UndefinedTable):
            session.execute(f"SELECT count(*) FROM {again}")
        session.execute(f"CREATE TABLE {again} (k TEXT PRIMARY KEY)")
        assert ask(f"SELECT count(*) FROM {again}") == [(0,)]
        session.execute(f"DROP TABLE {again}")
        # The clock.
        moments = [session.execute(f"SELECT now(), count(*) FROM {table}").fetchone()[0] for _ in range(3)]
        assert len(set(moments)) == 3


def test_a_block_reads_its_own_writes_and_its_epoch(server, table):
    count = f"SELECT count(*), sum(x) FROM {table}"
    with server.connect() as session:
        for _ in range(3):
            before = session.execute(count).fetchone()
        with session.transaction():
            assert session.execute(count).fetchone() == before
            server.query(f"INSERT INTO {table} (k, x) VALUES (9001, 1)")
            assert session.execute(count).fetchone() == before
        eventually(lambda: session.execute(count).fetchone() == (before[0] + 1, before[1] + 1))
        before = session.execute(count).fetchone()
        with session.transaction():
            assert session.execute(count).fetchone() == before
            session.execute(f"INSERT INTO {table} (k, x) VALUES (9002, 1)")
            assert session.execute(count).fetchone() == (before[0] + 1, before[1] + 1)
        assert session.execute(count).fetchone() == (before[0] + 1, before[1] + 1)


def test_a_right_that_is_gone_is_asked_for(server, table, unique):
    role, count = unique("role"), f"SELECT count(*) FROM {table}"
    server.query(f"CREATE ROLE {role} LOGIN")
    server.query(f"GRANT SELECT ON {table} TO {role}")
    with psycopg.connect(host="127.0.0.1", port=server.port, dbname="dev", user=role, autocommit=True) as session:
        for _ in range(3):
            assert session.execute(count).fetchone() == (500,)
        server.query(f"REVOKE SELECT ON {table} FROM {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(count)
    server.query(f"DROP ROLE {role}")


ARRAYS = ["{}", "{1}", "{3,1,3,NULL}", "{NULL}", "{70000,5}", " { 7 , 8 } ", "{-1,0}"]


@pytest.mark.parametrize("column", ["k", "g", "s"])
def test_any_of_an_array_is_a_lookup(server, table, column):
    server.query(f"CREATE INDEX {table}_g ON {table} (g)")
    server.query(f"CREATE INDEX {table}_s ON {table} (s)")
    planned = {"k": "k + 0", "g": "g + 0", "s": "s || ''"}[column]
    types = ["text[]", "varchar[]"] if column == "s" else ["int[]", "bigint[]", "smallint[]"]
    for array in ARRAYS + (["{s1,\"s2\"}"] if column == "s" else []):
        for cast in ["", *(f"::{t}" for t in types)]:
            for relation in (table, f"{table}_v") if column == "g" else (table,):
                ask = f"SELECT * FROM {relation} WHERE COLUMN = ANY ('{array}'{cast}) ORDER BY 1"
                # Without ORDER BY it is of the form that needs no plan.
                short = f"SELECT * FROM {relation} WHERE {column} = ANY ('{array}'{cast})"
                try:
                    expected = server.query(ask.replace("COLUMN", planned))
                except psycopg.Error as e:
                    for query in (ask.replace("COLUMN", column), short):
                        assert server.error(query).sqlstate == e.sqlstate, query
                    continue
                assert server.query(ask.replace("COLUMN", column)) == expected, (array, cast)
                assert sorted(server.query(short)) == sorted(expected), (array, cast)
                # An array without a type of its own that has quotes is planned as one.
                if array != "{}" and cast != "::smallint[]" and (cast or '"' not in array):
                    text = "\n".join(row[0] for row in server.query(f"EXPLAIN {short}"))
                    assert f"Lookup: {relation} by ({column})" in text or "Empty" in text, text


def test_drivers_send_arrays(server, table):
    with server.connect() as session:
        for binary in (False, True):
            cursor = session.cursor(binary=binary)
            for keys in ([1, 2, 3], [], [400, None, 1], [10**12, 5], list(range(300))):
                wanted = sorted((k, k * 3) for k in set(keys) - {None} if 1 <= k <= 500)
                for _ in range(3):
                    found = cursor.execute(f"SELECT k, x FROM {table} WHERE k = ANY(%s)", (keys,), prepare=True).fetchall()
                    assert sorted(found) == wanted, keys
            texts = cursor.execute(f"SELECT count(*) FROM {table} WHERE s = ANY(%s)", (["s1", "s2", "it's"],), prepare=True)
            assert texts.fetchone() == server.query(f"SELECT count(*) FROM {table} WHERE s || '' IN ('s1', 's2')")[0]
        before = plannings(server)
        for n in range(50):
            session.execute(f"SELECT k FROM {table} WHERE k = ANY(%s)", ([n, n + 1],), prepare=True)
            session.execute(f"SELECT k FROM {table} WHERE k = ANY (ARRAY[%s, %s]::int[])", (n, n + 1), prepare=True)
            session.execute(f"SELECT k FROM {table} WHERE k = ANY (ARRAY[{n}, {n + 1}]::int[])", prepare=False)
        assert plannings(server) - before < 40
        # Writes by these keys.
        changed = session.execute(f"UPDATE {table} SET x = 0 WHERE k = ANY(%s)", ([1, 2, 2, 900],))
        assert changed.rowcount == 2
        assert session.execute(f"SELECT k FROM {table} WHERE x = 0 ORDER BY k").fetchall() == [(1,), (2,)]
        assert session.execute(f"DELETE FROM {table} WHERE k = ANY(%s)", ([1, 900],)).rowcount == 1


def test_any_of_a_prefix(server, unique):
    table = unique("pairs")
    server.query(f"CREATE TABLE {table} (a INT, b TEXT, x INT, PRIMARY KEY (a, b))")
    server.query(f"INSERT INTO {table} SELECT n % 50, 'b' || n, n FROM generate_series(1, 1000) AS s(n)")
    with server.connect() as session:
        for _ in range(2):
            found = session.execute(f"SELECT x FROM {table} WHERE a = ANY(%s)", ([3, 4],), prepare=True).fetchall()
            assert sorted(found) == sorted((n,) for n in range(1, 1001) if n % 50 in (3, 4))
            found = session.execute(f"SELECT x FROM {table} WHERE a = %s AND b = ANY(%s)", (3, ["b3", "b53", "b4"]), prepare=True).fetchall()
            assert sorted(found) == [(3,), (53,)]
    text = "\n".join(row[0] for row in server.query(f"EXPLAIN SELECT x FROM {table} WHERE a = ANY('{{3,4}}'::int[])"))
    assert f"Lookup: {table} by (a) through its key" in text
