"""Drivers as people use them: psql, psycopg 3 (text and binary, prepared statements), psycopg2 and asyncpg."""

import asyncio
import struct
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import asyncpg
import psycopg
import psycopg2
import pytest
from psycopg import pq

ROW = "SELECT true AS b, 1::smallint AS s, 2::int AS i, 3::bigint AS l, 1.5::double precision AS d, 12.340::numeric(10,3) AS n, 'grüße'::varchar AS t, DATE '2026-01-02' AS day, " \
      "TIMESTAMP '2026-01-02 03:04:05.678901' AS ts, TIMESTAMPTZ '2026-01-02 03:04:05+00' AS tz, NULL::int AS nothing"
VALUES = (True, 1, 2, 3, 1.5, Decimal("12.340"), "grüße", date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678901), datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), None)


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg_types(server, binary):
    with server.connect() as connection, connection.cursor(binary=binary) as cursor:
        cursor.execute(ROW)
        assert cursor.fetchone() == VALUES
        assert [column.name for column in cursor.description] == ["b", "s", "i", "l", "d", "n", "t", "day", "ts", "tz", "nothing"]


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg_parameters(server, unique, binary):
    table = unique("typed")
    server.query(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, f DOUBLE PRECISION, n NUMERIC(12, 2), t VARCHAR, at TIMESTAMPTZ, ok BOOLEAN)")
    at = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc)
    rows = [(number, number / 3, Decimal(number) / 4, f"it's {number}", at, number % 2 == 0) for number in range(12)]
    with server.connect() as connection, connection.cursor(binary=binary) as cursor:
        # more than five executions: psycopg switches to a prepared statement by itself
        for row in rows:
            cursor.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s)", row)
        cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s)", [(100 + row[0], *row[1:]) for row in rows])
        cursor.execute(f"SELECT id, f, n, t, at, ok FROM {table} WHERE id < %s ORDER BY id", (100,))
        assert cursor.fetchall() == rows
        cursor.execute(f"SELECT count(*) FROM {table} WHERE t = %s AND at = %s", ("it's 7", at))
        assert cursor.fetchone() == (2,)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            cursor.execute(f"SELECT nope FROM {table}")


def test_psycopg2(server, unique):
    table = unique("old")
    connection = psycopg2.connect(host="127.0.0.1", port=server.port, dbname="dev", user="root")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(ROW)
            assert cursor.fetchone() == VALUES
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, t VARCHAR)")
        connection.autocommit = False
        with connection, connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES (%s, %s), (%s, %s)", (1, "a", 2, "b"))
            assert cursor.rowcount == 2
        with pytest.raises(psycopg2.Error):
            with connection, connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {table}")
                cursor.execute("SELECT * FROM nowhere")
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT id, t FROM {table} ORDER BY id")
            assert cursor.fetchall() == [(1, "a"), (2, "b")]
    finally:
        connection.close()


def test_psql_backslash(server, unique):
    table = unique("house")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, t VARCHAR);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT count(*) AS c FROM {table};")
    assert "dev" in server.psql("-c", "\\l")
    assert table in server.psql("-c", "\\dt")
    assert f"{table}_v" in server.psql("-c", "\\dm")
    assert table in server.psql("-c", "\\d")
    described = server.psql("-c", f"\\d {table}")
    assert "id|integer" in described and "t|character varying" in described
    assert "c|bigint" in server.psql("-c", f"\\d {table}_v")
    server.query(f"CREATE SOURCE {table}_s (n BIGINT) WITH (connector = 'datagen')")
    assert "n|bigint" in server.psql("-c", f"\\d {table}_s")
    assert f"{table}_s" in server.psql("-c", "\\det") and "datagen" in server.psql("-c", "\\des")


