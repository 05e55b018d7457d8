"""Three nodes that keep one log: any of them takes any statement, and any of them may die, sleep or be lost."""

import base64
import random
import signal
import time

import psycopg
import pytest

from cluster import Cluster
from harness import eventually


@pytest.fixture
def cluster(folder, request):
    cluster = Cluster(folder / request.node.name).start()
    yield cluster
    cluster.kill_all()


def test_any_node_takes_any_statement(cluster):
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)", 1)
    cluster.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(v) AS s FROM t", 2)
    cluster.run("INSERT INTO t SELECT g, g FROM generate_series(1, 100) g", 3)
    for number in cluster.nodes:
        assert cluster.run("SELECT * FROM total", number) == [(100, 5050)]
        rows = cluster.run("SHOW CLUSTER", number)
        assert [row[0] for row in rows] == ["1", "2", "3"]
        assert sorted(row[1] for row in rows) == ["leader", "voter", "voter"]
        assert all(row[2] == "running" for row in rows)
    # A transaction, and an error with its code, through a node that does not lead.
    with cluster.nodes[cluster.followers()[0]].connect(autocommit=False) as connection:
        connection.execute("UPDATE t SET v = v + 1 WHERE id = 1")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
    assert cluster.run("SELECT v FROM t WHERE id = 1") == [(1,)]
    # What does not fit into the log of a cluster is refused, and nothing is lost of the rest.
    eventually(lambda: cluster.refusal("INSERT INTO t SELECT g, g FROM generate_series(1000, 6000000) g") == "54000", 60)
    # Large, and in the log itself: another node has it when the leader is gone.
    cluster.run("INSERT INTO t SELECT g, 0 FROM generate_series(1000, 600999) g ON CONFLICT DO NOTHING")
    cluster.nodes[cluster.leader()].kill()
    assert cluster.run("SELECT c FROM total") == [(600100,)]


def test_all_nodes_do_a_part_of_the_work(cluster, kafka):
    cluster.settled(3)
    vnodes = cluster.vnodes()
    assert sum(vnodes.values()) == 256 and min(vnodes.values()) > 0, vnodes
    source, sink = "spread-in", "spread-out"
    kafka.create_topic(source, 6)
    kafka.create_topic(sink, 1)
    where = f"properties.bootstrap.server = '{kafka.broker}'"
    cluster.run("CREATE TABLE names (k BIGINT PRIMARY KEY, name TEXT)")
    cluster.run("INSERT INTO names SELECT g, 'name ' || g FROM generate_series(0, 99) g")
    cluster.run(f"CREATE SOURCE s (k BIGINT, v BIGINT) WITH (connector = 'kafka', topic = '{source}', {where}) FORMAT PLAIN ENCODE JSON")
    cluster.run("CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS c, sum(v) AS v FROM s GROUP BY k")
    cluster.run("CREATE MATERIALIZED VIEW named AS SELECT s.k, n.name, s.c, s.v FROM sums s JOIN names n ON n.k = s.k")
    cluster.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS keys, sum(c) AS c, sum(v) AS v FROM named")
    cluster.run(f"CREATE SINK o FROM s WITH (connector = 'kafka', topic = '{sink}', {where}, type = 'append-only') FORMAT PLAIN ENCODE JSON")
    sums, sent = {}, 0

    def produce(count):
        nonlocal sent
        records = [{"k": n * 7 % 100, "v": n} for n in range(sent, sent + count)]
        kafka.produce(source, [(None, record) for record in records])
        for record in records:
            c, v = sums.get(record["k"], (0, 0))
            sums[record["k"]] = (c + 1, v + record["v"])
        sent += count

    def is_right():
        rows = cluster.run("SELECT k, name, c, v FROM named ORDER BY k")
        assert rows == [(k, f"name {k}", c, v) for k, (c, v) in sorted(sums.items())]
        assert cluster.run("SELECT * FROM total") == [(len(sums), sent, sum(range(sent)))]
        # By key, as a point and as several.
        for k in (0, 17, 99):
            assert cluster.run(f"SELECT c, v FROM sums WHERE k = {k}") == [sums[k]]
        assert cluster.run("SELECT count(*) FROM sums WHERE k IN (1, 2, 3, 50, 98, 1000)") == [(5,)]
        return True

    produce(5000)
    eventually(is_right)
    # A change of the table that stays with one node reaches rows that are on all.
    cluster.run("UPDATE names SET name = name || '!' WHERE k < 50")
    cluster.run("UPDATE names SET name = left(name, -1) WHERE k < 50")
    eventually(is_right)
    for _ in range(2):
        victim = cluster.followers()[0]
        cluster.nodes[victim].kill()
        produce(1000)
        eventually(is_right)
        assert victim not in [n for n, count in cluster.vnodes().items() if count > 0]
        cluster.start(victim)
        cluster.settled(3)
        produce(1000)
        eventually(is_right)

    def all_there():
        delivered = sorted(record.value["v"] for record in kafka.read(sink))
        assert delivered == list(range(sent)), f"{len(delivered)} of {sent} records"
        return True

    eventually(all_there, 60)


