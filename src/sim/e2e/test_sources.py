"""Sources: start positions, included columns, shared readers and views that are created while data flows."""

import threading
import time

import pytest
from harness import Poller, eventually, to_json


def test_backfill_while_loading(kafka, server, unique):
    """A view created under load agrees, from its first reading on, with an older one over the same source: both in one query, so at one cut."""
    topic, source = kafka.create_topic(unique("flow"), 4), unique("flow")
    stop, sent = threading.Event(), [0]

    def load():
        while not stop.is_set():
            sent[0] += kafka.produce(topic, [({"id": sent[0] + n}, {"id": sent[0] + n, "bucket": n % 7}) for n in range(200)])
            time.sleep(0.01)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    try:
        server.run(f"CREATE SOURCE {source} (id BIGINT, bucket INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
                   f"CREATE MATERIALIZED VIEW {source}_a AS SELECT count(*) AS c, sum(id) AS s FROM {source};")
        time.sleep(1)
        server.query(f"CREATE MATERIALIZED VIEW {source}_b AS SELECT bucket, count(*) AS c, sum(id) AS s FROM {source} GROUP BY bucket")

        def agree(rows):
            ((a, b),) = rows
            assert a == b, f"the views over one source disagree in one reading: {a} and {b}"

        with Poller(server, f"SELECT (SELECT c FROM {source}_a), (SELECT sum(c)::bigint FROM {source}_b)", agree) as poller:
            time.sleep(1.5)
        assert poller.readings > 10
    finally:
        stop.set()
        loading.join(30)
    eventually(lambda: server.query(f"SELECT c, s FROM {source}_a") == [(sent[0], sum(range(sent[0])))])
    assert server.query(f"SELECT sum(c)::bigint, sum(s)::bigint FROM {source}_b") == [(sent[0], sum(range(sent[0])))]


def test_startup_mode_and_includes(kafka, server, unique):
    topic, source = kafka.create_topic(unique("modes"), 1), unique("modes")
    kafka.produce(topic, [(f"k{n}".encode(), {"x": n}) for n in range(5)])
    columns = "INCLUDE KEY AS k INCLUDE PARTITION AS p INCLUDE OFFSET AS o INCLUDE TIMESTAMP AS ts"
    for name, mode in (("early", "earliest"), ("late", "latest")):
        server.run(f"CREATE SOURCE {source}_{name} (x INT) {columns} WITH ({kafka.options(topic, scan__startup__mode=mode)}) FORMAT PLAIN ENCODE JSON;\n"
                   f"CREATE MATERIALIZED VIEW {source}_{name}_v AS SELECT x, k, p, o, ts FROM {source}_{name};")
    kafka.produce(topic, [(f"k{n}".encode(), {"x": n}) for n in range(5, 8)])
    reading = lambda name: sorted(server.query(f"SELECT x, k, p, o FROM {source}_{name}_v"))
    eventually(lambda: reading("early") == [(n, f"k{n}", 0, n) for n in range(8)])
    eventually(lambda: reading("late") == [(n, f"k{n}", 0, n) for n in range(5, 8)])
    stamps = [record.timestamp_ms for record in kafka.read(topic)]
    seen = [row[0] for row in server.query(f"SELECT ts FROM {source}_early_v ORDER BY o")]
    assert [round(moment.timestamp() * 1000) for moment in seen] == stamps


def test_latest_stays_where_it_began(kafka, own_server, unique):
    """`latest` is resolved once: a restart does not skip what came while the server was away."""
    topic = kafka.create_topic(unique("late"), 2)
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(10)])
    own_server.start()
    own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(topic, scan__startup__mode='latest')}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT x FROM s;")
    own_server.kill()
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(10, 20)])
    own_server.start()
    eventually(lambda: sorted(own_server.query("SELECT x FROM v")) == [(n,) for n in range(10, 20)])