def test_several_statements_and_errors_in_psql(server, unique):
    table = unique("small")
    server.query(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
    assert server.psql("-c", "SELECT 1; SELECT 'two'") == "1\ntwo\n"
    said = server.psql("-v", "VERBOSITY=verbose", "-c", f"SELECT nope FROM {table}", check=False)
    assert "42703" in said
    said = server.psql("-c", "SELEC 1", check=False)
    assert "syntax error" in said.lower() and "LINE 1" in said, said


def test_time_zones(server):
    """AT TIME ZONE turns one kind of timestamp into the other, as in PostgreSQL."""
    assert server.psql("-c", "SELECT TIMESTAMPTZ '2026-01-01 12:00:00+02' AT TIME ZONE 'UTC', TIMESTAMP '2026-01-01 12:00:00' AT TIME ZONE 'UTC'") == "2026-01-01 10:00:00|2026-01-01 12:00:00+00\n"


def test_cancel_while_rows_stream(server):
    """A cancel request is heard also between two batches of a result that is always ready."""
    import threading
    with server.connect() as connection:
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            for _ in connection.cursor().stream("SELECT * FROM generate_series(1, 1000000000)"):
                pass
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        # a request that comes when nothing runs hits nothing
        connection.cancel_safe()
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_a_heavy_query_holds_up_nobody(server, unique):
    """While a query computes on every thread that it can get, others are answered, DDL is done, and its cancel request is heard."""
    import threading
    table = unique("meanwhile")
    failed = []

    def compute(connection):
        try:
            connection.execute("SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) WHERE x + y < 1")
        except psycopg.Error as error:
            failed.append(error.sqlstate)

    with server.connect() as heavy, server.connect() as light:
        thread = threading.Thread(target=compute, args=(heavy,), daemon=True)
        thread.start()
        for number in range(20):
            light.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
            light.execute(f"INSERT INTO {table} VALUES ({number})")
            assert light.execute(f"SELECT * FROM {table}").fetchall() == [(number,)]
            assert light.execute("SHOW JOBS").fetchall()
            light.execute(f"DROP TABLE {table}")
        assert thread.is_alive()
        heavy.cancel_safe()
        thread.join(20)
        assert failed == ["57014"]


def test_bytes_that_are_not_text(server, unique):
    table = unique("bytes")
    server.query(f"CREATE TABLE {table} (id INT PRIMARY KEY, t VARCHAR)")
    with server.connect() as connection:
        for result in (connection.pgconn.exec_(f"INSERT INTO {table} VALUES (1, '".encode() + b"\xc3\x28')"), connection.pgconn.prepare(b"", b"SELECT '\xff'")):
            assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"22021"
        connection.execute(f"INSERT INTO {table} VALUES (2, 'grüße \ufffd')")
        assert connection.execute(f"SELECT * FROM {table}").fetchall() == [(2, "grüße \ufffd")]


@pytest.mark.parametrize("binary", [False, True])
def test_arrays_and_uuids(server, unique, binary):
    from uuid import UUID
    table, key = unique("arrays"), UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    server.query(f"CREATE TABLE {table} (id UUID PRIMARY KEY, i INT[], t TEXT[], b BYTEA)")
    row = (key, [1, None, -3], ["a", "b,c", '"q"', None, "NULL", ""], b"\x00\xff\\x")
    with server.connect() as connection, connection.cursor(binary=binary) as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (%b, %b, %b, %b)" if binary else f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", row)
        cursor.execute(f"SELECT * FROM {table} WHERE id = %s", (key,))
        assert cursor.fetchone() == row
        cursor.execute(f"SELECT count(*) FROM {table} WHERE 'b,c' = ANY(%s) AND 1 = ANY(%s)", (row[2], row[1]))
        assert cursor.fetchone() == (1,)
        cursor.execute(f"SELECT count(*) FROM {table} WHERE id = ANY(%s) AND id <> ALL(%s)", ([key], []))
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT %s::int[], %s::uuid", ([], key))
        assert cursor.fetchone()[0] == []


def test_cancel(server):
    with server.connect() as connection:
        import threading
        timer = threading.Timer(0.5, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) WHERE x + y < 7")
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_text_of_writes_is_one_transaction(server, unique):
    table = unique("texts")
    server.query(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT)")
    assert "division by zero" in server.psql("-c", f"INSERT INTO {table} VALUES (1, 1); INSERT INTO {table} VALUES (2, 1 / 0)", check=False)
    assert server.query(f"SELECT * FROM {table}") == []
    server.psql("-c", f"INSERT INTO {table} VALUES (1, 1); UPDATE {table} SET x = x + 1; DELETE FROM {table} WHERE id = 2")
    assert server.query(f"SELECT * FROM {table}") == [(1, 2)]