def test_filters_are_evaluated_where_the_rows_are(cluster):
    """The same rows pass as where all rows are sent: an expression in the select list is never asked of other nodes."""
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT, name TEXT, price NUMERIC(10, 2), weight DOUBLE PRECISION, at TIMESTAMPTZ, day DATE, good BOOLEAN)")
    cluster.run("""INSERT INTO t SELECT g, nullif(g % 7, 0), CASE WHEN g % 5 > 0 THEN 'name ' || (g % 20) END, g / 3.0, CASE WHEN g % 11 = 0 THEN 'NaN'::DOUBLE PRECISION ELSE g END,
                TIMESTAMPTZ '2026-01-01 00:00Z' + g * INTERVAL '1 minute', DATE '2026-01-01' + (g % 400)::INT, CASE WHEN g % 3 > 0 THEN g % 3 = 1 END FROM generate_series(1, 5000) g""")
    # Its rows are on all nodes, those of the table on one.
    cluster.run("CREATE MATERIALIZED VIEW m AS SELECT price, n, name, weight, at, day, good, count(*) AS c FROM t GROUP BY price, n, name, weight, at, day, good")
    for relation in ("t", "m"):
        for passes in ("n = 3", "n <> 3 OR name IS NULL", "NOT (n IN (1, 2, NULL))", "name LIKE 'name 1%' AND price > 100.005", "weight > 4990", "weight = 'NaN'", "good IS NOT TRUE",
                       "at BETWEEN '2026-01-02 03:00:00+02' AND '2026-01-02 02:00:00Z'", "day < '2026-01-03'", "at::DATE = '2026-01-02'", "upper(name) = 'NAME 7'", "n < price", "good",
                       "price IS NULL", "n = 3 AND n = 4", "length(name) > 6 AND n IS NOT NULL"):
            asked, counted = cluster.run(f"SELECT (SELECT count(*) FROM {relation} WHERE {passes}), (SELECT coalesce(sum(CASE WHEN {passes} THEN 1 ELSE 0 END), 0) FROM {relation})")[0]
            assert asked == counted, (relation, passes)
        assert cluster.run(f"SELECT count(*) FROM {relation} WHERE n > 6 LIMIT 1") == [(0,)]
        assert len(cluster.run(f"SELECT * FROM {relation} WHERE n > 1 LIMIT 7")) == 7
        assert cluster.refusal(f"SELECT * FROM {relation} WHERE 1 / (n - 3) > 0") == "22012"
        assert cluster.run(f"SELECT count(*) FROM {relation} WHERE 1 / (n - 3) > 0 AND n <> 3") == [(714,)]
        # A plan that is kept, as text and prepared: each run has values of its own.
        with cluster.nodes[cluster.leader()].connect() as connection:
            for k in (1, 2, 3, 4, 4, 5):
                expected = [(len([g for g in range(1, 5001) if g % 7 == k]),)]
                assert connection.execute(f"SELECT count(*) FROM {relation} WHERE n = {k}").fetchall() == expected, (relation, k)
                assert connection.execute(f"SELECT count(*) FROM {relation} WHERE n = %s AND weight IS NOT NULL", (k,), prepare=True).fetchall() == expected, (relation, k)


