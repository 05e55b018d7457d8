"""Subscriptions and changelogs: every change once, in order, through kills; cursors that go on where they were."""

import random
import threading
import time

import psycopg
import pytest
from harness import eventually

CHANGES = "SELECT id, v, op FROM changes ORDER BY _changelog_epoch, _changelog_row_id"


def fold(rows, kept=None):
    """The rows by key that changes leave; each fits to those before it."""
    kept = {} if kept is None else kept
    for key, value, op in rows:
        if op in ("Insert", "UpdateInsert"):
            assert key not in kept, f"{key} came twice"
            kept[key] = value
        else:
            assert kept.pop(key) == value, f"{key} was not {value}"
    return kept


def table(server):
    return dict(server.query("SELECT id, v FROM t"))


def random_change(server, chance):
    key = chance.randrange(40)
    statement = chance.choice(
        [
            f"INSERT INTO t SELECT i, {chance.randrange(9)} FROM generate_series({key}, {key + chance.randrange(5)}) i ON CONFLICT (id) DO UPDATE SET v = excluded.v",
            f"UPDATE t SET v = v + 1 WHERE id % 7 = {key % 7}",
            f"DELETE FROM t WHERE id = {key} OR id % 11 = {key % 11}",
        ]
    )
    server.query(statement)


def test_changes_fold_to_the_table_through_kills(own_server):
    chance = random.Random(11)
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    own_server.query("INSERT INTO t VALUES (100, 1), (101, 1)")
    own_server.query("CREATE SUBSCRIPTION changes FROM t WITH (retention = '1 hour')")
    own_server.query("CREATE MATERIALIZED VIEW log AS WITH c AS CHANGELOG FROM t SELECT id, v, changelog_op, _changelog_row_id AS n FROM c")
    names = {1: "Insert", 2: "Delete", 3: "UpdateInsert", 4: "UpdateDelete"}
    for _ in range(5):
        for _ in range(chance.randrange(3, 25)):
            random_change(own_server, chance)
        own_server.kill()
        own_server.start(workers=chance.randrange(1, 5))
        assert fold(own_server.query(CHANGES)) == table(own_server)
        # The order of a key's changes is that of their numbers.
        log = own_server.query("SELECT id, v, changelog_op FROM log ORDER BY n")
        assert fold([(k, v, names[op]) for k, v, op in log]) == table(own_server)
        assert own_server.value("SELECT count(DISTINCT n) = count(*) FROM log")


def test_a_cursor_follows_and_goes_on_after_a_kill(own_server):
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    own_server.query("INSERT INTO t SELECT i, 0 FROM generate_series(1, 2500) i")
    own_server.query("CREATE SUBSCRIPTION changes FROM t WITH (retention = '1 hour')")
    stop = threading.Event()

    def write():
        chance = random.Random(3)
        with own_server.connect() as writer:
            while not stop.is_set():
                writer.execute(f"UPDATE t SET v = v + 1 WHERE id % 97 = {chance.randrange(97)}")

    with own_server.connect() as reader:
        reader.execute("DECLARE c SUBSCRIPTION CURSOR FOR changes FULL")
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        kept, last = {}, None
        until = time.monotonic() + 3
        while time.monotonic() < until:
            rows = reader.execute("FETCH 300 FROM c WITH (timeout = '1s')").fetchall()
            fold([row[:3] for row in rows], kept)
            last = rows[-1][3] or last
        stop.set()
        writer.join()
        while rows := reader.execute("FETCH 1000 FROM c").fetchall():
            fold([row[:3] for row in rows], kept)
            last = rows[-1][3]
        assert kept == table(own_server)
    own_server.kill()
    own_server.start(workers=3)
    own_server.query("UPDATE t SET v = -1 WHERE id <= 3")
    with own_server.connect() as reader:
        reader.execute(f"DECLARE c SUBSCRIPTION CURSOR FOR changes SINCE {last}")
        rows = reader.execute("FETCH 100000 FROM c").fetchall()
        # Those of the last millisecond come once more: they are known by their time.
        fold([row[:3] for row in rows if row[3] > last], kept)
        assert kept == table(own_server)
        reader.execute("DECLARE d SUBSCRIPTION CURSOR FOR changes SINCE begin()")
        rows = reader.execute("FETCH 1000000 FROM d").fetchall()
        assert fold([row[:3] for row in rows]) == kept


def test_what_is_waited_for_comes_at_once(own_server):
    own_server.start()
    own_server.query("CREATE TABLE t (id INT, v TEXT)")
    own_server.query("CREATE SUBSCRIPTION changes FROM t WITH (retention = '10 minutes')")
    with own_server.connect() as reader:
        reader.execute("DECLARE c SUBSCRIPTION CURSOR FOR changes")
        assert reader.execute("FETCH NEXT FROM c").fetchall() == []
        assert reader.execute("FETCH NEXT FROM c WITH (timeout = '10ms')").fetchall() == []
        writes = threading.Timer(0.3, lambda: own_server.query("INSERT INTO t VALUES (1, 'a'), (1, 'a')"))
        writes.start()
        rows = reader.execute("FETCH 10 FROM c WITH (timeout = '20s')").fetchall()
        assert [row[:3] for row in rows] == [(1, "a", "Insert")] * 2
        writes.join()
        # In a block, too, a cursor reads what was committed last.
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (2,)
        own_server.query("DELETE FROM t")
        rows = reader.execute("FETCH 10 FROM c WITH (timeout = '20s')").fetchall()
        assert [row[:3] for row in rows] == [(1, "a", "Delete")] * 2
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (2,)
        reader.execute("ROLLBACK")
        reader.execute("CLOSE c")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            reader.execute("FETCH NEXT FROM c")


