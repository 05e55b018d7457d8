"""Sinks: what they send, under which key, and from when on."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from harness import Kafka, eventually, replay_upserts


def values(kafka, topic):
    return [record.value for record in kafka.read(topic, timeout=60)]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_snapshot_or_changes_only(kafka, server, unique, delivery):
    """`snapshot = 'false'` sends what changes after CREATE SINK, by its values before and after; the default sends all."""
    table, whole, changes = unique("t"), kafka.create_topic(unique("whole"), 1), kafka.create_topic(unique("changes"), 1)
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, g INT);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT g, count(*) AS n FROM {table} GROUP BY g;\n"
               f"INSERT INTO {table} VALUES (1, 1), (2, 1), (3, 2);")
    sink = lambda name, topic, **more: (f"CREATE SINK {table}_{name} FROM {table}_v WITH ({kafka.options(topic, primary_key='g', delivery=delivery, **more)}) "
                                        "FORMAT DEBEZIUM ENCODE JSON")
    server.query(sink("whole", whole))
    server.query(sink("changes", changes, snapshot="false"))
    server.query(f"DELETE FROM {table} WHERE id = 2")
    eventually(lambda: len(kafka.read(whole)) == 3)
    images = lambda topic: [(value["before"], value["after"]) for value in values(kafka, topic)]
    assert sorted(images(whole)[:2], key=str) == [(None, {"g": 1, "n": 2}), (None, {"g": 2, "n": 1})]
    assert images(whole)[2] == ({"g": 1, "n": 2}, {"g": 1, "n": 1})
    eventually(lambda: images(changes) == [({"g": 1, "n": 2}, {"g": 1, "n": 1})])


@pytest.mark.parametrize("read_before", [False, True])
def test_changes_only_of_a_source(kafka, server, unique, read_before):
    """Also of a plain source, whether or not somebody reads it already: what the topic held when the sink was made is not sent."""
    source, topic, out = unique("s"), kafka.create_topic(unique("in"), 2), kafka.create_topic(unique("out"), 1)
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(50)])
    server.query(f"CREATE SOURCE {source} (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON")
    if read_before:
        server.query(f"CREATE MATERIALIZED VIEW {source}_v AS SELECT x FROM {source}")
    server.query(f"CREATE SINK {source}_k FROM {source} WITH ({kafka.options(out, snapshot='false')}) FORMAT PLAIN ENCODE JSON")
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(50, 60)])
    eventually(lambda: len(kafka.read(out)) >= 10)
    assert sorted(value["x"] for value in values(kafka, out)) == list(range(50, 60))


def test_keys(kafka, server, unique):
    """The record key is an object of the key's columns, or with KEY ENCODE TEXT the bare value of the only one."""
    table, objects, texts = unique("t"), kafka.create_topic(unique("objects"), 1), kafka.create_topic(unique("texts"), 1)
    server.run(f"CREATE TABLE {table} (name VARCHAR PRIMARY KEY, n INT);\nINSERT INTO {table} VALUES ('a b', 1);")
    for topic, name, key in ((objects, "objects", ""), (texts, "texts", " KEY ENCODE TEXT")):
        server.query(f"CREATE SINK {table}_{name} FROM {table} WITH ({kafka.options(topic, primary_key='name')}) FORMAT UPSERT ENCODE JSON{key}")
    server.query(f"DELETE FROM {table}")
    eventually(lambda: [(record.key, record.value) for record in kafka.read(objects)] == [({"name": "a b"}, {"name": "a b", "n": 1}), ({"name": "a b"}, None)])
    eventually(lambda: [(record.key, record.value) for record in kafka.read(texts)] == [(b"a b", {"name": "a b", "n": 1}), (b"a b", None)])