def test_the_leader_is_killed_again_and_again(cluster, kafka):
    source, sink = "cluster-in", "cluster-out"
    kafka.create_topic(source, 2)
    kafka.create_topic(sink, 1)
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    cluster.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c FROM t")
    cluster.run(f"CREATE SOURCE s (n BIGINT) WITH (connector = 'kafka', topic = '{source}', properties.bootstrap.server = '{kafka.broker}') FORMAT PLAIN ENCODE JSON")
    cluster.run(f"CREATE SINK o FROM s WITH (connector = 'kafka', topic = '{sink}', properties.bootstrap.server = '{kafka.broker}', type = 'append-only') "
                "FORMAT PLAIN ENCODE JSON")
    acknowledged, doubtful, next_id, sent = set(), set(), 0, 0
    for _ in range(4):
        victim = cluster.leader()
        end = time.monotonic() + random.uniform(0.5, 1.5)
        while time.monotonic() < end:
            kafka.produce(source, [(None, {"n": n}) for n in range(sent, sent + 20)])
            sent += 20
            next_id += 1
            try:
                with cluster.nodes[random.choice(list(cluster.nodes))].connect() as connection:
                    connection.execute("INSERT INTO t VALUES (%s)", (next_id,))
                acknowledged.add(next_id)
            except psycopg.Error:
                doubtful.add(next_id)
        cluster.nodes[victim].kill()
        # The others go on; what they had is there.
        rows = {row[0] for row in cluster.run("SELECT id FROM t")}
        assert acknowledged <= rows, f"lost: {sorted(acknowledged - rows)}"
        assert rows <= acknowledged | doubtful
        cluster.start(victim)
        cluster.settled(3)
    count = len(cluster.run("SELECT id FROM t"))
    assert cluster.run("SELECT c FROM total") == [(count,)]

    def all_there():
        delivered = sorted(record.value["n"] for record in kafka.read(sink))
        assert delivered == list(range(sent)), f"{len(delivered)} of {sent} records"
        return True

    eventually(all_there, 60)


def test_a_leader_that_slept_is_not_believed(cluster):
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
    cluster.run("INSERT INTO t VALUES (1, 1)")
    old = cluster.leader()
    sleeper = cluster.nodes[old]
    with sleeper.connect() as asleep:
        assert asleep.execute("SELECT v FROM t").fetchall() == [(1,)]
        sleeper.process.send_signal(signal.SIGSTOP)
        other = next(number for number in cluster.nodes if number != old)
        cluster.run("UPDATE t SET v = 2", other)
        sleeper.process.send_signal(signal.SIGCONT)
        # It may refuse to answer, or break the connection; it may not show what is old.
        try:
            assert asleep.execute("SELECT v FROM t").fetchall() == [(2,)]
        except psycopg.Error as error:
            assert error.sqlstate in (None, "57P01", "57P03"), error
    # It starts anew, and does a part of the work again.
    cluster.settled(3)
    assert cluster.run("SELECT v FROM t", old) == [(2,)]
    assert cluster.members()[old - 1][2] == "running"


def test_without_a_majority_nothing_is_decided_and_nothing_is_shown(cluster):
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    cluster.run("INSERT INTO t VALUES (1)")
    leader = cluster.leader()
    for number in cluster.followers():
        cluster.nodes[number].kill()

    def refuses(statement):
        try:
            with cluster.nodes[leader].connect(options="-c statement_timeout=8000") as connection:
                connection.execute(statement)
            return False
        except psycopg.Error:
            return True

    eventually(lambda: refuses("SELECT * FROM t"), 20)
    assert refuses("INSERT INTO t VALUES (2)")
    back = next(number for number in cluster.nodes if number != leader)
    cluster.start(back)
    assert (1,) in cluster.run("SELECT id FROM t", back)
    cluster.run("INSERT INTO t VALUES (3)", leader)
    assert (3,) in cluster.run("SELECT id FROM t", back)


