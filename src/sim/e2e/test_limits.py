"""No statement takes the server down, whatever it is made of, and others are answered meanwhile; what was created can be restarted."""

import psycopg
import pytest

from harness import eventually

DEEP = 10_000
REFUSED = {"54001", "54000", "53200"}


def around(before, after="", n=DEEP, inner="1"):
    return f"SELECT {before * n}{inner}{after * n}"


def chain(n, first, rest, end=""):
    return first + "".join(rest.format(i=i, j=i - 1) for i in range(1, n + 1)) + end


# Refused beyond the limits of docs/sql-reference.md.
TOO_MUCH = {
    "parentheses": around("(", ")"),
    "case": around("CASE WHEN true THEN ", " END"),
    "not": around("NOT ", inner="true"),
    "minus": around("- "),
    "casts behind": around("", "::int"),
    "calls": around("abs(", ")"),
    "doubling": chain(40, "WITH c0 AS (SELECT 1 AS a)", ", c{i} AS (SELECT * FROM c{j} UNION ALL SELECT * FROM c{j})", " SELECT * FROM c40"),
    "doubling beside a system table": chain(40, "WITH pg_c0 AS (SELECT 1 AS a)", ", pg_c{i} AS (SELECT * FROM pg_c{j} UNION ALL SELECT * FROM pg_c{j})", " SELECT * FROM pg_c40"),
    "read twice": around("floor(", ")", n=40, inner="1 2"),
    "join or query": around("* FROM ((SELECT ", ") a CROSS JOIN b)", n=40, inner="* FROM t"),
    "cases in calls": around("abs(CASE WHEN true THEN ", " END)", n=30),
    "between": around("(", " BETWEEN false AND true)", n=30, inner="true"),
    "factorials": around("", " !", n=400_000),
    "two sums": f"SELECT 1{' + 1' * 1_000_000}, 1{' + 1' * 1_000_000}",
    "sums before an error": f"SELECT 1{' + 1' * 1_000_000} FROM FROM",
    "time zones": around("", " AT TIME ZONE 'UTC'", inner="now()"),
    "dimensions": around("", "[]", n=7, inner="null::int"),
    "wide joins": "SELECT count(*) FROM " + ", ".join(f"pg_proc p{n}" for n in range(2_901)),
    "repeat": "SELECT length(repeat('x', 2147483647))",
    "lpad": "SELECT length(lpad('x', 2147483647, 'y'))",
    "rpad": "SELECT length(rpad('x', 2147483647, 'y'))",
}

# Answered.
MUCH = {
    "ors": (f"SELECT 1 WHERE 1 = 2{' OR 1 = 1' * 2_000}", [(1,)]),
    "ands": (f"SELECT 1 WHERE 1 = 1{' AND 1 = 1' * 2_000}", [(1,)]),
    "sums": (around("", " + 1", n=100), [(101,)]),
    "calls": (around("abs(", ")", n=100), [(1,)]),
    "cases in calls": (around("abs(CASE WHEN true THEN ", " END)", n=12), [(1,)]),
    "coalesce in calls": (around("abs(coalesce(", ", 2))", n=60), [(1,)]),
    "coalesce": (around("coalesce(", ", 2)", n=100), [(1,)]),
    "concat": (around("concat(", ")", n=40, inner="true"), [("t",)]),
    "doubled columns": (f"SELECT a > 0 FROM ({'SELECT a + a AS a FROM (' * 40}SELECT 0::bigint AS a{') AS t' * 40}) AS t WHERE a = 0", [(False,)]),
    "subqueries": (f"{'SELECT * FROM (' * 30}SELECT 1 AS a{') AS t' * 30}", [(1,)]),
}


def extended(server, text):
    """Parse and Bind rather than Query."""
    with server.connect() as connection:
        return connection.execute(text, prepare=True).fetchall()


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_is_refused(server, what):
    error = server.error(TOO_MUCH[what])
    assert error.sqlstate in REFUSED, error
    with pytest.raises(psycopg.Error) as raised:
        extended(server, TOO_MUCH[what])
    assert raised.value.sqlstate in REFUSED, raised.value
    assert server.query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("what", MUCH)
def test_much_is_answered(server, what):
    text, answer = MUCH[what]
    assert server.query(text) == answer
    assert extended(server, text) == answer