def test_the_same_name_again(kafka, server, unique):
    """A sink that is dropped and made again under its name begins anew, with a marker of its own."""
    table, topic = unique("t"), kafka.create_topic(unique("again"), 1)
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, n INT);\nINSERT INTO {table} VALUES (1, 1), (2, 2);")
    create = f"CREATE SINK {table}_k FROM {table} WITH ({kafka.options(topic, primary_key='id')}) FORMAT UPSERT ENCODE JSON"
    server.query(create)
    eventually(lambda: len(kafka.read(topic)) == 2)
    server.query(f"DROP SINK {table}_k")
    server.query(f"UPDATE {table} SET n = 3 WHERE id = 1")
    server.query(create)
    eventually(lambda: len(kafka.read(topic)) == 4)
    server.query(f"INSERT INTO {table} VALUES (3, 3)")
    eventually(lambda: len(kafka.read(topic)) == 5)
    assert replay_upserts(kafka.read(topic)[2:]) == {(("id", n),): {"id": n, "n": 3 if n == 1 else n} for n in (1, 2, 3)}


def test_force_append_only(kafka, server, unique):
    """Retractions are left out, and a NOTICE says so; both places of the option are known."""
    table = unique("t")
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, g INT);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT g, count(*) AS n FROM {table} GROUP BY g;")
    topics = [kafka.create_topic(unique(name), 1) for name in ("with", "encode")]
    in_with, in_encode = kafka.options(topics[0], force_append_only="true"), kafka.options(topics[1])
    marker = kafka.options("__tidemark_sinks", primary_key="id")
    assert "keep their markers" in server.psql("-c", f"CREATE SINK {table}_marker FROM {table} WITH ({marker}) FORMAT UPSERT ENCODE JSON", check=False)
    assert "drops the retractions" in server.psql("-c", f"CREATE SINK {table}_with FROM {table}_v WITH ({in_with}) FORMAT PLAIN ENCODE JSON", check=False)
    server.query(f"CREATE SINK {table}_encode FROM {table}_v WITH ({in_encode}) FORMAT PLAIN ENCODE JSON (force_append_only = 'true')")
    server.query(f"INSERT INTO {table} VALUES (1, 1)")
    server.query(f"INSERT INTO {table} VALUES (2, 1)")
    server.query(f"DELETE FROM {table}")
    for topic in topics:
        eventually(lambda topic=topic: values(kafka, topic) == [{"g": 1, "n": 1}, {"g": 1, "n": 2}])


def written(kafka, topic):
    """Records in a topic of one partition, committed or not, with those that end transactions."""
    consumer = Consumer({"bootstrap.servers": kafka.broker, "group.id": "e2e"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[1]
    finally:
        consumer.close()


def job(server, name):
    return next(row for row in server.query("SHOW JOBS") if name in row)


ROWS = 500_000


def test_a_snapshot_of_any_size_leaves_in_bounded_transactions(kafka, own_server, unique):
    """A broker that ends transactions after two seconds gets a snapshot that takes longer; also when the server dies in the middle, every row arrives once."""
    out = kafka.create_topic(unique("out"), 1)
    own_server.start()
    own_server.run(f"CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR);\nINSERT INTO t SELECT g, 'row' FROM generate_series(1, {ROWS}) AS s(g);")
    options = kafka.options(out, primary_key="id", properties__transaction__timeout__ms=2000)
    own_server.query(f"CREATE SINK k FROM t WITH ({options}) FORMAT UPSERT ENCODE JSON")
    for part in (ROWS // 10, ROWS // 2):
        eventually(lambda part=part: written(kafka, out) > part, 60)
        own_server.kill()
        own_server.start(workers=3)
    own_server.query("INSERT INTO t VALUES (0, 'last')")
    eventually(lambda: job(own_server, "public.k") and written(kafka, out) > ROWS, 120, 0.5)
    eventually(lambda: sorted(value["id"] for value in values(kafka, out)) == list(range(ROWS + 1)), 60, 1)


@pytest.mark.parametrize("dies", [False, True])
def test_what_was_decided_before_a_source_stopped_is_delivered(kafka, own_server, unique, folder, dies):
    """The sink's broker is away while its source stops by a record that cannot be read: when it is back, all rows of before arrive, each once; also after `kill -9`, and never again."""
    other = Kafka(folder / unique("other")).start()
    try:
        topic, out = kafka.create_topic(unique("in"), 1), other.create_topic(unique("out"), 1)
        own_server.start()
        own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(topic, on_error='fail')}) FORMAT PLAIN ENCODE JSON;\n"
                       "CREATE MATERIALIZED VIEW v AS SELECT x FROM s;\n"
                       f"CREATE SINK k FROM v WITH ({other.options(out)}) FORMAT PLAIN ENCODE JSON;")
        kafka.produce(topic, [(None, {"x": n}) for n in range(10)])
        eventually(lambda: len(other.read(out)) == 10)
        other.stop()
        kafka.produce(topic, [(None, {"x": n}) for n in range(10, 1000)])
        eventually(lambda: own_server.value("SELECT count(*) FROM v") == 1000)
        kafka.produce(topic, [(None, b"{broken")])
        eventually(lambda: "stopped" in job(own_server, "public.k"))
        if dies:
            own_server.kill()
            own_server.start()
        other.start()
        all_once = lambda: sorted(value["x"] for value in values(other, out)) == list(range(1000))
        eventually(all_once, 60)
        own_server.query("FLUSH")
        own_server.kill()
        own_server.start()
        assert "stopped" in job(own_server, "public.k")
        own_server.query("FLUSH")
        assert all_once()
        own_server.query("DROP SINK k")
    finally:
        other.wipe()


