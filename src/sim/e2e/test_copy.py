r"""COPY with its options, in each of PostgreSQL's spellings; what is sent and read is PostgreSQL 15's."""

import psycopg
import pytest

# Of `(1, 'a"b\c', NULL, '')`.
SENT = {
    "": '1\ta"b\\\\c\t\\N\t\n',
    "(FORMAT csv)": '1,"a""b\\c",,""\n',
    "CSV": '1,"a""b\\c",,""\n',
    "WITH (FORMAT csv, HEADER on)": 'n,t,x,e\n1,"a""b\\c",,""\n',
    "(HEADER 1)": 'n\tt\tx\te\n1\ta"b\\\\c\t\\N\t\n',
    "CSV HEADER DELIMITER ';' NULL 'z'": 'n;t;x;e\n1;"a""b\\c";z;\n',
    "DELIMITER AS ';' NULL AS 'z' CSV HEADER": 'n;t;x;e\n1;"a""b\\c";z;\n',
    "(FORMAT csv, FORCE_QUOTE *)": '"1","a""b\\c",,""\n',
    "CSV FORCE QUOTE n, e": '"1","a""b\\c",,""\n',
    "(FORMAT csv, QUOTE '''')": "1,a\"b\\c,,''\n",
    "(FORMAT csv, ESCAPE '\\')": '1,"a\\"b\\\\c",,""\n',
}

# Of a query.
REFUSED = {
    "(FORMAT xx)": ("22023", 'COPY format "xx" not recognized'),
    "(FORMAT binary)": ("0A000", 'COPY format "binary" is not supported'),
    "(nonsense)": ("42601", 'option "nonsense" not recognized'),
    "(FORMAT csv, FORMAT csv)": ("42601", "conflicting or redundant options"),
    "CSV HEADER CSV": ("42601", "conflicting or redundant options"),
    "(DELIMITER 'ab')": ("0A000", "COPY delimiter must be a single one-byte character"),
    "(DELIMITER 'a')": ("22023", 'COPY delimiter cannot be "a"'),
    "(QUOTE 'a')": ("0A000", "COPY quote available only in CSV mode"),
    "(FORCE_QUOTE *)": ("0A000", "COPY force quote available only in CSV mode"),
    "(FORMAT csv, FORCE_NULL (n))": ("0A000", "COPY force null only available using COPY FROM"),
    "(FORMAT csv, FORCE_QUOTE (zz))": ("42703", 'column "zz" does not exist'),
    "(FORMAT csv, FORCE_QUOTE n)": ("22023", 'argument to option "force_quote" must be a list of column names'),
    "(HEADER match)": ("0A000", 'cannot use "match" with HEADER in COPY TO'),
    "(HEADER maybe)": ("42601", 'header requires a Boolean value or "match"'),
    "(NULL)": ("42601", "null requires a parameter"),
    "(FORMAT csv, NULL ',')": ("0A000", "COPY delimiter must not appear in the NULL specification"),
    "(FORMAT csv, DELIMITER '\"')": ("22023", "COPY delimiter and quote must be different"),
    "(ENCODING 'latin1')": ("0A000", 'COPY with encoding "latin1" is not supported'),
    "WHERE n > 1": ("0A000", "COPY with WHERE is not supported"),
}

# What comes, and the rows of `(a TEXT, b TEXT)` that it makes.
READ = {
    "": ("a\\\nb\tc\\x41\\101\\n\r\n\\\\N\t\\N\n", [("a\nb", "cAA\n"), ("\\N", None)]),
    "(FORMAT csv, HEADER match)": ('a,b\n1,""\n,"x,""\ny"\n', [("1", ""), (None, 'x,"\ny')]),
    "(FORMAT csv, FORCE_NULL (a), FORCE_NOT_NULL (b))": ('"",\n1,""\n', [(None, ""), ("1", "")]),
    "(FORMAT csv, ESCAPE '\\')": ('"a\\"b","c\\\\"\n', [('a"b', "c\\")]),
}

UNREADABLE = {
    "(FORMAT csv, HEADER match)": ("a,c\n1,2\n", "22P04", 'column name mismatch in header line field 2: got "c", expected "b"'),
    "(HEADER match)": ("a\n1\t2\n", "22P04", "wrong number of fields in header line: got 1, expected 2"),
    "(FORMAT csv)": ("1,a\rb\n", "22P04", "unquoted carriage return found in data"),
    "CSV": ('1,"a\n', "22P04", "unterminated CSV quoted field"),
    "": ("\\xff\t1\n", "22021", 'invalid byte sequence for encoding "UTF8"'),
}


@pytest.mark.parametrize("options", SENT)
def test_what_is_sent(server, options):
    query = r"""SELECT 1 AS n, 'a"b\c' AS t, NULL AS x, '' AS e"""
    with server.connect() as connection, connection.cursor().copy(f"COPY ({query}) TO STDOUT {options}") as copy:
        assert b"".join(copy).decode() == SENT[options]


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_refused(server, options):
    error = server.error(f"COPY (SELECT 1 AS n) TO STDOUT {options}")
    assert (error.sqlstate, error.diag.message_primary) == REFUSED[options]


def test_what_is_read(server, unique):
    table = unique("copied")
    server.run(f"CREATE TABLE {table} (a TEXT, b TEXT);")
    for options, (text, rows) in READ.items():
        with server.connect() as connection:
            with connection.cursor().copy(f"COPY {table} FROM STDIN {options}") as copy:
                copy.write(text)
            assert sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) == sorted(rows, key=repr), options
            connection.execute(f"DELETE FROM {table}")
            connection.execute(f"SELECT FROM {table}")
    for options, (text, state, message) in UNREADABLE.items():
        with server.connect() as connection, pytest.raises(psycopg.Error) as raised, connection.cursor().copy(f"COPY {table} FROM STDIN {options}") as copy:
            copy.write(text)
        assert (raised.value.sqlstate, raised.value.diag.message_primary) == (state, message), options
        assert server.query(f"SELECT * FROM {table}") == []