def test_what_is_older_than_the_retention_leaves_and_a_cursor_says_so(own_server):
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY)")
    own_server.query("CREATE SUBSCRIPTION changes FROM t WITH (retention = '2 seconds')")
    with own_server.connect() as reader:
        reader.execute("DECLARE c SUBSCRIPTION CURSOR FOR changes")
        own_server.query("INSERT INTO t VALUES (1)")
        assert own_server.value("SELECT count(*) FROM changes") == 1
        eventually(lambda: own_server.value("SELECT count(*) FROM changes") == 0)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="may have missed changes"):
            reader.execute("FETCH NEXT FROM c")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            reader.execute("FETCH NEXT FROM c")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="retention"):
            reader.execute("DECLARE d SUBSCRIPTION CURSOR FOR changes SINCE 1000000")


def test_subscriptions_are_objects_like_others(own_server):
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    own_server.query("CREATE SOURCE s (a INT) WITH (connector = 'datagen', datagen.rows.per.second = 1)")
    own_server.query("CREATE TABLE named (id INT, op TEXT)")
    own_server.query("CREATE SUBSCRIPTION changes FROM t WITH (retention = '1D')")
    own_server.query("CREATE SUBSCRIPTION IF NOT EXISTS changes FROM t WITH (retention = '1D')")
    assert own_server.query("SHOW SUBSCRIPTIONS")[0][0] == "changes"
    assert "retention = '1D'" in own_server.query("SHOW CREATE SUBSCRIPTION changes")[0][1]
    for statement, message in [
        ("CREATE SUBSCRIPTION x FROM t", "for how long"),
        ("CREATE SUBSCRIPTION x FROM t WITH (retention = '0')", "must be positive"),
        ("CREATE SUBSCRIPTION x FROM t WITH (retention = 'soon')", "invalid input syntax for type interval"),
        ("CREATE SUBSCRIPTION x FROM t WITH (retention = '1D', colour = 'red')", "colour"),
        ("CREATE SUBSCRIPTION x FROM nothing WITH (retention = '1D')", "does not exist"),
        ("CREATE SUBSCRIPTION x FROM s WITH (retention = '1D')", "not a table or materialized view"),
        ("CREATE SUBSCRIPTION x FROM named WITH (retention = '1D')", 'a column "op" of its own'),
        ("DECLARE c SUBSCRIPTION CURSOR FOR t", "not a subscription"),
        ("DROP TABLE t", "subscription changes depends on table t"),
        ("DROP MATERIALIZED VIEW changes", "is not a materialized view"),
    ]:
        assert message in str(own_server.error(statement)), statement
    own_server.query("ALTER SUBSCRIPTION changes RENAME TO history")
    own_server.query("ALTER TABLE t RENAME TO u")
    with own_server.connect() as reader:
        reader.execute("INSERT INTO u VALUES (1, 2)")
        reader.execute("DECLARE c SUBSCRIPTION CURSOR FOR history FULL")
        assert reader.execute("FETCH 5 FROM c").fetchall() == [(1, 2, "Insert", None)]
    # Columns that come, go and get other names.
    own_server.query("ALTER TABLE u ADD COLUMN w INT DEFAULT 5, ADD COLUMN x INT")
    own_server.query("ALTER TABLE u DROP COLUMN w")
    own_server.query("ALTER TABLE u RENAME COLUMN v TO z")
    assert "subscription history depends on" in str(own_server.error("ALTER TABLE u DROP COLUMN z"))
    assert "not supported for subscriptions" in str(own_server.error("ALTER SUBSCRIPTION history RENAME COLUMN v TO z"))
    own_server.query("CREATE SUBSCRIPTION wider FROM u WITH (retention = '1D')")
    own_server.query("INSERT INTO u VALUES (3, 4, 5)")
    with own_server.connect() as reader:
        reader.execute("DECLARE c SUBSCRIPTION CURSOR FOR history FULL")
        assert sorted(reader.execute("FETCH 5 FROM c").fetchall()) == [(1, 2, "Insert", None), (3, 4, "Insert", None)]
        reader.execute("DECLARE d SUBSCRIPTION CURSOR FOR wider FULL")
        assert sorted(reader.execute("FETCH 5 FROM d").fetchall(), key=str) == [(1, 2, None, "Insert", None), (3, 4, 5, "Insert", None)]
    own_server.query("DROP SUBSCRIPTION wider")
    own_server.query("DROP SUBSCRIPTION history")
    own_server.query("DROP TABLE u")