@pytest.mark.parametrize("query", ["FROM v", "AS SELECT id, q FROM v WHERE q > 0", "AS SELECT q AS id, count(*) AS q FROM v GROUP BY q"])
@pytest.mark.parametrize("dies", [False, True])
def test_a_resumed_sink_tells_the_difference(kafka, own_server, unique, query, dies):
    """A sink whose view stopped goes on by RESUME, after the view, with what has changed since what it told last: nothing comes twice, and what went meanwhile goes."""
    out = kafka.create_topic(unique("out"), 1)
    own_server.start(checkpoint_ms=200)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW v WITH (on_error = 'fail') AS SELECT id, 60 / b AS q FROM t;\n"
                   "INSERT INTO t VALUES (1, 5), (2, 4), (3, 4), (4, 6);\n"
                   f"CREATE SINK k {query} WITH ({kafka.options(out, primary_key='id')}) FORMAT UPSERT ENCODE JSON;\nUPDATE t SET b = 3 WHERE id = 1;")
    answer = query[3:] if query.startswith("AS") else "SELECT id, q FROM v"
    told = lambda: sorted((value["id"], value["q"]) for value in replay_upserts(kafka.read(out)).values())
    eventually(lambda: told() == sorted(own_server.query(answer)))
    records = len(kafka.read(out))
    own_server.query("INSERT INTO t VALUES (5, 0)")
    eventually(lambda: "stopped" in job(own_server, "public.k"))
    own_server.run("DELETE FROM t WHERE id = 2;\nUPDATE t SET b = 2 WHERE id = 4;")
    for workers in (3, 2) if dies else ():
        own_server.kill()
        own_server.start(workers=workers, checkpoint_ms=200)
    assert "division by zero" in str(own_server.error("ALTER SINK k RESUME"))
    own_server.query("UPDATE t SET b = 10 WHERE id = 5")
    if dies:
        own_server.query("ALTER MATERIALIZED VIEW v RESUME")
        own_server.start_statement_and_kill("ALTER SINK k RESUME", 0.02)
        own_server.start(checkpoint_ms=200)
    own_server.query("ALTER SINK k RESUME")
    own_server.query("INSERT INTO t VALUES (6, 1)")
    eventually(lambda: told() == sorted(own_server.query(answer)))
    # of id (or q) 2 went, 4 changed (or went and came), 5 and 6 came
    assert len(kafka.read(out)) - records <= 6
    own_server.kill()
    own_server.start()
    own_server.run("DELETE FROM t WHERE id = 6;\nFLUSH;")
    eventually(lambda: told() == sorted(own_server.query(answer)))
    assert all("running" in row for row in own_server.query("SHOW JOBS"))


