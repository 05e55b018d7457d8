"""Writes of single rows that are not planned have the effect of planned ones: the same rows, counts and errors.

Each statement runs over two tables with the same rows, in the form that is written by key and with `AND true`, which is planned; then both tables are compared.
"""

import concurrent.futures
import itertools
import threading

import psycopg
import pytest

COLUMNS = ("k INT PRIMARY KEY, s SMALLINT, i INT NOT NULL DEFAULT 7, b BIGINT, n NUMERIC, m NUMERIC(6,2), f DOUBLE PRECISION, r REAL, t TEXT, v VARCHAR(5), c CHAR(3), "
           "o BOOLEAN, d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, j JSONB, a INT[], u UUID, y BYTEA, h INTERVAL")
NAMES = [column.split()[0] for column in COLUMNS.replace("(6,2)", "").split(", ")]
ROWS = """(1, 1, 10, 100, 1.5, 1.25, 0.5, 0.25, 'one', 'v1', 'c', true, '2024-01-31', '2024-01-31 10:00', '2024-01-31 10:00+02', '{"a": 1}', '{1,2}',
  '00000000-0000-0000-0000-000000000001', '\\x01', '1 day'),
(2, -2, 2147483647, 9223372036854775807, 'NaN', 9999.99, 1e300, 3e38, '', '12345', 'abc', false, NULL, NULL, NULL, 'null', '{}', NULL, NULL, NULL),
(3, NULL, 0, NULL, NULL, NULL, 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""

# Values that every column is set to.
CONSTANTS = ["NULL", "DEFAULT", "5", "-5", "007", "0", "-0", "70000", "3000000000", "10000000000000000000", "1.005", "12345.678", "1e3", "'5'", "' 6 '", "'1.005'", "'abcdef'", "'ab   '", "''",
             "true", "'t'", "'2024-02-30'", "'2024-02-29'", "'2024-02-29 23:59:59.9999999'", "'2024-06-01 12:00+03'", "'{\"b\": [1, 2]}'", "'{3,NULL}'",
             "'00000000-0000-0000-0000-00000000000g'", "'\\x0102'", "'1 mon 2 days'", "'NaN'", "'infinity'", "'1e400'"]

# What columns are computed of, with numbers that are given.
COMPUTED = ["i = i + 1", "i = i - 5", "i = -i", "s = s + 1", "s = s * 20000", "s = i", "b = b + 1", "b = i * 3000000000", "b = i * 3", "i = b", "n = n + 1", "n = n * 2.5", "n = n / 3", "m = m + 0.01",
            "m = m * 7", "m = i / 3", "f = f * 2", "f = f + 0.1", "f = i / 4", "r = r * 10", "r = f", "t = t || 'x'", "t = v || t", "t = i", "t = i + 1", "v = v || 'x'", "v = t", "c = t", "t = c || '|'",
            "o = NOT o", "o = i > 5", "o = t = 'one'", "o = s IS NULL", "i = i / 0", "i = 5 / s", "i = i % 3", "i = CASE WHEN s > 0 THEN i + 1 ELSE 2 END", "i = k, k = k + 100", "k = k + 1", "k = 2", "k = 2, t = 'to'",
            "d = d + 1", "d = d + 40", "ts = ts + h", "d = ts", "ts = d", "i = s + i, s = i", "i = 1, i = 2", "x = 1", "i = x + 1", "t = upper(t)", "t = 'a' || i", "i = '3'", "i = i + '3'", "n = 1.50", "t = 1.50",
            "j = j || '{\"z\": 2}'", "a = a || 3", "y = y || y", "i = (SELECT 5)", "i = i + t", "o = i", "i = o", "i = i::smallint", "i = (i + 0.5)::int", "f = i::text::float8", "ts = 'now'", "t = ts", "h = h * 2",
            "b = 1 - 2 - 3", "i = 7 - -3", "i = 2 * (i - 4)", "n = i + 0.5"]


class Twins:
    """Two tables with the same rows."""

    def __init__(self, connection, unique):
        self.connection, self.tables = connection, (unique("by_key"), unique("planned"))
        for table in self.tables:
            connection.execute(f"CREATE TABLE {table} ({COLUMNS})")
            connection.execute(f"INSERT INTO {table} VALUES {ROWS}")

    def run(self, statements, parameters=None, messages=True):
        """Runs a statement of each form, and expects the same of both, with or without the texts of errors."""
        outcomes = []
        for table, statement in zip(self.tables, statements):
            try:
                done = self.connection.execute(statement.replace("{table}", table), parameters)
                outcomes.append((done.statusmessage, None))
            except psycopg.Error as e:
                outcomes.append((e.sqlstate, messages and e.diag.message_primary.replace(table, "table")))
        assert outcomes[0] == outcomes[1], statements[0]
        self.compare(statements[0])
        return outcomes[0]

    def change(self, text, parameters=None, keys="k = 1"):
        return self.run([f"{text} WHERE {keys}", f"{text} WHERE {keys} AND true"], parameters)

    def compare(self, why):
        texts = ", ".join(f"{name}::text" for name in NAMES)
        rows = [self.connection.execute(f"SELECT {texts} FROM {table} ORDER BY k").fetchall() for table in self.tables]
        assert rows[0] == rows[1], why

    def reset(self):
        for table in self.tables:
            self.connection.execute(f"DELETE FROM {table}")
            self.connection.execute(f"INSERT INTO {table} VALUES {ROWS}")


@pytest.fixture
def twins(server, unique):
    with server.connect() as connection:
        yield Twins(connection, unique)


def test_constants(twins):
    for name, value in itertools.product(NAMES[1:], CONSTANTS):
        twins.change(f"UPDATE {{table}} SET {name} = {value}")


def test_computed_values(twins):
    for key, assignments in itertools.product((1, 2, 3, 4), COMPUTED):
        # the second time it is kept
        for _ in range(2):
            twins.change(f"UPDATE {{table}} SET {assignments}", keys=f"k = {key}")
        twins.reset()


def test_parameters(twins):
    """The driver names the types of numbers, and sends texts without one."""
    values = [5, -5, 70000, 3_000_000_000, 2**63 - 1, 0, None, 1.5, "x", "12"]
    for assignments in ("i = %s", "t = %s", "n = %s", "f = %s", "i = i + %s", "b = b - %s", "s = s + %s", "n = n * %s", "f = f / %s", "m = m + %s", "t = t || %s", "o = i > %s", "i = CASE WHEN i > %s THEN 1 ELSE i END"):
        for value in values * 2:
            twins.change(f"UPDATE {{table}} SET {assignments}", [value])
        twins.reset()
    for value in values:
        twins.change("DELETE FROM {table}", [value], keys="k = %s")


def test_lookups_by_a_parameter_that_is_cast(twins):
    for cast, value in itertools.product(("int", "bigint", "smallint", "numeric", "text::int"), ("1", 2, 3_000_000_000, None, "x")):
        outcomes = []
        for more in ("", " AND true"):
            try:
                outcomes.append(twins.connection.execute(f"SELECT k, i FROM {twins.tables[0]} WHERE k = %s::{cast}{more}", [value]).fetchall())
            except psycopg.Error as e:
                outcomes.append(e.sqlstate)
        assert outcomes[0] == outcomes[1], (cast, value)


def test_deletes_and_several_keys(twins):
    twins.change("UPDATE {table} SET i = i - 1, t = 'both'", keys="k IN (1, 2, 2, 9)")
    twins.change("UPDATE {table} AS x SET i = x.i + 1", keys="x.k IN (1, 3)")
    twins.change("UPDATE {table} SET k = 5", keys="k IN (1, 2)")
    twins.change("DELETE FROM {table}", keys="k = 7")
    assert twins.change("DELETE FROM {table}", keys="k IN (1, 3)") == ("DELETE 2", None)
    assert twins.change("DELETE FROM {table}", keys="k = 99999999999") == ("DELETE 0", None)
    twins.change("DELETE FROM {table}", keys="k = NULL")
    twins.change("DELETE FROM {table}", keys="k = '2'")


def test_inserts(twins):
    """The planned form has a computed value, which does not change it; a constant that is none of its type has always been told with its text."""
    for i, value in enumerate(CONSTANTS):
        for name in ("i", "s", "n", "m", "v", "t", "o"):
            key = 1000 + 10 * i + len(name)
            twins.run([f"INSERT INTO {{table}} (k, {name}) VALUES ({key}, {value})", f"INSERT INTO {{table}} (k, {name}) VALUES ({key} + 0, {value})"], messages=False)
    for rest in ("VALUES (2{zero}, 3), (2, 4)", "VALUES (1{zero}, 9) ON CONFLICT DO NOTHING", "VALUES (1{zero}, 9) ON CONFLICT (k) DO NOTHING", "VALUES (1{zero}, 9) ON CONFLICT (i) DO NOTHING",
                 "VALUES (1{zero}, 9), (51, 1) ON CONFLICT (k) DO NOTHING", "VALUES (61{zero}, NULL)", "VALUES (NULL{zero}, 1)", "VALUES (71{zero}, 1, 2)", "VALUES (72{zero})"):
        twins.run([f"INSERT INTO {{table}} (k, i) {rest.format(zero='')}", f"INSERT INTO {{table}} (k, i) {rest.format(zero=' + 0')}"])


def test_lookups_beside_writes(server, unique):
    """Who looks a row up sees what was acknowledged before, and never something older than last time, through the key, its beginning, and an index."""
    table, acknowledged, ended = unique("t"), [0], threading.Event()
    server.run(f"CREATE TABLE {table} (a INT, b INT, c INT, x INT, PRIMARY KEY (a, b));\nCREATE INDEX {table}_c ON {table} (c);\n"
               f"INSERT INTO {table} SELECT i, i, i, 0 FROM generate_series(1, 1000) AS g(i);")
    conditions = ("a = %s AND b = 7", "a = %s", "c = %s")

    def look(condition):
        seen, looks = 0, 0
        with server.connect() as connection:
            last = False
            while not last or looks < 100:
                last, before = ended.is_set(), acknowledged[0]
                (found,), = connection.execute(f"SELECT x FROM {table} WHERE {condition}", (7,), prepare=True).fetchall()
                assert found >= max(seen, before), condition
                seen, looks = found, looks + 1
        return seen

    with concurrent.futures.ThreadPoolExecutor() as pool, server.connect() as connection:
        try:
            readers = [pool.submit(look, condition) for condition in conditions]
            for n in range(1, 301):
                connection.execute(f"UPDATE {table} SET x = {n} WHERE a = 7 AND b = 7")
                acknowledged[0] = n
        finally:
            ended.set()
        assert [reader.result() for reader in readers] == [300] * len(conditions)


def test_in_a_block(twins):
    """A block sees its own writes, an error spoils it, a savepoint brings it back, and ROLLBACK leaves nothing."""
    connection = twins.connection
    for end in ("ROLLBACK", "COMMIT"):
        connection.execute("BEGIN")
        twins.change("UPDATE {table} SET i = i + 1")
        twins.change("UPDATE {table} SET i = i + 1")
        twins.run(["INSERT INTO {table} (k, i) VALUES (50, 1)"] * 2)
        twins.change("UPDATE {table} SET i = i + 1, k = 51", keys="k = 50")
        connection.execute("SAVEPOINT s")
        twins.change("DELETE FROM {table}", keys="k = 51")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute(f"UPDATE {twins.tables[0]} SET i = i / 0 WHERE k = 1")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute(f"UPDATE {twins.tables[0]} SET i = 0 WHERE k = 1")
        connection.execute("ROLLBACK TO s")
        twins.compare("after a savepoint")
        connection.execute(end)
        twins.compare(end)
    rows = connection.execute(f"SELECT k, i FROM {twins.tables[0]} WHERE k IN (1, 51)").fetchall()
    assert sorted(rows) == [(1, 12), (51, 2)]


def test_a_catalog_that_changes(server, unique):
    """What is kept is found anew: for another table of the name, without a privilege, in another time zone."""
    table, role = unique("t"), unique("writer")
    server.run(f"CREATE TABLE {table} (k INT PRIMARY KEY, x INT, at TIMESTAMPTZ);\nINSERT INTO {table} VALUES (1, 1);\nCREATE ROLE {role} LOGIN PASSWORD 'w';\n"
               f"GRANT SELECT, UPDATE ON {table} TO {role};")
    update = f"UPDATE {table} SET x = x + 1, at = '2024-01-01 00:00' WHERE k = 1"
    with psycopg.connect(host="127.0.0.1", port=server.port, dbname="dev", user=role, password="w", autocommit=True) as connection:
        for zone, hour in (("UTC", 0), ("Europe/Berlin", 23), ("UTC", 0)):
            connection.execute(f"SET timezone = '{zone}'")
            connection.execute(update)
            assert connection.execute(f"SELECT extract(hour FROM at AT TIME ZONE 'UTC') FROM {table}").fetchall() == [(hour,)]
        server.run(f"REVOKE UPDATE ON {table} FROM {role};")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(update)
        server.run(f"GRANT UPDATE ON {table} TO {role};\nREVOKE SELECT ON {table} FROM {role};")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(update)
    with server.connect() as connection:
        connection.execute(update)
        server.run(f"DROP TABLE {table};\nCREATE TABLE {table} (x NUMERIC, at TIMESTAMP, k INT PRIMARY KEY);\nINSERT INTO {table} VALUES (0.5, NULL, 1);")
        connection.execute(update)
        assert connection.execute(f"SELECT x::text FROM {table}").fetchall() == [("1.5",)]
        connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(update)
