"""Prepared statements: Parse and PREPARE share one space of names, and what is known is not planned again."""

import re

import psycopg
import pytest


def plannings(server):
    return int(re.search(r"^tidemark_plannings_total (\d+)", server.metrics(), re.M)[1])


def listed(connection):
    return connection.execute("SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name").fetchall()


def test_parse_and_prepare_share_their_names(server):
    with server.connect() as connection:
        wire = connection.pgconn
        assert listed(connection) == []
        assert wire.prepare(b"parsed", b"SELECT $1::int + $2").error_message == b""
        assert wire.prepare(b"", b"SELECT 'without a name'").error_message == b""
        connection.execute("PREPARE said(int) AS SELECT $1 * 2")
        assert connection.execute("EXECUTE parsed(40, 2)").fetchone() == (42,)
        assert wire.exec_prepared(b"said", [b"21"]).get_value(0, 0) == b"42"
        assert wire.describe_prepared(b"said").param_type(0) == 23
        assert listed(connection) == [("parsed", "SELECT $1::int + $2", ["integer", "integer"], False), ("said", "PREPARE said(int) AS SELECT $1 * 2", ["integer"], True)]
        assert b'prepared statement "said" already exists' in wire.prepare(b"said", b"SELECT 1").error_message
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            connection.execute("PREPARE parsed AS SELECT 1")
        with server.connect() as other:
            assert listed(other) == []
        connection.execute("DEALLOCATE parsed")
        assert b'prepared statement "parsed" does not exist' in wire.exec_prepared(b"parsed", [b"1", b"2"]).error_message
        connection.execute("DEALLOCATE ALL")
        assert listed(connection) == []
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            connection.execute("EXECUTE said(1)")


def test_a_statement_that_executes_itself_ends(server):
    with server.connect() as connection:
        connection.pgconn.prepare(b"again", b"EXECUTE again")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("EXECUTE again")


def test_what_was_said_is_read_again_when_its_tree_was_given_up(server):
    with server.connect() as connection:
        connection.execute("PREPARE first(int) AS SELECT $1 + 1 AS \"N\", 'x;y' AS t")
        for n in range(6):
            connection.execute(f"PREPARE large{n} AS SELECT '{'x' * 30_000}'")
        cursor = connection.execute("EXECUTE first(41)")
        assert ([c.name for c in cursor.description], cursor.fetchone()) == (["N", "t"], (42, "x;y"))


def test_constants_of_execute_are_not_planned(server, unique):
    name = unique("prepared")
    server.query(f"CREATE TABLE {name} (k INT PRIMARY KEY, x INT)")
    with server.connect() as connection:
        connection.execute(f"PREPARE put(int, int) AS INSERT INTO {name} VALUES ($1, $2)")
        before = plannings(server)
        for n in range(10):
            connection.execute(f"EXECUTE put({n}, -{n})")
        planned = plannings(server) - before
        assert planned == 0, planned
        assert connection.execute(f"SELECT count(*), sum(x) FROM {name}").fetchone() == (10, -45)
        with pytest.raises(psycopg.errors.DatatypeMismatch, match=r"parameter \$1 of type boolean cannot be coerced to the expected type integer"):
            connection.execute("EXECUTE put(true, 1)")
    server.query(f"DROP TABLE {name}")


def test_a_query_that_fails_is_planned_once(server, unique):
    name = unique("failing")
    server.query(f"CREATE TABLE {name} (k INT PRIMARY KEY, s TEXT)")
    with server.connect() as connection:
        before = plannings(server)
        with pytest.raises(psycopg.errors.UndefinedColumn) as failed:
            connection.execute(f"SELECT nothing FROM {name}")
        assert failed.value.diag.statement_position == "8"
        assert plannings(server) - before == 1
    server.query(f"DROP TABLE {name}")