def test_positions_in_a_longer_text(server):
    """A position counts in the text that was sent, whatever statement of it is wrong."""
    with server.connect() as connection, pytest.raises(psycopg.errors.UndefinedTable) as refused:
        connection.execute("SELECT 1;\n  SELECT * FROM nosuch")
    assert refused.value.diag.statement_position == "27"


INT2, INT4, INT8, JSONB, UUID, BPCHAR, TEXT_ARRAY, UNKNOWN = 21, 23, 20, 3802, 2950, 1042, 1009, 0
FORMS = {INT2: "!h", INT4: "!i", INT8: "!q"}


@pytest.mark.parametrize("expression, parameters, announced, result", [
    ("$1", [(INT2, 5)], INT2, 5),
    ("$1", [(INT8, 5)], INT8, 5),
    ("$1", [(INT8, -(1 << 63))], INT8, -(1 << 63)),
    ("$1 + i * 2", [(INT2, 5)], INT4, 7),
    ("$1 + i * 2", [(INT8, 5)], INT8, 7),
    ("s + $1", [(INT2, 5)], INT2, 6),
    ("coalesce(s, $1)", [(INT8, 5)], INT8, 1),
    ("greatest($1, $2)", [(INT2, 1), (INT8, 2)], INT8, 2),
    ("$1 / $2", [(INT2, 7), (INT2, 2)], INT2, 3),
    ("(ARRAY[10, 20])[$1]", [(INT2, 2)], INT4, 20),
    ("($1 ->> 'a')::int", [(JSONB, '{"a": 7}')], INT4, 7),
    ("$1", [(JSONB, '{"a":7}')], JSONB, b'\x01{"a": 7}'),
    ("$1", [(UUID, "00000000-0000-0000-0000-000000000001")], UUID, bytes(15) + b"\x01"),
    ("length($1)", [(BPCHAR, "ab  ")], INT4, 2),
    ("$1", [(TEXT_ARRAY, "{}")], TEXT_ARRAY, bytes(8) + b"\0\0\0\x19"),
    ("(SELECT i FROM typed_parameters LIMIT $1)", [(UNKNOWN, 1)], INT4, 1),
    ("(SELECT i FROM typed_parameters ORDER BY $1)", [(INT4, 1)], INT4, 1),
])
def test_parameters_are_what_their_types_say(server, expression, parameters, announced, result):
    """A result has the type that was announced before the parameters' values were known, byte by byte."""
    with server.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS typed_parameters (i INT PRIMARY KEY, s SMALLINT)")
        connection.execute("INSERT INTO typed_parameters VALUES (1, 1) ON CONFLICT DO NOTHING")
        wire = connection.pgconn
        assert wire.prepare(b"", f"SELECT {expression} FROM typed_parameters".encode(), [oid for oid, _ in parameters]).status == pq.ExecStatus.COMMAND_OK
        described = wire.describe_prepared(b"")
        assert described.status == pq.ExecStatus.COMMAND_OK and described.ftype(0) == announced
        values = [struct.pack(FORMS[oid], value) if oid in FORMS else str(value).encode() for oid, value in parameters]
        answer = wire.exec_prepared(b"", values, [int(oid in FORMS) for oid, _ in parameters], 1)
        assert answer.status == pq.ExecStatus.TUPLES_OK, answer.error_message
        expected = struct.pack(FORMS[announced], result) if announced in FORMS else result
        assert answer.get_value(0, 0) == expected


# What asyncpg asks the catalog for before it reads or sends one, for each.
ARRAYS = {
    "smallint": [1, None], "int": [1, -2], "bigint": [2**40], "real": [0.5], "float8": [1.25, None], "numeric": [Decimal("1.50"), Decimal(2)], "boolean": [True, False, None],
    "text": ["a", None, ""], "varchar": ["grüße"], "bytea": [b"\x00\xff"], "date": [date(2026, 1, 2)], "time": [time(1, 2, 3)], "timestamp": [datetime(2026, 1, 2, 3, 4, 5, 678901)],
    "timestamptz": [datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)], "interval": [timedelta(days=1, seconds=2)], "uuid": [uuid.UUID("6b9b3d1c-7a2e-4a55-9b6e-0c3a4b1d2e3f")], "jsonb": ['{"a": 1}'],
}


