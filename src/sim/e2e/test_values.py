"""Whatever a value, a result or a parameter is computed from: it is bounded, and what is beyond the bound is an error of its statement alone. After each, another connection is answered at once."""

import socket
import struct
import time

import psycopg
import pytest

TOO_LARGE = {"54000", "53200"}

# Refused, with these codes.
REFUSED = {
    "repeat": ("SELECT length(repeat('x', 2000000000))", TOO_LARGE),
    "repeat of repeat": ("SELECT length(repeat(repeat('x', 1000000), 1000000))", TOO_LARGE),
    "repeat of repeat, little": ("SELECT length(repeat(repeat('x', 20000000), 1000))", TOO_LARGE),
    "repeat in rows": ("SELECT sum(length(repeat(repeat('x', 1000000), g::int))) FROM generate_series(1, 100000) AS s(g)", TOO_LARGE),
    "lpad": ("SELECT length(lpad('x', 2000000000, 'ab'))", TOO_LARGE),
    "rpad": ("SELECT length(rpad('x', 1000000000, 'äö'))", TOO_LARGE),
    "replace": ("SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))", TOO_LARGE),
    "regexp_replace": ("SELECT length(regexp_replace(repeat('x', 1000000), 'x', repeat('y', 1000000), 'g'))", TOO_LARGE),
    "regexp_replace, references": (r"SELECT length(regexp_replace(repeat('x', 1000000), '(.*)', repeat('\1', 1000000)))", TOO_LARGE),
    "format": ("SELECT length(format('%s%2000000000s', 'x', 'y'))", TOO_LARGE),
    "concat": (f"SELECT length(concat({', '.join(['a'] * 50)})) FROM (SELECT repeat('x', g::int) AS a FROM generate_series(30000000, 30000000) AS s(g)) AS t", TOO_LARGE),
    "concat_ws": (f"SELECT length(concat_ws(repeat('x', 30000000){', 1' * 50}))", TOO_LARGE),
    "chain": (f"SELECT length({' || '.join(['a'] * 50)}) FROM (SELECT repeat('x', g::int) AS a FROM generate_series(30000000, 30000000) AS s(g)) AS t", TOO_LARGE),
    "array_to_string": ("SELECT length(array_to_string(array_agg(g), repeat('x', 1000000))) FROM generate_series(1, 100000) AS s(g)", TOO_LARGE),
    "series in the select list": ("SELECT generate_series(1, 100000000000)", TOO_LARGE),
    "series of moments": ("SELECT generate_series('0001-01-01'::timestamp, '9999-01-01'::timestamp, '1 second'::interval)", TOO_LARGE),
    "array of many": ("SELECT array_length(array_agg(repeat('x', 100000) || g), 1) FROM generate_series(1, 100000000000) AS s(g)", TOO_LARGE),
    "text of many": ("SELECT length(string_agg(repeat('x', 1000000), ',')) FROM generate_series(1, 100000000) AS s(g)", TOO_LARGE),
    "constant in rows": ("SELECT length(max(a || g)) FROM (SELECT repeat('x', 10000000) AS a) AS t, generate_series(1, 100000) AS s(g)", TOO_LARGE),
    "numeric": ("SELECT '1e200000'::numeric", {"22003", "22P02"}),
    "numeric literal": (f"SELECT {'9' * 200_000}", {"22003", "0A000"}),
    "interval": ("SELECT '999999999999999 years'::interval", {"22015", "22P02"}),
    "sum of intervals": ("SELECT '2000000000 months'::interval + '2000000000 months'::interval", {"22008", "22003"}),
}

# Answered: as long as a value may be, or no longer than what was sent.
ANSWERED = {
    "repeat": ("SELECT length(repeat('x', 100000000))", 100_000_000),
    "to_char": ("SELECT length(to_char(now(), repeat('YYYY', 1000000)))", 4_000_000),
    "format": ("SELECT format('|%-3s|%2$5s|', 'x', 'y')", "|x  |    y|"),
    "series": ("SELECT count(*) FROM (SELECT generate_series(1, 1000000)) AS t", 1_000_000),
}

