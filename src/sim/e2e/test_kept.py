"""Queries whose plans are kept, and lookups by arrays of keys: the answers are those of a statement that is planned, whatever happened in between."""

import random
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


# Constants that decide more than which rows pass a condition, and others.
SHAPES = [
    "SELECT count(*), sum(x) FROM {t} WHERE g = {c}",
    "SELECT count(*), sum(x) FROM {t} WHERE {c} < x AND NOT g = {c}",
    "SELECT g, count(*) AS n, avg(x) FROM {t} WHERE x BETWEEN {c} AND {c} OR s = {s} GROUP BY g ORDER BY g LIMIT {few}",
    "SELECT count(*), min(s), max(at) FROM {t} WHERE g > {c} AND g > {c} AND g <= {c}",
    "SELECT count(*) FROM {t} WHERE g = {c} AND {c} = g",
    "SELECT count(*) FROM {t} WHERE small = {c} OR small >= {c}",
    "SELECT count(*), sum(f) FROM {t} WHERE f > {c}",
    "SELECT count(*) FROM {t} WHERE m > {c} AND g <> {c}",
    "SELECT count(*) FROM {t} WHERE code = {s} OR name < {s}",
    "SELECT {c}, max(x) + {c}, {s} FROM {t} WHERE g = {c}",
    "SELECT g, x FROM {t} WHERE g = {c} ORDER BY {few} DESC, k LIMIT {few} OFFSET {few}",
    "SELECT x / {c} AS ratio FROM {t} WHERE g = {c} ORDER BY 1, k",
    "SELECT count(*) FROM {t} WHERE g <> 0 AND x / g > {c} AND g < {c}",
    "SELECT count(*) FROM {t} WHERE x % {c} = {c}",
    "SELECT count(*) FROM {t} WHERE s LIKE {s} AND s <> {s}",
    "SELECT count(*) FROM {t} WHERE g IN ({c}, {c}) AND s = {s}",
    "SELECT count(*) FROM {t} WHERE g = {c} AND s IN ({s}, {s}, {s}, {s})",
    "SELECT round(avg(x), {few}), upper(min(s)) FROM {t} WHERE s >= {s}",
    "SELECT date_trunc('day', at), count(*) FROM {t} WHERE at < {m} AND g < {c} GROUP BY 1 ORDER BY 1",
    "SELECT g, sum(x) FROM {t} WHERE s <> {s} GROUP BY {few} HAVING count(*) > {c} ORDER BY {few}",
    "SELECT g + {c} AS h, count(*) FROM {t} WHERE x > {c} GROUP BY g + {c} ORDER BY h",
    "SELECT DISTINCT s FROM {t} WHERE g = {c} ORDER BY s",
    "SELECT n, x FROM {v} WHERE n >= {c} AND g <> {c} ORDER BY g",
    "SELECT count(*) FROM {t} WHERE k = {c} AND x > {c}",
    "SELECT count(*) FROM {t} AS a JOIN {v} AS b ON a.g = b.g WHERE a.g = {c}",
    "SELECT count(*) FROM {t} WHERE g = {c} UNION ALL SELECT count(*) FROM {v} WHERE g = {c} ORDER BY 1",
    "SELECT count(*) FILTER (WHERE x > {c}) FROM {t} WHERE g < {c}",
    "SELECT count(*) FROM {t} WHERE CASE WHEN g = {c} THEN x > {c} ELSE true END",
    "SELECT sum(n) FROM (SELECT s, count(*) AS n FROM {t} WHERE g = {c} GROUP BY s) AS each",
]
PARTS = {
    "c": [*map(str, range(12)), *map(str, range(12)), "-1", "-3", "100", "300", "70000", "3000000000", "99999999999999999999", "'3'", "'x'", "NULL", "2.5", "true", "'2024-01-01'"],
    "s": ["'s1'", "'s2'", "'s3'", "'s%'", "''", "'it''s'", "'ab'", "'ab '", "'longer than the column'", "5", "NULL"],
    "few": ["0", "1", "1", "2", "2", "3", "-1", "'1'", "9"],
    "m": ["'2024-01-03'", "'2024-01-05 12:00'", "'infinity'", "'yesterday'", "'no'", "7"],
}