def test_transactional_input(kafka, server, unique):
    """Aborted records are not input; the markers in the log are no rows and no standstill."""
    from confluent_kafka import Producer

    topic, source = kafka.create_topic(unique("tx"), 1), unique("tx")
    producer = Producer({"bootstrap.servers": kafka.broker, "log_level": 0, "transactional.id": source})
    producer.init_transactions()
    server.run(f"CREATE SOURCE {source} (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW {source}_v AS SELECT count(*) AS c, sum(x) AS s FROM {source};")
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, f'{{"x": {number}}}'.encode())
        producer.flush()
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    eventually(lambda: server.query(f"SELECT c, s FROM {source}_v") == [(3, 0 + 2 + 4)])
    # the topic ends with markers: CREATE must still see that it has caught up
    server.query(f"CREATE MATERIALIZED VIEW {source}_w AS SELECT x FROM {source}")
    assert sorted(server.query(f"SELECT x FROM {source}_w")) == [(0,), (2,), (4,)]


def test_columns_of_others_do_not_matter(kafka, server, unique):
    """A value that cannot be read is an error of those who read its column: a view has the same rows whether it came before or after another one."""
    topic, source = kafka.create_topic(unique("cols"), 1), unique("cols")
    send = lambda *values: kafka.produce(topic, [(None, value) for value in values])
    read = lambda view: sorted(server.query(f"SELECT y FROM {source}_{view}"))
    server.run(f"CREATE SOURCE {source} (x INT, y VARCHAR, z INT NOT NULL) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
               f"CREATE MATERIALIZED VIEW {source}_early AS SELECT y FROM {source};")
    send({"x": 1, "y": "a", "z": 1}, {"x": "bad", "y": "b", "z": 1}, {"x": 3, "y": "c"}, {"x": 4, "y": "d", "z": "bad"}, b"{broken")
    eventually(lambda: read("early") == [("a",), ("b",), ("c",), ("d",)])
    server.run(f"CREATE MATERIALIZED VIEW {source}_x AS SELECT x, y FROM {source};\nCREATE MATERIALIZED VIEW {source}_z AS SELECT y, z FROM {source};\n"
               f"CREATE MATERIALIZED VIEW {source}_late AS SELECT y FROM {source};")
    send({"x": "bad", "y": "e", "z": 1}, {"x": 6, "y": "f", "z": None})
    expected = {"early": "abcdef", "late": "abcdef", "x": "acdf", "z": "abe"}
    for view, letters in expected.items():
        eventually(lambda view=view, letters=letters: read(view) == [(letter,) for letter in letters])
    assert sorted(server.query(f"SELECT y FROM {source}")) == [(letter,) for letter in "abcdef"]
    assert sorted(server.query(f"SELECT x, y FROM {source}")) == [(1, "a"), (3, "c"), (4, "d"), (6, "f")]
    server.query(f"CREATE MATERIALIZED VIEW {source}_n AS SELECT count(*) AS n FROM {source}")
    assert server.query(f"SELECT n FROM {source}_n") == server.query(f"SELECT count(*) FROM {source}")
    errors = server.query(f'SELECT "offset", "column" FROM tidemark.errors WHERE relation = \'{source}\' ORDER BY 1, 2')
    assert errors == [(1, "x"), (2, "z"), (3, "z"), (4, ""), (5, "x"), (6, "z")], errors


def test_computed_columns(kafka, server, unique):
    """A column that is computed takes nothing from the record, wherever it stands, whatever members the record has."""
    topic, source = kafka.create_topic(unique("computed"), 1), unique("computed")
    kafka.produce(topic, [({"a": 1}, {"a": 1, "c": 5, "b": 77}), ({"a": 2}, {"a": 2, "c": 6})])
    columns = "a INT, b INT AS a + c, c INT NOT NULL"
    server.run(f"CREATE SOURCE {source}_s ({columns}) INCLUDE OFFSET AS o WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
               f"CREATE MATERIALIZED VIEW {source}_v AS SELECT * FROM {source}_s;\nCREATE MATERIALIZED VIEW {source}_w AS SELECT * FROM {source}_s;\n"
               f"CREATE TABLE {source}_u ({columns}, PRIMARY KEY (a)) WITH ({kafka.options(topic)}) FORMAT UPSERT ENCODE JSON;")
    for relation in ("s", "v", "w"):
        assert sorted(server.query(f"SELECT a, b, c, o FROM {source}_{relation}")) == [(1, 6, 5, 0), (2, 8, 6, 1)], relation
    assert sorted(server.query(f"SELECT a, b, c FROM {source}_u")) == [(1, 6, 5), (2, 8, 6)]
    kafka.produce(topic, [({"a": 1}, None)])
    eventually(lambda: server.query(f"SELECT a, b, c FROM {source}_u") == [(2, 8, 6)])