# Functions of the system with too few arguments.
TOO_FEW = ["quote_ident()", "quote_literal()", "format()", "set_config('x')", "like_escape('a')", "current_setting()", "pg_get_userbyid()", "to_regclass()", "current_schemas()",
           "pg_get_viewdef()", "obj_description()", "pg_size_pretty()", "format_type()", "pg_cancel_backend()", "generate_subscripts(1)", "array_lower(1, 1)"]


def answers(server):
    """A new client is answered at once."""
    began = time.monotonic()
    with server.connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_too_large_is_refused(server, what):
    text, states = REFUSED[what]
    process = server.process.pid
    error = server.error(text)
    assert error.sqlstate in states, f"{error.sqlstate}: {str(error)[:300]}"
    answers(server)
    assert server.process.pid == process and server.running


@pytest.mark.parametrize("what", ANSWERED)
def test_what_is_large_is_answered(server, what):
    text, answer = ANSWERED[what]
    assert server.value(text) == answer
    answers(server)


@pytest.mark.parametrize("depth", [100, 100_000, 5_000_000])
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_nested_json_is_no_danger(server, unique, depth, bracket):
    table = unique("nested")
    server.run(f"CREATE TABLE {table} (j JSONB);")
    close = {"[": "]", '{"a":': "}"}[bracket]
    for text in (f"repeat('{bracket}', {depth})", f"repeat('{bracket}', {depth}) || '1' || repeat('{close}', {depth})"):
        for statement in (f"SELECT length(({text})::jsonb::text)", f"INSERT INTO {table} SELECT ({text})::jsonb"):
            try:
                server.query(statement)
            except psycopg.Error as error:
                assert error.sqlstate in {"54001", "54000", "22P02"}, f"{error.sqlstate}: {str(error)[:300]}"
            answers(server)


@pytest.mark.parametrize("call", TOO_FEW)
def test_a_function_with_too_few_arguments_does_not_exist(server, call):
    error = server.error(f"SELECT {call}")
    assert error.sqlstate == "42883", f"{error.sqlstate}: {error}"


def test_a_result_has_as_many_columns_as_can_be_counted(server, unique):
    table = unique("wide")
    for columns in (1_665, 33_000):
        assert server.error(f"SELECT {', '.join(['1'] * columns)}").sqlstate == "54011"
    assert len(server.query(f"SELECT {', '.join(['1'] * 1_664)}")[0]) == 1_664
    server.run(f"CREATE TABLE {table} (a INT);")
    wide = f"SELECT {', '.join(['a'] * 33_000)} FROM {table}"
    assert server.error(f"COPY ({wide}) TO STDOUT").sqlstate == "54011"
    with server.connect() as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute(wide, prepare=True)
    assert raised.value.sqlstate == "54011"
    answers(server)


def test_parameters_are_counted(server):
    """A Bind with as many parameters as 16 bits count, and one that says it has more than it has."""
    def message(kind, body):
        return kind + struct.pack("!i", len(body) + 4) + body

    for said, sent in ((65_535, 65_535), (65_535, 10), (1, 65_535)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            body = struct.pack("!i", 196608) + b"user\0root\0database\0dev\0\0"
            raw.sendall(struct.pack("!i", len(body) + 4) + body)
            raw.sendall(message(b"P", b"\0SELECT 1\0" + struct.pack("!h", 0)))
            values = struct.pack("!i", 1) + b"7"
            raw.sendall(message(b"B", b"\0\0" + struct.pack("!hH", 0, said) + values * sent + struct.pack("!h", 0)))
            raw.sendall(message(b"S", b""))
            received = b""
            while b"C08P01" not in received:
                part = raw.recv(65536)
                if not part:
                    break
                received += part
            # Either the client is told, or what it says cannot be read and it is sent away.
            assert said != 65_535 or sent != 65_535 or b"C08P01" in received
        answers(server)
