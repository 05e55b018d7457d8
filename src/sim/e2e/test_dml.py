"""Tables: writes are durable when acknowledged, are read back at once, and never lose one another."""

import threading
import time

import psycopg
import pytest
from harness import eventually, in_threads

CONNECTIONS = 16


def test_parallel_inserts(server, unique):
    table = unique("events")
    server.run(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, who INT, note VARCHAR);\nCREATE MATERIALIZED VIEW {table}_count AS SELECT who, count(*) AS c FROM {table} GROUP BY who;")
    each = 150

    def work(who):
        with server.connect() as connection:
            for number in range(each):
                assert connection.execute(f"INSERT INTO {table} VALUES ({who * 100_000 + number}, {who}, 'x')").rowcount == 1

    began = time.monotonic()
    in_threads(CONNECTIONS, work)
    seconds = time.monotonic() - began
    print(f"{CONNECTIONS * each / seconds:.0f} single-row inserts a second from {CONNECTIONS} connections")
    assert server.value(f"SELECT count(*) FROM {table}") == CONNECTIONS * each
    # In views, what other sessions wrote follows.
    eventually(lambda: sorted(server.query(f"SELECT who, c FROM {table}_count")) == [(who, each) for who in range(CONNECTIONS)], 2)


def test_parallel_updates(server, unique):
    table = unique("counter")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x BIGINT);\nINSERT INTO {table} VALUES (1, 0), (2, 1000);")
    each = 40

    def work(_):
        with server.connect() as connection:
            for _ in range(each):
                assert connection.execute(f"UPDATE {table} SET x = x + 1 WHERE id = 1").rowcount == 1

    in_threads(8, work)
    assert sorted(server.query(f"SELECT id, x FROM {table}")) == [(1, 8 * each), (2, 1000)]


def test_reads_its_own_writes(server, unique):
    table = unique("notes")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT);\nCREATE MATERIALIZED VIEW {table}_sum AS SELECT count(*) AS c, sum(x) AS s FROM {table};")
    with server.connect() as connection:
        total = 0
        for number in range(30):
            connection.execute(f"INSERT INTO {table} VALUES ({number}, {number})")
            total += number
            assert connection.execute(f"SELECT x FROM {table} WHERE id = {number}").fetchall() == [(number,)]
            assert connection.execute(f"SELECT c, s FROM {table}_sum").fetchall() == [(number + 1, total)]
        assert connection.execute(f"DELETE FROM {table} WHERE id < 10").rowcount == 10
        assert connection.execute(f"SELECT c, s FROM {table}_sum").fetchall() == [(20, sum(range(10, 30)))]
        assert connection.execute(f"UPDATE {table} SET x = -x WHERE x >= 20").rowcount == 10
        assert connection.execute(f"SELECT c, s FROM {table}_sum").fetchall() == [(20, sum(range(10, 20)) - sum(range(20, 30)))]
        assert connection.execute(f"DELETE FROM {table}").rowcount == 20
        assert connection.execute(f"SELECT c, s FROM {table}_sum").fetchall() == [(0, None)]


def test_insert_overwrites_select_and_errors(server, unique):
    table, other = unique("t"), unique("u")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT NOT NULL);\nCREATE TABLE {other} (id INT PRIMARY KEY, x INT);\nINSERT INTO {table} VALUES (1, 10), (2, 20);")
    server.query(f"INSERT INTO {other} SELECT id, x * 2 FROM {table}")
    assert sorted(server.query(f"SELECT * FROM {other}")) == [(1, 20), (2, 40)]
    assert server.error(f"INSERT INTO {table} VALUES (3, NULL)").sqlstate == "23502"
    assert server.error(f"INSERT INTO {table} (id, y) VALUES (3, 1)").sqlstate == "42703"
    assert server.error(f"INSERT INTO {table} VALUES (4, 1), (5, 1 / 0)").sqlstate == "22012"
    assert sorted(server.query(f"SELECT * FROM {table}")) == [(1, 10), (2, 20)], "a statement that fails writes nothing"