def test_keys_and_bytes(kafka, server, unique):
    """The key of an upsert source: an included one, or columns; with ENCODE BYTES the value is one column beside it."""
    topic, table = kafka.create_topic(unique("keys"), 1), unique("keys")
    kafka.produce(topic, [(b"k one", {"v": 5}), ({"z": 1}, {"v": 6}), (b"k one", None), (b"k3", {"v": 7})])
    options = kafka.options(topic)
    server.run(f"CREATE TABLE {table}_i (v INT, PRIMARY KEY (k)) INCLUDE KEY AS k WITH ({options}) FORMAT UPSERT ENCODE JSON;\n"
               f"CREATE TABLE {table}_b (k VARCHAR PRIMARY KEY, raw BYTEA) WITH ({options}) FORMAT UPSERT ENCODE BYTES KEY ENCODE TEXT;")
    assert sorted(server.query(f"SELECT k, v FROM {table}_i")) == [("k3", 7), ('{"z":1}', 6)]
    assert sorted((k, bytes(raw)) for k, raw in server.query(f"SELECT k, raw FROM {table}_b")) == [("k3", b'{"v":7}'), ('{"z":1}', b'{"v":6}')]


@pytest.mark.parametrize("form, policy", [("UPSERT", "delete"), ("UPSERT", "compact"), ("DEBEZIUM", "delete")])
def test_key_in_two_partitions(kafka, own_server, unique, form, policy):
    """One key in two partitions: the record with the greatest (time of its partition, partition, offset) counts, a deletion like a write, whatever arrives later, over crashes too."""
    topic, now = kafka.create_topic(unique("twice"), 2, cleanup_policy=policy, retention_ms=-1), int(time.time() * 1000)
    marks = [0]

    def write(partition, key, value, timestamp):
        row = None if value is None else {"k": key, "v": value}
        if form == "DEBEZIUM":
            row = {"before": {"k": key}, "after": row, "op": "d" if value is None else "u"}
        kafka.producer().produce(topic, to_json(row), to_json({"k": key}), partition=partition, timestamp=timestamp)

    def read():
        """What is visible when everything that was written to either partition has been read."""
        marks[0] += 1
        for partition, timestamp in ((0, 1000), (1, 1000)):
            write(partition, f"mark {partition}", marks[0], timestamp)
        assert kafka.producer().flush(20) == 0
        eventually(lambda: own_server.query("SELECT v FROM t WHERE k IN ('mark 0', 'mark 1')") == [(marks[0],)] * 2)
        return dict(own_server.query("SELECT k, v FROM t WHERE k NOT LIKE 'mark%'"))

    create = f"(k VARCHAR PRIMARY KEY, v INT) WITH ({kafka.options(topic)}) FORMAT {form} ENCODE JSON"
    own_server.start()
    own_server.run(f"CREATE TABLE t {create};\nCREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(v) AS s FROM t WHERE k NOT LIKE 'mark%';")
    write(1, "a", 1, now)
    write(1, "b", 1, now)
    write(1, "b", None, now + 1)
    assert read() == {"a": 1}
    write(0, "a", 2, 1000)
    write(0, "b", 2, 1500)
    assert read() == {"a": 1}
    for checkpointed in (True, False):
        if checkpointed:
            own_server.query("FLUSH")
        own_server.kill()
        own_server.start()
        write(0, "a", 3, 2000)
        write(0, "b", 3, 2000)
        # the partition has come to `now` before: this record is not older than that
        write(1, "c", 1, 5000)
        assert read()["c"] == 1
        write(0, "c", 2, 6000)
        assert read() == {"a": 1, "c": 1}
    write(0, "a", 9, now + 10)
    write(1, "c", 3, 5000)
    write(1, "c", 4, 4000)
    assert read() == {"a": 9, "c": 4}
    # partition 0 is ahead of the deletion now, and of all that partition 1 says
    write(0, "b", 9, 7000)
    write(1, "a", 10, 8000)
    assert read() == {"a": 9, "b": 9, "c": 4}
    assert own_server.query("SELECT n, s FROM total") == [(3, 22)]
    own_server.query(f"CREATE TABLE again {create}")
    assert sorted(own_server.query("SELECT k, v FROM again")) == sorted(own_server.query("SELECT k, v FROM t"))