def test_a_lost_node_is_forgotten_and_a_new_one_takes_its_place(cluster):
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    cluster.run("INSERT INTO t SELECT generate_series(1, 1000)")
    lost = cluster.followers()[0]
    node = cluster.nodes.pop(lost)
    node.kill()
    cluster.run(f"ALTER CLUSTER REMOVE NODE {lost}")
    assert [number for number, _, _ in cluster.members()] == sorted(cluster.nodes)
    eventually(lambda: cluster.refusal("ALTER CLUSTER REMOVE NODE 99") == "42704")
    eventually(lambda: cluster.refusal(f"ALTER CLUSTER REMOVE NODE {cluster.leader()}") == "55006")
    # One with another secret does not come in, one with the right one does.
    wrong = cluster.folder / "wrong.secret"
    wrong.write_text("another secret of enough bytes\n")
    cluster.add(4)
    cluster.start(4, secret=wrong)
    eventually(lambda: "secret" in cluster.nodes[4].log_tail(), 20)
    assert 4 not in [number for number, _, _ in cluster.members()]
    cluster.nodes[4].kill()
    cluster.start(4)
    cluster.settled(3)
    # It has everything: the others may go, one after the other.
    for number in [n for n in cluster.nodes if n != 4]:
        cluster.nodes[number].stop()
        assert len(cluster.run("SELECT id FROM t", 4)) == 1000
        cluster.start(number)
        cluster.settled(3)


def test_a_node_is_drained_while_it_works(cluster, kafka):
    """Also the one that leads: another one leads then. What a sink delivers is there once."""
    source, sink = "drained-in", "drained-out"
    kafka.create_topic(source, 4)
    kafka.create_topic(sink, 1)
    cluster.settled(3)
    cluster.run(f"CREATE SOURCE s (n BIGINT) WITH (connector = 'kafka', topic = '{source}', properties.bootstrap.server = '{kafka.broker}') FORMAT PLAIN ENCODE JSON")
    cluster.run("CREATE MATERIALIZED VIEW sums AS SELECT n % 50 AS k, count(*) AS c, sum(n) AS v FROM s GROUP BY n % 50")
    cluster.run(f"CREATE SINK o FROM s WITH (connector = 'kafka', topic = '{sink}', properties.bootstrap.server = '{kafka.broker}', type = 'append-only') "
                "FORMAT PLAIN ENCODE JSON")
    sent = 0

    def produce():
        nonlocal sent
        kafka.produce(source, [(None, {"n": n}) for n in range(sent, sent + 2000)])
        sent += 2000

    def is_right(number=None):
        expected = sorted((k, len(range(k, sent, 50)), sum(range(k, sent, 50))) for k in range(50))
        assert cluster.run("SELECT * FROM sums ORDER BY k", number) == expected
        return True

    def state_of(number):
        return {n: (role, state) for n, role, state in cluster.members()}[number]

    produce()
    eventually(is_right)
    for number in (cluster.followers()[0], cluster.leader()):
        cluster.run(f"ALTER CLUSTER DRAIN NODE {number}")
        produce()
        eventually(lambda: state_of(number) == ("voter", "drained"), 30)
        assert cluster.vnodes()[number] == 0
        eventually(lambda: is_right(number))
        # It may go: nobody misses it.
        cluster.nodes[number].stop()
        produce()
        eventually(is_right)
        # It remembers, and works again when it is told.
        cluster.start(number)
        eventually(lambda: state_of(number) == ("voter", "drained"), 30)
        cluster.run(f"ALTER CLUSTER RESUME NODE {number}")
        cluster.settled(3)
        produce()
        eventually(is_right)
    assert cluster.refusal("ALTER CLUSTER DRAIN NODE 99") == "42704"
    # All but one can be drained.
    first, second = cluster.followers()
    for number in (first, second):
        cluster.run(f"ALTER CLUSTER DRAIN NODE {number}")
    eventually(lambda: sorted(cluster.vnodes().values()) == [0, 0, 256], 30)
    eventually(lambda: cluster.refusal(f"ALTER CLUSTER DRAIN NODE {cluster.leader()}") == "55000")
    produce()
    eventually(is_right)

    def all_there():
        delivered = sorted(record.value["n"] for record in kafka.read(sink))
        assert delivered == list(range(sent)), f"{len(delivered)} of {sent} records"
        return True

    eventually(all_there, 60)