@pytest.mark.parametrize("element", ARRAYS)
def test_asyncpg_arrays(server, element):
    """A connection of its own each: what is known of types is kept."""
    async def ask():
        connection = await asyncpg.connect(host="127.0.0.1", port=server.port, user="root", database="dev")
        try:
            assert await connection.fetchval(f"SELECT NULL::{element}[]") is None
            assert await connection.fetchval(f"SELECT $1::{element}[]", ARRAYS[element]) == ARRAYS[element]
            assert await connection.fetchval(f"SELECT ARRAY[]::{element}[]") == []
        finally:
            await connection.close()

    asyncio.run(ask())


def test_cursors_as_psql_writes_them(server, unique):
    """FETCH and MOVE without FROM, and names that are folded."""
    table = unique("walked")
    server.query(f"CREATE TABLE {table} (i INT PRIMARY KEY)")
    server.query(f"INSERT INTO {table} SELECT i FROM generate_series(1, 9) g(i)")
    with server.connect(autocommit=False) as connection:
        cursor = connection.cursor()
        cursor.execute(f"DECLARE Walk CURSOR FOR SELECT i FROM {table} ORDER BY i")
        assert cursor.execute("FETCH walk").fetchall() == [(1,)]
        assert cursor.execute("FETCH 2 walk").fetchall() == [(2,), (3,)]
        for move, moved in [("MOVE WALK", "MOVE 1"), ("MOVE 2 IN walk", "MOVE 2"), ("MOVE 0 walk", "MOVE 0")]:
            assert cursor.execute(move).statusmessage == moved
        assert cursor.execute('FETCH NEXT FROM "walk"').fetchall() == [(7,)]
        assert cursor.execute("MOVE ALL IN walk").statusmessage == "MOVE 2"
        assert cursor.execute("FETCH FORWARD ALL walk").fetchall() == []
        cursor.execute("CLOSE walk")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            cursor.execute("MOVE walk")
        connection.rollback()
        # One that is held outlives its transaction, unless that is undone.
        for end, kept in [("ROLLBACK", False), ("COMMIT", True), ("ROLLBACK", True)]:
            if not kept or end == "COMMIT":
                cursor.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
            cursor.execute(end)
            if kept:
                assert cursor.execute("FETCH 0 held").fetchall() == []
            else:
                with pytest.raises(psycopg.errors.InvalidCursorName):
                    cursor.execute("FETCH 0 held")
                connection.rollback()


def test_several_tables_are_truncated_together(server, unique):
    """What is not there leaves all of them as they were, and no block open."""
    one, other = unique("one"), unique("other")
    for table in (one, other):
        server.query(f"CREATE TABLE {table} (i INT PRIMARY KEY)")
        server.query(f"INSERT INTO {table} VALUES (1), (2)")
    counted = f"SELECT (SELECT count(*) FROM {one}), (SELECT count(*) FROM {other})"
    with server.connect() as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute(f"TRUNCATE {one}, {unique('nowhere')}")
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE
        assert connection.execute(counted).fetchone() == (2, 2)
        with connection.transaction(force_rollback=True):
            assert connection.execute(f"TRUNCATE TABLE {one}, ONLY {other} RESTART IDENTITY CASCADE").statusmessage == "TRUNCATE TABLE"
            assert connection.execute(counted).fetchone() == (0, 0)
        assert connection.execute(counted).fetchone() == (2, 2)
        connection.execute(f"TRUNCATE {one}, {other}")
        assert connection.execute(counted).fetchone() == (0, 0)


def test_a_lone_parameter_has_no_name(server):
    with server.connect() as connection:
        connection.execute("PREPARE lone AS SELECT $1, $2, upper($1), $1::text")
        shown = connection.execute("EXECUTE lone('x', 'y')")
        assert [column.name for column in shown.description] == ["?column?", "?column?", "upper", "text"]
        assert shown.fetchall() == [("x", "y", "X", "x")]
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("PREPARE other AS ALTER USER root PASSWORD 'x'")