def test_views_that_double_are_refused_beside_a_system_table(own_server):
    own_server.start()
    own_server.run("CREATE VIEW v0 AS SELECT 1 AS a;")
    for i in range(1, 31):
        own_server.run(f"CREATE VIEW v{i} AS SELECT * FROM v{i - 1};")
    own_server.run("CREATE VIEW w0 AS SELECT 1 AS a;")
    for i in range(1, 12):
        own_server.run(f"CREATE VIEW w{i} AS SELECT * FROM w{i - 1} UNION ALL SELECT * FROM w{i - 1};")
    system = "FROM pg_class WHERE relname = 'v0'"
    assert own_server.query(f"SELECT (SELECT a FROM v30) {system}") == [(1,)]
    assert own_server.error(f"SELECT {' + '.join(['(SELECT count(*) FROM w11)'] * 5)} {system}").sqlstate in REFUSED


def test_what_returning_says_is_bounded(own_server):
    own_server.start()
    own_server.run("CREATE TABLE t (a INT PRIMARY KEY);")
    doubling = TOO_MUCH["doubling"]
    assert own_server.error(f"INSERT INTO t VALUES (1) RETURNING ({doubling} LIMIT 1)").sqlstate in REFUSED
    conflict = f"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = ({doubling} LIMIT 1)"
    assert own_server.error(conflict).sqlstate in REFUSED
    assert own_server.error(f"CREATE TABLE u (a INT DEFAULT 1{' + 1' * 100_000})").sqlstate in REFUSED
    assert own_server.query("SELECT count(*) FROM t") == [(0,)]


def test_filters_stay_above_what_they_would_double(own_server):
    own_server.start()
    own_server.run("CREATE TABLE t (a BIGINT PRIMARY KEY, b BIGINT);\nINSERT INTO t VALUES (0, NULL), (1, 1);")
    doubled = f"{'SELECT a + a AS a FROM (' * 40}SELECT a FROM t{') AS t' * 40}"
    constants = f"{'SELECT a + a AS a FROM (' * 40}SELECT 0::bigint AS a{') AS t' * 40}"
    first = f"SELECT {'coalesce(' * 100}b{', a)' * 100} AS a FROM t"
    for name, query in {
        "doubled": f"SELECT a FROM ({doubled}) AS t WHERE a > 0",
        "constants": constants,
        "first": first,
        "between": "SELECT a FROM t WHERE a BETWEEN 1 AND 2 AND (a BETWEEN 0 AND 3) BETWEEN true AND true",
    }.items():
        expected = own_server.query(query)
        own_server.run(f"CREATE MATERIALIZED VIEW {name} AS {query};")
        assert sorted(own_server.query(f"SELECT * FROM {name}")) == sorted(expected)


def test_parameters_are_bounded(server):
    for number in (0, 65536, 2147483647, 99999999999999999999):
        assert server.error(f"SELECT ${number}").sqlstate == "42P02"


def test_a_value_of_execute_has_no_parameters(server):
    with server.connect() as connection:
        connection.execute("PREPARE p(int) AS SELECT $1 + 1")
        for value in ("($1)", "$1 + 1", "$1", "abs($1)"):
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(f"EXECUTE p({value})")
            assert raised.value.sqlstate == "42P02", value
        assert connection.execute("EXECUTE p(1 + 1)").fetchall() == [(3,)]


def test_what_was_created_is_restarted(own_server):
    own_server.start()
    own_server.run("CREATE TABLE t (a INT PRIMARY KEY, s VARCHAR);\nINSERT INTO t VALUES (1, 'x'), (2, 'y');")
    wheres = " OR ".join(f"a = {n}" for n in range(1, 200))
    joins = " ".join(f"JOIN t AS t{n} ON t0.a = t{n}.a" for n in range(1, 20))
    views = {
        "ors": f"SELECT a FROM t WHERE {wheres}",
        "sums": f"SELECT a{' + a' * 99} AS b FROM t",
        "texts": f"SELECT s{' || s' * 99} AS b FROM t",
        "joins": f"SELECT t0.a FROM t AS t0 {joins}",
        "unions": f"SELECT a FROM t{' UNION ALL SELECT a FROM t' * 99}",
        "floats": "SELECT a * 0.1::double precision + 'NaN'::double precision AS b FROM t",
    }
    for name, query in views.items():
        own_server.run(f"CREATE MATERIALIZED VIEW {name} AS {query};")
    own_server.run("FLUSH;")
    before = {name: sorted(own_server.query(f"SELECT * FROM {name}"), key=str) for name in views}
    assert all(before.values())
    # From the log, then from a manifest.
    for _ in range(2):
        own_server.kill()
        own_server.start()
        after = {name: sorted(own_server.query(f"SELECT * FROM {name}"), key=str) for name in views}
        assert str(after) == str(before)
        own_server.run("INSERT INTO t VALUES (3, 'z');\nFLUSH;\nDELETE FROM t WHERE a = 3;\nFLUSH;")
    eventually(lambda: own_server.query("SELECT count(*) FROM ors") == [(2,)])