def test_a_table_that_only_its_topic_writes_is_on_all_nodes(cluster, kafka):
    topic = "only-appended"
    kafka.create_topic(topic, 3)
    cluster.settled(3)
    cluster.run(f"CREATE TABLE a (n BIGINT) APPEND ONLY WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON")
    cluster.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS v FROM a")
    sent = 0

    def produce():
        nonlocal sent
        kafka.produce(topic, [(None, {"n": n}) for n in range(sent, sent + 4000)])
        sent += 4000

    def is_right():
        assert cluster.run("SELECT * FROM total") == [(sent, sum(range(sent)))]
        assert cluster.run("SELECT count(*), count(DISTINCT n) FROM a") == [(sent, sent)]
        return True

    produce()
    eventually(is_right)
    vnodes = {row[2]: row[3] for row in cluster.run("SHOW PLACEMENT") if row[0].endswith(".a")}
    assert len(vnodes) == 3 and all(vnodes.values()), vnodes
    cluster.run("FLUSH")
    for victim in (cluster.followers()[0], cluster.leader()):
        cluster.nodes[victim].kill()
        produce()
        eventually(is_right)
        cluster.start(victim)
        cluster.settled(3)
        eventually(is_right)


def test_a_node_with_another_store_or_key_has_no_part_of_the_work(cluster):
    """What it stores would not be found, what it reads it could not open: it is left out, and says why."""
    cluster.settled(3)
    cluster.run("CREATE SECRET s WITH (backend = 'meta') AS 'a word'")
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    cluster.run("CREATE MATERIALIZED VIEW m AS SELECT id % 10 AS k, count(*) AS c FROM t GROUP BY id % 10")
    cluster.run("INSERT INTO t SELECT generate_series(1, 1000)")
    elsewhere, key = cluster.folder / "elsewhere", cluster.folder / "another.key"
    key.write_text(base64.b64encode(random.randbytes(32)).decode() + "\n")
    for wrong, reason in ((dict(checkpoint_url=f"file://{elsewhere}"), "checkpoint store"), (dict(secret_key_file=key), "sealed with key")):
        victim = cluster.followers()[0]
        cluster.nodes[victim].stop()
        cluster.start(victim, **wrong)
        eventually(lambda: reason in cluster.nodes[victim].log_tail(), 30)
        assert cluster.run("SELECT count(*), sum(c) FROM m") == [(10, 1000)]
        assert cluster.vnodes()[victim] == 0
        cluster.run("FLUSH")
        # One that was to lead has ended with the reason.
        cluster.nodes[victim].kill()
        cluster.start(victim)
        cluster.settled(3)
        assert cluster.run("SELECT count(*), sum(c) FROM m") == [(10, 1000)]


def test_files_of_a_checkpoint_are_merged_wherever_the_rows_are(cluster):
    """The node that leads merges them, also those of tables of which its own workers have no row."""
    cluster.settled(3)
    cluster.run("CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT)")
    for k in range(4):
        cluster.run(f"CREATE MATERIALIZED VIEW v{k} AS SELECT k, count(*) AS c, max(id) AS m FROM t WHERE k = {k} GROUP BY k")
    leader = cluster.nodes[cluster.leader()]
    with leader.connect() as connection:
        for n in range(60):
            connection.execute("INSERT INTO t SELECT %s * 4 + k, k FROM generate_series(0, 3) k", (n,))
            connection.execute("FLUSH")

        def are_few():
            connection.execute("INSERT INTO t VALUES (%s, 0)", (random.randrange(1000, 1 << 40),))
            connection.execute("FLUSH")
            files = int(connection.execute("SHOW CHECKPOINTS").fetchall()[-1][4])
            assert files <= 300, f"{files} files after more than 60 checkpoints of 13 tables"
            return True

        eventually(are_few)