@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_late_after_a_crash(kafka, own_server, unique, policy):
    """What is late does not depend on a crash: the largest event time is where the position is, also when the rows come back from the log and are not read again."""
    topic = kafka.create_topic(unique("late"), 1, cleanup_policy=policy)
    send = lambda key, second: kafka.produce(topic, [({"k": key}, {"k": key, "at": f"2024-01-01 12:00:{second:02}"})])
    own_server.start(checkpoint_ms=600_000)
    own_server.query(f"CREATE TABLE t (k VARCHAR PRIMARY KEY, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH ({kafka.options(topic)}) FORMAT UPSERT ENCODE JSON")
    send("first", 30)
    eventually(lambda: own_server.query("SELECT k FROM t") == [("first",)])
    own_server.kill()
    own_server.start(checkpoint_ms=600_000)
    send("late", 24)
    send("not late", 25)
    eventually(lambda: sorted(own_server.query("SELECT k FROM t")) in ([("first",), ("not late",)], [("first",), ("late",), ("not late",)]))
    assert sorted(own_server.query("SELECT k FROM t")) == [("first",), ("not late",)]


def test_on_error(kafka, server, unique):
    """`null` keeps the row with NULL, but not in a column that is NOT NULL; `fail` ends the statement that meets the record, and the source."""
    topic, source = kafka.create_topic(unique("policy"), 1), unique("policy")
    kafka.produce(topic, [(None, value) for value in ({"x": 1, "y": "a"}, {"x": "bad", "y": "b"}, {"x": 3, "y": None}, {"x": 4, "y": "d"})])
    create = lambda policy: f"CREATE SOURCE {source}_{policy} (x INT, y VARCHAR NOT NULL) WITH ({kafka.options(topic, on_error=policy)}) FORMAT PLAIN ENCODE JSON"
    server.run(f"{create('null')};\nCREATE MATERIALIZED VIEW {source}_null_v AS SELECT x, y FROM {source}_null;")
    assert sorted(server.query(f"SELECT y, x FROM {source}_null_v")) == [("a", 1), ("b", None), ("d", 4)]
    assert len(server.query(f"SELECT 1 FROM tidemark.errors WHERE relation = '{source}_null'")) == 2
    server.query(create("fail"))
    where = f'topic "{topic}" partition 0 offset 1 column "x"'
    assert where in str(server.error(f"SELECT x FROM {source}_fail"))
    began = time.monotonic()
    error = server.error(f"CREATE MATERIALIZED VIEW {source}_fail_v AS SELECT x FROM {source}_fail")
    assert error.sqlstate == "22P02" and where in str(error), error
    assert time.monotonic() - began < 10
    assert any(where in str(row) for row in server.query("SHOW JOBS"))
    server.query(f"DROP SOURCE {source}_fail")