def test_transactions(server, unique):
    table = unique("accounts")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, balance BIGINT);\nINSERT INTO {table} VALUES (1, 100), (2, 100);\nCREATE MATERIALIZED VIEW {table}_sum AS SELECT sum(balance) AS s FROM {table};")
    seen, stop = set(), threading.Event()

    def watch():
        with server.connect() as connection:
            while not stop.is_set():
                seen.add(connection.execute(f"SELECT s FROM {table}_sum").fetchone()[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with server.connect(autocommit=False) as connection:
        for _ in range(20):
            connection.execute(f"UPDATE {table} SET balance = balance - 5 WHERE id = 1")
            connection.execute(f"UPDATE {table} SET balance = balance + 5 WHERE id = 2")
            connection.commit()
        connection.execute(f"INSERT INTO {table} VALUES (3, 1000)")
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (3,), "a transaction sees its own writes"
        assert server.value(f"SELECT count(*) FROM {table}") == 2, "nobody else sees them before COMMIT"
        connection.rollback()
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
        with pytest.raises(psycopg.Error):
            connection.execute(f"INSERT INTO {table} VALUES (4, 'many')")
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("SELECT 1")
        assert refused.value.sqlstate == "25P02"
        connection.rollback()
    stop.set()
    watcher.join(20)
    assert seen == {200}, "both updates of a transaction appear in one epoch"
    assert sorted(server.query(f"SELECT * FROM {table}")) == [(1, 0), (2, 200)]


def test_blocks_over_two_tables_in_opposite_order(server, unique):
    """Blocks that want each other's tables neither wait for ever nor lose an update: each counts wholly, or fails with 40001."""
    a, b = unique("a"), unique("b")
    for table in (a, b):
        server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT);\nINSERT INTO {table} VALUES (1, 0), (2, 0);")
    done = [0, 0]

    def work(who):
        first, second = (a, b) if who == 0 else (b, a)
        with server.connect(autocommit=False) as connection:
            for _ in range(20):
                try:
                    connection.execute(f"UPDATE {first} SET x = x + 1")
                    connection.execute(f"UPDATE {second} SET x = x + 1")
                    connection.commit()
                    done[who] += 1
                except psycopg.errors.SerializationFailure:
                    connection.rollback()

    in_threads(2, work)
    assert sum(done) > 0
    total = sum(done)
    assert sorted(server.query(f"SELECT * FROM {a}")) == sorted(server.query(f"SELECT * FROM {b}")) == [(1, total), (2, total)]


def test_a_lost_lock_is_not_a_lost_write(server, unique):
    """A block whose rows somebody else changed, while it waited for another table, cannot commit the rest of what it wrote."""
    a, b = unique("a"), unique("b")
    for table in (a, b):
        server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT);\nINSERT INTO {table} VALUES (1, 0);")
    failed = []

    def update_both(connection):
        try:
            connection.execute(f"UPDATE {a} SET x = x + 1")
        except psycopg.Error as error:
            failed.append(error.sqlstate)

    with server.connect(autocommit=False) as one, server.connect(autocommit=False) as other:
        one.execute(f"UPDATE {b} SET x = 10")
        one.execute("SAVEPOINT s")
        other.execute(f"UPDATE {a} SET x = 20")
        # the first block gives its table back while it waits for the other one, and a third session writes there
        waiting = threading.Thread(target=update_both, args=(one,), daemon=True)
        waiting.start()
        server.query(f"UPDATE {b} SET x = 30")
        other.commit()
        waiting.join(20)
        assert failed == ["40001"]
        with pytest.raises(psycopg.errors.SerializationFailure):
            one.execute("ROLLBACK TO SAVEPOINT s")
        one.rollback()
    assert server.query(f"SELECT a.x, b.x FROM {a} a, {b} b") == [(20, 30)]


def test_select_for_update(server, unique):
    """Read, compute in the client, write: with FOR UPDATE no increment is lost."""
    table = unique("counter")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, x INT);\nINSERT INTO {table} VALUES (1, 0);")

    def work(_):
        with server.connect(autocommit=False) as connection:
            for _ in range(10):
                value = connection.execute(f"SELECT x FROM {table} WHERE id = 1 FOR UPDATE").fetchone()[0]
                connection.execute(f"UPDATE {table} SET x = %s WHERE id = 1", (value + 1,))
                connection.commit()

    in_threads(4, work)
    assert server.value(f"SELECT x FROM {table}") == 40


def test_dropped_while_written(server, unique):
    """Nobody is told that rows are kept in a table that is gone."""
    table = unique("gone")
    server.query(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
    failed = []

    def insert(connection):
        try:
            connection.execute(f"INSERT INTO {table} VALUES (2)")
        except psycopg.Error as error:
            failed.append(error.sqlstate)

    with server.connect(autocommit=False) as holder, server.connect() as waiter:
        holder.execute(f"INSERT INTO {table} VALUES (1)")
        waiting = threading.Thread(target=insert, args=(waiter,), daemon=True)
        waiting.start()
        server.query(f"DROP TABLE {table}")
        with pytest.raises(psycopg.errors.UndefinedTable):
            holder.commit()
        waiting.join(20)
        assert failed == ["42P01"]


def test_acknowledged_writes_survive(own_server):
    """Six writers insert and count up while the server is killed; what was acknowledged is there, and nothing that was never asked for."""
    own_server.start()
    own_server.run("CREATE TABLE log (id BIGINT PRIMARY KEY, who INT);\nCREATE TABLE counters (who INT PRIMARY KEY, x BIGINT);\n"
                   "CREATE MATERIALIZED VIEW log_count AS SELECT who, count(*) AS c FROM log GROUP BY who;\nINSERT INTO counters SELECT * FROM (VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0));")
    acknowledged = {who: 0 for who in range(6)}
    attempted = {who: 0 for who in range(6)}
    updates = {who: 0 for who in range(6)}
    for round_number in range(3):
        def work(who):
            try:
                with own_server.connect() as connection:
                    while True:
                        number = attempted[who]
                        attempted[who] += 1
                        connection.execute(f"INSERT INTO log VALUES ({who * 1_000_000 + number}, {who})")
                        acknowledged[who] += 1
                        connection.execute(f"UPDATE counters SET x = x + 1 WHERE who = {who}")
                        updates[who] += 1
            except psycopg.Error:
                pass

        threads = [threading.Thread(target=work, args=(who,), daemon=True) for who in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.3 + 0.4 * round_number)
        own_server.kill()
        for thread in threads:
            thread.join(20)
        own_server.start(workers=1 + round_number)
        present = dict(own_server.query("SELECT who, count(*) FROM log GROUP BY who"))
        counters = dict(own_server.query("SELECT who, x FROM counters"))
        eventually(lambda: dict(own_server.query("SELECT who, c FROM log_count")) == present, 5)
        for who in range(6):
            assert acknowledged[who] <= present[who] <= attempted[who]
            # one update in flight per crash may or may not have counted
            assert updates[who] <= counters[who] <= updates[who] + round_number + 1
    assert min(acknowledged.values()) > 0