def outcome(session, query):
    try:
        cursor = session.execute(query)
        return [(c.name, c.type_code, c.internal_size) for c in cursor.description], cursor.fetchall()
    except psycopg.Error as e:
        return e.sqlstate, e.diag.message_primary


@pytest.fixture
def wide(server, table):
    """The table with columns of more types."""
    server.query(f"CREATE TABLE {table}_w (k INT PRIMARY KEY, g INT, x BIGINT, s TEXT, at TIMESTAMPTZ, small SMALLINT, f DOUBLE PRECISION, m NUMERIC(9,2), code CHAR(3), name VARCHAR(5))")
    server.query(f"INSERT INTO {table}_w SELECT k, CASE WHEN k % 13 <> 0 THEN g END, x, s, at, k % 11, k / 4.0, k / 3.0, substr(s, 1, 2), s FROM {table}")
    yield f"{table}_w"
    server.query(f"DROP TABLE {table}_w")


@pytest.mark.parametrize("seed", range(3))
def test_with_other_constants_the_answer_is_that_of_a_statement_that_is_planned(server, table, wide, seed):
    dice = random.Random(seed)
    with server.connect() as session, server.connect() as planned:
        for _ in range(60):
            # A few at a time, so that plans are not given up.
            for shape in dice.sample(SHAPES, 5):
                for _ in range(4):
                    query = re.sub(r"\{(c|s|few|m)\}", lambda part: dice.choice(PARTS[part[1]]), shape)
                    query = query.replace("{t}", wide).replace("{v}", f"{table}_v")
                    expected = outcome(planned, query.replace("SELECT", f"SELECT /* {dice.random()} */", 1))
                    assert outcome(session, query) == expected, query


def test_constants_that_are_new_each_time_need_no_plan(server, table):
    queries = [
        "SELECT count(*), sum(x) FROM {t} WHERE g = {n}",
        "SELECT g, max(x) FROM {t} WHERE x > {n} AND s <> 's{n}' GROUP BY g ORDER BY 2 DESC LIMIT 3",
        "SELECT sum(n) FROM {v} WHERE n <> {n}",
    ]
    with server.connect() as session:
        for query in queries:
            query = query.replace("{t}", table).replace("{v}", f"{table}_v")
            before = plannings(server)
            for n in range(60):
                session.execute(query.replace("{n}", str(n)), prepare=False)
            assert plannings(server) - before < 30, query
            values = query.count("{n}")
            query = query.replace("'s{n}'", "%s").replace("{n}", "%s")
            before = plannings(server)
            for n in range(60):
                session.execute(query, (n, f"s{n}")[:values], prepare=True)
            assert plannings(server) - before < 30, query
        # Rows are looked up by a key when the query is planned.
        for n in range(5):
            assert session.execute(f"SELECT count(*), max(x) FROM {table} WHERE k = {n} AND x > -{n}").fetchone() == (min(n, 1), n * 3 if n else None)


def test_other_constants_see_the_rows_of_now(server, table):
    with server.connect() as session:
        def ask(g):
            return session.execute(f"SELECT count(*), sum(x) FROM {table} WHERE g = {g}").fetchone()

        assert [ask(g) for g in range(3)] == [(50, 38250), (50, 36900), (50, 37050)]
        session.execute(f"DELETE FROM {table} WHERE g = 4")
        assert ask(4) == (0, None)
        with session.transaction():
            session.execute(f"INSERT INTO {table} (k, g, x) VALUES (9001, 4, 5)")
            assert ask(4) == (1, 5)
            session.execute(f"UPDATE {table} SET x = 6 WHERE k = 9001")
            assert ask(4) == (1, 6)
        assert ask(4) == (1, 6)
        session.execute(f"ALTER TABLE {table} RENAME TO {table}_r")
        with pytest.raises(psycopg.errors.UndefinedTable):
            ask(4)
        session.execute(f"ALTER TABLE {table}_r RENAME TO {table}")
        assert ask(4) == (1, 6)


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