def test_new_partitions(kafka, server, unique):
    """Partitions that are added to the topic of a running source are found and read from their beginning."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import NewPartitions

    topic, source = kafka.create_topic(unique("grow"), 1), unique("grow")
    kafka.produce(topic, [(None, {"x": n}) for n in range(5)])
    server.run(f"CREATE SOURCE {source} (x INT) INCLUDE PARTITION AS p WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
               f"CREATE MATERIALIZED VIEW {source}_v AS SELECT p, count(*) AS n FROM {source} GROUP BY p;")
    kafka.admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    eventually(lambda: len(kafka.admin.list_topics(topic, timeout=10).topics[topic].partitions) == 3)
    producer = Producer({"bootstrap.servers": kafka.broker, "log_level": 0})
    for partition in (1, 2, 2):
        producer.produce(topic, b'{"x": 1}', partition=partition)
    assert producer.flush(20) == 0
    eventually(lambda: sorted(server.query(f"SELECT p, n FROM {source}_v")) == [(0, 5), (1, 1), (2, 2)], 60)
    # one that comes later backfills them as well
    server.query(f"CREATE MATERIALIZED VIEW {source}_w AS SELECT p, count(*) AS n FROM {source} GROUP BY p")
    assert sorted(server.query(f"SELECT p, n FROM {source}_w")) == [(0, 5), (1, 1), (2, 2)]


@pytest.mark.parametrize("again", [False, True])
def test_deleted_topic(kafka, server, unique, again):
    """A topic that is deleted under a running source stops it with the reason, also when there is another one under its name: never a silent new beginning."""
    topic, source = kafka.create_topic(unique("gone"), 1), unique("gone")
    kafka.produce(topic, [(None, {"x": n}) for n in range(3)])
    server.run(f"CREATE SOURCE {source} (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW {source}_v AS SELECT count(*) AS c FROM {source};")
    kafka.admin.delete_topics([topic])[topic].result()
    eventually(lambda: topic not in kafka.topics())
    if again:
        kafka.create_topic(topic, 1)
        kafka.produce(topic, [(None, {"x": n}) for n in range(10)])
    reason = "is not the one that was read before" if again else "does not exist any more"

    def stopped():
        return any("stopped" in row and reason in str(row) for row in server.query("SHOW JOBS") if f"{source}_v" in str(row))

    eventually(stopped, 60)
    assert any(reason in str(row) for row in server.query("SHOW JOBS") if topic in str(row))
    # What it had read is still told, and nothing of the new topic.
    assert server.query(f"SELECT c FROM {source}_v") == [(3,)]
    server.query(f"DROP SOURCE {source} CASCADE")


def test_idle_and_observability(server):
    """/metrics, /health, and the SHOW statements answer."""
    server.run("""CREATE TABLE observed (x INT);
        INSERT INTO observed VALUES (1), (2);
        CREATE MATERIALIZED VIEW observed_sum AS SELECT sum(x) AS s FROM observed;
        CREATE SINK observed_out FROM observed WITH (connector = 'blackhole');
        INSERT INTO observed VALUES (3);
        FLUSH;""")
    figures = dict(line.rsplit(" ", 1) for line in server.metrics().splitlines() if not line.startswith("#"))
    assert int(figures['tidemark_epoch{state="decided"}']) >= int(figures['tidemark_epoch{state="published"}']) > 0
    assert int(figures['tidemark_checkpoint{figure="epoch"}']) > 0
    assert figures['tidemark_job_running{job="public.observed",kind="table"}'] == "1"
    # rows that entered, in the past and live
    assert server.query("SELECT name, progress, rows FROM tidemark.jobs WHERE name LIKE 'public.observed%' ORDER BY name") == [
        ("public.observed", 100.0, 3), ("public.observed_out", 100.0, 3), ("public.observed_sum", 100.0, 3)]
    eventually(lambda: 'tidemark_sink_undelivered_epochs{job="public.observed_out"} 0' in server.metrics().splitlines())
    server.query("DROP TABLE observed CASCADE")
    eventually(lambda: 'job="public.observed' not in server.metrics())
    for what in ("JOBS", "SOURCES", "TABLES", "MATERIALIZED VIEWS", "SINKS", "CHECKPOINTS"):
        server.query(f"SHOW {what}")