def test_an_open_transaction_of_another_writer_holds_up_no_new_sink(kafka, own_server, unique):
    """Progress of all sinks of a broker is kept in one topic. A writer that died for good leaves a transaction open there, until the broker ends it after a minute; a sink that has nothing behind it need not wait."""
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY)")
    out = [kafka.create_topic(unique(f"out{n}"), 1) for n in range(2)]
    sink = lambda n: own_server.query(f"CREATE SINK k{n} FROM t WITH ({kafka.options(out[n])}) FORMAT UPSERT ENCODE JSON")
    sink(0)
    own_server.query("INSERT INTO t VALUES (1)")
    eventually(lambda: len(kafka.read(out[0])) == 1)
    own_server.kill()
    other = Producer({"bootstrap.servers": kafka.broker, "log_level": 0, "transactional.id": unique("other"), "transaction.timeout.ms": 600_000})
    other.init_transactions(10)
    other.begin_transaction()
    other.produce("__tidemark_sinks", "{}", unique("other"))
    other.flush()
    try:
        own_server.start()
        sink(1)
        own_server.query("INSERT INTO t VALUES (2)")
        for topic in out:
            eventually(lambda: sorted(record.value["id"] for record in kafka.read(topic)) == [1, 2], 60)
    finally:
        other.abort_transaction(10)


def refusing(kafka, unique):
    """A topic that takes no record above 1,000 bytes."""
    return kafka.create_topic(unique("small"), 1, max_message_bytes=1000)


def test_a_refused_record_is_left_out_and_told(kafka, own_server, unique):
    """What the broker does not take goes to the errors, with its key, and holds up nothing; so it is after `kill -9`."""
    out = refusing(kafka, unique)
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR)")
    own_server.query(f"CREATE SINK k FROM t WITH ({kafka.options(out)}) FORMAT UPSERT ENCODE JSON")
    own_server.query("INSERT INTO t SELECT g, repeat('x', CASE WHEN g = 50 THEN 2000 ELSE 20 END) FROM generate_series(1, 100) AS s(g)")
    own_server.query("INSERT INTO t VALUES (101, 'last')")
    arrived = lambda: sorted(value["id"] for value in values(kafka, out)) == [n for n in range(1, 102) if n != 50]
    eventually(arrived, 60)
    errors = "SELECT topic, raw, message FROM tidemark.errors WHERE relation = 'k'"
    expected = [(out, b'{"id":50}', "a record of 2028 bytes is too large for the topic")]
    told = lambda: [(topic, bytes(raw), message) for topic, raw, message in own_server.query(errors)]
    eventually(lambda: told() == expected)
    for _ in range(2):
        own_server.kill()
        own_server.start(checkpoint_ms=300)
        own_server.query("INSERT INTO t VALUES (102, 'more')")
        own_server.query("DELETE FROM t WHERE id = 102")
        eventually(lambda: told() == expected)


def test_a_refused_record_stops_a_sink_that_may_not_leave_it_out(kafka, own_server, unique):
    """With `on_error = 'fail'` delivery stops and says why; when the topic takes the record, the next start delivers everything once."""
    out = refusing(kafka, unique)
    own_server.start()
    own_server.query("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR)")
    own_server.query(f"CREATE SINK k FROM t WITH ({kafka.options(out, on_error='fail')}) FORMAT UPSERT ENCODE JSON")
    own_server.query("INSERT INTO t VALUES (1, 'x')")
    eventually(lambda: len(kafka.read(out)) == 1)
    own_server.query("INSERT INTO t VALUES (2, repeat('x', 2000)), (3, 'y')")
    stopped = eventually(lambda: "stopped" in job(own_server, "public.k") and job(own_server, "public.k"), 60)
    assert any("too large for the topic" in str(field) for field in stopped)
    own_server.query("INSERT INTO t VALUES (4, 'z')")
    assert [value["id"] for value in values(kafka, out)] == [1]
    resource = ConfigResource(ResourceType.TOPIC, out, incremental_configs=[ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)])
    kafka.admin.incremental_alter_configs([resource])[resource].result()
    own_server.kill()
    own_server.start()
    eventually(lambda: sorted(value["id"] for value in values(kafka, out)) == [1, 2, 3, 4], 60)
