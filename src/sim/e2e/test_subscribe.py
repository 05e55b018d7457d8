"""SUBSCRIBE: a relation's rows and then its changes, epoch by epoch, while a client is connected."""

import random
import threading
import time

import psycopg
import pytest
from harness import eventually


class Follower:
    """Folds what SUBSCRIBE sends, in a thread of its own."""

    def __init__(self, server, what, copy=False):
        self.rows, self.epochs, self.error = {}, [], None
        self.connection = server.connect(autocommit=True)
        self.thread = threading.Thread(target=self.copied if copy else self.streamed, args=(what,))
        self.thread.start()

    def take(self, row, op, epoch):
        self.epochs.append(epoch)
        count = self.rows.get(row, 0) + (1 if op == "Insert" else -1)
        assert count >= 0, (row, op)
        self.rows[row] = count
        if count == 0:
            del self.rows[row]

    def streamed(self, what):
        try:
            with self.connection.cursor() as cursor:
                for *row, op, epoch in cursor.stream(f"SUBSCRIBE TO {what}"):
                    self.take(tuple(row), op, epoch)
        except (psycopg.Error, AssertionError) as error:
            self.error = error

    def copied(self, what):
        try:
            with self.connection.cursor() as cursor, cursor.copy(f"COPY (SUBSCRIBE TO {what}) TO STDOUT") as copy:
                for line in copy:
                    *row, op, epoch = bytes(line).decode().rstrip("\n").split("\t")
                    self.take(tuple(int(value) for value in row), op, int(epoch))
        except (psycopg.Error, AssertionError) as error:
            self.error = error

    def end(self):
        self.connection.cancel()
        self.thread.join(20)
        assert self.error is not None and self.error.sqlstate == "57014", self.error
        self.connection.close()

    def shows(self, server, query):
        expected = {}
        for row in server.query(query):
            expected[tuple(row)] = expected.get(tuple(row), 0) + 1
        return self.rows == expected


def change(server, chance):
    key = chance.randrange(60)
    server.query(chance.choice([
        f"INSERT INTO t SELECT g, g % 5, {chance.randrange(9)} FROM generate_series({key}, {key + chance.randrange(9)}) g ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        f"UPDATE t SET v = v + 1 WHERE id % 7 = {key % 7}",
        f"UPDATE t SET g = (g + 1) % 5 WHERE id % 5 = {key % 5}",
        f"DELETE FROM t WHERE id = {key} OR id % 11 = {key % 11}",
    ]))


@pytest.fixture
def filled(own_server):
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, g INT, v INT)")
    own_server.query("INSERT INTO t SELECT g, g % 5, 1 FROM generate_series(1, 20000) g")
    own_server.query("CREATE MATERIALIZED VIEW sums AS SELECT g, count(*)::int AS n, sum(v)::int AS s FROM t GROUP BY g")
    own_server.query("CREATE MATERIALIZED VIEW copies AS SELECT g, v FROM t")
    return own_server


@pytest.mark.parametrize("copy", [False, True])
def test_rows_and_changes_add_up_to_the_relation(filled, copy):
    queries = {"t": "SELECT id, g, v FROM t", "sums": "SELECT g, n, s FROM sums", "copies": "SELECT g, v FROM copies"}
    followers = {what: Follower(filled, what, copy) for what in queries}
    chance = random.Random(5)
    for _ in range(60):
        change(filled, chance)
    for what, query in queries.items():
        eventually(lambda: followers[what].shows(filled, query))
        assert followers[what].epochs == sorted(followers[what].epochs)
    # What comes is there at once, not when there is more of it.
    filled.query("INSERT INTO t VALUES (-1, 0, 100)")
    eventually(lambda: (-1, 0, 100) in followers["t"].rows, timeout=5)
    for follower in followers.values():
        follower.end()


def test_without_a_snapshot_only_changes_come(filled):
    follower = Follower(filled, "t WITH (snapshot = false)")
    time.sleep(0.5)
    filled.query("INSERT INTO t VALUES (-5, 1, 2)")
    eventually(lambda: follower.rows == {(-5, 1, 2): 1})
    follower.end()


def test_one_that_follows_ends_with_what_it_follows(filled):
    follower = Follower(filled, "copies")
    eventually(lambda: len(follower.rows) > 0)
    filled.query("DROP MATERIALIZED VIEW copies")
    follower.thread.join(20)
    assert follower.error.sqlstate == "42P01"
    assert 'relation "copies" was dropped or replaced' in str(follower.error)


def test_what_cannot_be_followed_is_refused(kafka, filled, unique):
    topic = kafka.create_topic(unique("followed"), 1)
    filled.query(f"CREATE SOURCE s (a INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON")
    filled.query("CREATE VIEW plain AS SELECT * FROM t")
    filled.query("CREATE USER eve")
    for statement, state, message in [
        ("SUBSCRIBE TO s", "0A000", '"s" is a source, which keeps no rows to follow'),
        ("SUBSCRIBE plain", "0A000", '"plain" is a view, which keeps no rows to follow'),
        ("SUBSCRIBE TO nothing", "42P01", 'relation "nothing" does not exist'),
        ("SUBSCRIBE TO t WITH (progress = true)", "22023", 'unrecognized option "progress" of SUBSCRIBE'),
        ("SUBSCRIBE TO t WITH (snapshot = 7)", "22023", '"7" is no value of snapshot'),
        ("COPY (SUBSCRIBE TO t) FROM STDIN", "42601", "COPY of changes goes TO STDOUT"),
    ]:
        with pytest.raises(psycopg.Error) as raised:
            filled.query(statement)
        assert (raised.value.sqlstate, raised.value.diag.message_primary) == (state, message), statement
    with filled.connect(user="eve") as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute("SUBSCRIBE TO t")
    assert raised.value.sqlstate == "42501"


def test_a_client_that_reads_nothing_holds_up_nobody(filled):
    with filled.connect(autocommit=True) as slow:
        cursor = slow.cursor()
        stream = cursor.stream("SUBSCRIBE TO t")
        next(stream)
        chance = random.Random(6)
        for _ in range(40):
            change(filled, chance)
        follower = Follower(filled, "t")
        eventually(lambda: follower.shows(filled, "SELECT id, g, v FROM t"))
        follower.end()
        slow.cancel()
        with pytest.raises(psycopg.Error):
            for _ in stream:
                pass
