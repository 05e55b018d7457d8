"""Columns that come, go and get other names while the table is written and read: through kills at any moment, checkpoints of before, other workers, prepared statements, open transactions and writers who wait."""

import random
import signal
import threading
import time

import psycopg
import pytest
from harness import eventually

SETUP = """CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, b TEXT);
CREATE TABLE bag (a BIGINT, b TEXT NOT NULL);
CREATE MATERIALIZED VIEW sums AS SELECT a % 5 AS g, count(*) AS rows, sum(a) AS a FROM t GROUP BY a % 5;
CREATE MATERIALIZED VIEW of_bag AS SELECT a, count(*) AS rows FROM bag GROUP BY a;
INSERT INTO t SELECT n, n * 3, 'b' || n FROM generate_series(1, 500) AS g (n);
INSERT INTO bag SELECT n % 10, 'b' || n % 3 FROM generate_series(1, 500) AS g (n);"""


def names(server, table):
    return [row[0] for row in server.query("SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position", (table,))]


def check(server):
    """The views are their queries."""
    with server.connect(autocommit=False) as connection:
        for view, query in (("sums", "SELECT a % 5, count(*), sum(a) FROM t GROUP BY a % 5"), ("of_bag", "SELECT a, count(*) FROM bag GROUP BY a")):
            assert sorted(connection.execute(f"SELECT * FROM {view}").fetchall()) == sorted(connection.execute(query).fetchall()), view


@pytest.mark.parametrize("point, takes_effect", [("ddl.log", False), ("ddl.logged", True)])
@pytest.mark.parametrize("flushed", [False, True])
def test_kill_at_every_point(point, takes_effect, flushed, own_server):
    """All of an ALTER or nothing; a start that replays what was written before it finds the columns in those rows as well."""
    own_server.start(checkpoint_ms=600_000)
    own_server.run(SETUP)
    if flushed:
        own_server.query("FLUSH")
        own_server.run("UPDATE t SET a = a + 1 WHERE id % 2 = 0; DELETE FROM bag WHERE a = 4;")
    expected = (own_server.query("SELECT id, a, b FROM t ORDER BY id"), own_server.query("SELECT a, b FROM bag ORDER BY a, b"))
    own_server.kill()
    own_server.start(failpoint=point, checkpoint_ms=600_000)
    with pytest.raises(psycopg.Error):
        own_server.query("ALTER TABLE t ADD COLUMN c INT DEFAULT 4, DROP COLUMN b")
    assert own_server.wait_exit() == -signal.SIGABRT
    own_server.start(workers=3)
    assert names(own_server, "t") == (["id", "a", "c"] if takes_effect else ["id", "a", "b"])
    if takes_effect:
        assert own_server.query("SELECT * FROM t ORDER BY id") == [(n, a, 4) for n, a, _ in expected[0]]
    else:
        assert own_server.query("SELECT * FROM t ORDER BY id") == expected[0]
    assert own_server.query("SELECT a, b FROM bag ORDER BY a, b") == expected[1]
    check(own_server)


