"""Sinks: what they send, under which key, and from when on."""

import pytest
from harness import eventually, replay_upserts


def values(kafka, topic):
    return [record.value for record in kafka.read(topic)]


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
    assert "drops the retractions" in server.psql("-c", f"CREATE SINK {table}_with FROM {table}_v WITH ({in_with}) FORMAT PLAIN ENCODE JSON", check=False)
    server.query(f"CREATE SINK {table}_encode FROM {table}_v WITH ({in_encode}) FORMAT PLAIN ENCODE JSON (force_append_only = 'true')")
    server.query(f"INSERT INTO {table} VALUES (1, 1)")
    server.query(f"INSERT INTO {table} VALUES (2, 1)")
    server.query(f"DELETE FROM {table}")
    for topic in topics:
        eventually(lambda topic=topic: values(kafka, topic) == [{"g": 1, "n": 1}, {"g": 1, "n": 2}])