def test_random_histories(own_server):
    """Random writes and alterations of a table with a key and one without, with kills, checkpoints and other workers between them, against a list of rows."""
    rng = random.Random(11)
    own_server.start(workers=2)
    own_server.run(SETUP)
    columns = {"t": ["id", "a", "b"], "bag": ["a", "b"]}
    rows = {table: [list(row) for row in own_server.query(f"SELECT * FROM {table}")] for table in columns}
    fixed = {"t": ("id", "a"), "bag": ("a",)}
    next_name = 0

    def alter():
        nonlocal next_name
        table = rng.choice(list(columns))
        free = [c for c in columns[table] if c not in fixed[table]]
        kind = rng.choice(["add", "add", "drop", "rename"]) if free else "add"
        if kind == "add" and len(columns[table]) < 8:
            next_name += 1
            name, value = f"c{next_name}", rng.choice([None, 7, "text"])
            declared = f"{name} {'TEXT' if value == 'text' else 'BIGINT'}" + ("" if value is None else f" DEFAULT {value!r}")
            own_server.query(f"ALTER TABLE {table} ADD COLUMN {declared}")
            columns[table].append(name)
            for row in rows[table]:
                row.append(value)
            defaults[table, name] = value
        elif kind == "drop" and free:
            name = rng.choice(free)
            own_server.query(f"ALTER TABLE {table} DROP COLUMN {name}")
            at = columns[table].index(name)
            columns[table].pop(at)
            for row in rows[table]:
                row.pop(at)
        elif kind == "rename" and free:
            name = rng.choice(free)
            next_name += 1
            own_server.query(f"ALTER TABLE {table} RENAME COLUMN {name} TO r{next_name}")
            columns[table][columns[table].index(name)] = f"r{next_name}"
            if (table, name) in defaults:
                defaults[table, f"r{next_name}"] = defaults[table, name]

    defaults = {}

    def write():
        table = rng.choice(list(columns))
        kind = rng.choice(["insert", "update", "delete"])
        key, at = rng.randrange(10), columns[table].index("a")
        if kind == "insert":
            first = 1 + max((row[0] for row in rows["t"]), default=0)
            for n in range(3):
                given = {"id": first + n, "a": key} if table == "t" else {"a": key}
                if "b" in columns[table]:
                    given["b"] = f"new{key}"
                own_server.query(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({', '.join(['%s'] * len(given))})", list(given.values()))
                rows[table].append([given.get(c, defaults.get((table, c))) for c in columns[table]])
        elif kind == "update":
            targets = [c for c in columns[table] if c not in fixed[table] and c.startswith("c") and defaults.get((table, c)) != "text"]
            name = rng.choice(targets) if targets else "a"
            value = rng.randrange(10) if name == "a" else rng.randrange(1000)
            own_server.query(f"UPDATE {table} SET {name} = {value} WHERE a % 10 = {key}")
            for row in rows[table]:
                if row[at] % 10 == key:
                    row[columns[table].index(name)] = value
        else:
            own_server.query(f"DELETE FROM {table} WHERE a = {key}")
            rows[table] = [row for row in rows[table] if row[at] != key]

    def compare():
        for table in columns:
            assert names(own_server, table) == columns[table]
            there = own_server.query(f"SELECT * FROM {table}")
            assert sorted(map(repr, there)) == sorted(repr(tuple(row)) for row in rows[table]), table
        check(own_server)

    for step in range(150):
        rng.choice([alter, write, write, write])()
        if step % 10 == 9:
            compare()
        what = rng.randrange(30)
        if what == 0:
            own_server.query("FLUSH")
        elif what <= 2:
            own_server.kill()
            own_server.start(workers=rng.choice([1, 2, 4]))
            compare()
    compare()


def test_writers_and_readers_meanwhile(own_server):
    """Writers who wait for the table write what it has then, or are told to try again; readers see a column in all rows or in none."""
    own_server.start(workers=2)
    own_server.run(SETUP)
    over, written, wrong = threading.Event(), [0], []

    def writes(number):
        with own_server.connect() as connection:
            while not over.is_set():
                try:
                    connection.execute("INSERT INTO t (id, a) VALUES (%s, %s)", (10_000 + 4 * written[0] + number, number))
                    if number == 0:
                        written[0] += 1
                    connection.execute("UPDATE t SET a = a + 1 WHERE id % 97 = 0")
                except psycopg.Error as error:
                    if error.sqlstate not in ("40001", "23505"):
                        wrong.append(error)
                        return

    def reads():
        with own_server.connect() as connection:
            while not over.is_set():
                try:
                    cursor = connection.execute("SELECT * FROM t WHERE id <= 500")
                except psycopg.Error as error:
                    # As in PostgreSQL, between what a prepared statement says of its columns and its rows.
                    if "cached plan must not change result type" not in str(error):
                        wrong.append(error)
                        return
                    continue
                found = [c.name for c in cursor.description]
                for row in cursor.fetchall():
                    for name, value in zip(found, row):
                        if name.startswith("c") and value != int(name[1:]):
                            wrong.append((name, row))
                            return

    threads = [threading.Thread(target=writes, args=(n,)) for n in range(2)] + [threading.Thread(target=reads) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(12):
        own_server.query(f"ALTER TABLE t ADD COLUMN c{n} INT DEFAULT {n}")
        time.sleep(0.05)
        if n % 3 == 2:
            own_server.query(f"ALTER TABLE t DROP COLUMN c{n - 1}")
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert written[0] > 10
    check(own_server)
    before = own_server.query("SELECT * FROM t ORDER BY id")
    own_server.kill()
    own_server.start(workers=3)
    assert own_server.query("SELECT * FROM t ORDER BY id") == before
    check(own_server)


def test_what_was_prepared_is_planned_anew(server, unique):
    table = unique("prepared")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, a INT); INSERT INTO {table} VALUES (1, 1), (2, 2);")
    with server.connect() as connection, server.connect() as other:
        connection.prepare_threshold = 0
        ask = lambda: connection.execute(f"SELECT a FROM {table} WHERE id = %s", (1,)).fetchall()
        put = lambda a: connection.execute(f"UPDATE {table} SET a = %s WHERE id = 1", (a,))
        add = lambda n: connection.execute(f"INSERT INTO {table} (id, a) VALUES (%s, %s)", (n, n))
        for n in range(5):
            assert ask() == [(n or 1,)] if n else [(1,)]
            put(n + 1)
            add(10 + n)
            assert connection.execute(f"SELECT count(*) FROM {table} WHERE a > %s", (0,)).fetchone() == (3 + n,)
            other.execute(f"ALTER TABLE {table} ADD COLUMN c{n} INT DEFAULT {n}")
            if n == 3:
                other.execute(f"ALTER TABLE {table} DROP COLUMN c1")
            row = connection.execute(f"SELECT * FROM {table} WHERE id = 1").fetchone()
            assert row == (1, n + 1, *(c for c in range(n + 1) if n < 3 or c != 1))


def test_an_open_transaction_holds_up_an_alteration(server, unique):
    table = unique("held")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, a INT); INSERT INTO {table} VALUES (1, 1);")
    with server.connect(autocommit=False) as writer, server.connect() as other, server.connect(autocommit=False) as reader:
        assert reader.execute(f"SELECT * FROM {table}").fetchall() == [(1, 1)]
        writer.execute(f"INSERT INTO {table} VALUES (2, 2)")
        other.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.Error) as raised:
            other.execute(f"ALTER TABLE {table} ADD COLUMN b INT DEFAULT 3")
        assert raised.value.sqlstate == "55P03"
        writer.commit()
        other.execute(f"ALTER TABLE {table} ADD COLUMN b INT DEFAULT 3")
        # Its epoch has not got the second row; the columns are those of now.
        assert reader.execute(f"SELECT * FROM {table}").fetchall() == [(1, 1, 3)]
        reader.commit()
        assert sorted(reader.execute(f"SELECT * FROM {table}").fetchall()) == [(1, 1, 3), (2, 2, 3)]


def test_copy_and_backup(own_server, folder):
    """COPY in and out has the columns that there are; a checkpoint of before is read with those that came later."""
    own_server.start(checkpoint_ms=600_000)
    own_server.run(SETUP)
    own_server.query("FLUSH")
    own_server.run("ALTER TABLE bag DROP COLUMN b; ALTER TABLE bag ADD COLUMN c TEXT DEFAULT 'x';")
    with own_server.connect() as connection:
        with connection.cursor().copy("COPY bag FROM STDIN") as copy:
            copy.write("77\ty\n78\t\\N\n")
        with connection.cursor().copy("COPY bag TO STDOUT") as copy:
            lines = sorted(b"".join(copy).decode().split("\n"))
    assert len(lines) == 503 and "77\ty" in lines and "78\t\\N" in lines and "3\tx" in lines
    own_server.query("FLUSH")
    own_server.kill()
    own_server.start(workers=1)
    assert own_server.query("SELECT c, count(*) FROM bag GROUP BY c ORDER BY c") == [("x", 500), ("y", 1), (None, 1)]
    own_server.query("DELETE FROM bag WHERE a < 50")
    eventually(lambda: own_server.value("SELECT count(*) FROM of_bag") == 2)
