"""Formats of records end to end: Debezium's messages with and without schemas, arrays and JSON, and sinks whose records say their schema."""

import json
from datetime import date, datetime, time, timezone
from decimal import Decimal

import pytest
from harness import eventually

FIELDS = [
    {"type": "int32", "optional": False, "field": "id"},
    {"type": "bytes", "optional": True, "name": "org.apache.kafka.connect.data.Decimal", "version": 1, "parameters": {"scale": "2", "connect.decimal.precision": "10"}, "field": "price"},
    {"type": "int32", "optional": True, "name": "io.debezium.time.Date", "version": 1, "field": "day"},
    {"type": "int64", "optional": True, "name": "io.debezium.time.MicroTimestamp", "version": 1, "field": "made"},
    {"type": "string", "optional": True, "name": "io.debezium.time.ZonedTimestamp", "version": 1, "field": "sent"},
    {"type": "string", "optional": True, "name": "io.debezium.data.Json", "version": 1, "field": "doc"},
    {"type": "array", "items": {"type": "string", "optional": True}, "optional": True, "field": "tags"},
    {"type": "array", "items": {"type": "int32", "optional": True}, "optional": True, "field": "Counts"},
    {"type": "bytes", "optional": True, "field": "raw"},
]
COLUMNS = "id INT PRIMARY KEY, price NUMERIC(10, 2), day DATE, made TIMESTAMP(6), sent TIMESTAMPTZ, doc JSONB, tags TEXT[], counts INT[], raw BYTEA"
ROW = {"id": 1, "price": "BNI=", "day": 19782, "made": 1709210096789123, "sent": "2024-02-29T12:34:56.789Z", "doc": '{"a": [1.50]}', "tags": ["x", None], "Counts": [1, 2], "raw": "AP8="}
VALUES = (1, Decimal("12.34"), date(2024, 2, 29), datetime(2024, 2, 29, 12, 34, 56, 789123), datetime(2024, 2, 29, 12, 34, 56, 789000, timezone.utc), '{"a": [1.50]}', ["x", None], [1, 2], b"\x00\xff")
SELECT = "SELECT id, price, day, made, sent, doc::text, tags, counts, raw FROM "


def event(before, after, op, schema):
    payload = {"before": before, "after": after, "source": {"version": "2.5.0.Final"}, "op": op, "ts_ms": 1}
    if not schema:
        return payload
    row = lambda name: {"type": "struct", "fields": FIELDS, "optional": True, "name": "s.public.t.Value", "field": name}
    fields = [row("before"), row("after"), {"type": "string", "optional": False, "field": "op"}]
    return {"schema": {"type": "struct", "fields": fields, "optional": False, "name": "s.public.t.Envelope"}, "payload": payload}


def key(id, schema):
    if not schema:
        return {"id": id}
    return {"schema": {"type": "struct", "fields": FIELDS[:1], "optional": False, "name": "s.public.t.Key"}, "payload": {"id": id}}


@pytest.mark.parametrize("schema", [True, False])
def test_debezium_with_and_without_schemas(kafka, server, unique, schema):
    topic, table = kafka.create_topic(unique("shop"), 1), unique("shop")
    second = {**ROW, "id": 2}
    kafka.produce(topic, [(key(1, schema), event(None, ROW, "c", schema)), (key(2, schema), event(None, second, "r", schema)), (key(2, schema), event(second, None, "d", schema)), (key(2, schema), None)])
    server.run(f"CREATE TABLE {table} ({COLUMNS}) WITH ({kafka.options(topic)}) FORMAT DEBEZIUM ENCODE JSON (time.precision.mode = 'adaptive');")
    (row,) = server.query(SELECT + table)
    assert (*row[:-1], bytes(row[-1])) == VALUES
    # a row without its event, in the same envelope
    flat = kafka.create_topic(unique("flat"), 1)
    value = {"schema": {"type": "struct", "fields": FIELDS, "optional": False}, "payload": ROW} if schema else {**ROW, "price": "12.34", "raw": "\\x00ff", "doc": {"a": [1.5]}}
    kafka.produce(flat, [(key(1, schema), value)])
    server.run(f"CREATE TABLE {table}_flat ({COLUMNS}) WITH ({kafka.options(flat)}) FORMAT UPSERT ENCODE JSON;")
    (row,) = server.query(SELECT + f"{table}_flat")
    assert row[0:4] == VALUES[0:4] and row[6:8] == VALUES[6:8] and bytes(row[8]) == VALUES[8]


def test_sinks_with_schemas_are_read_back(kafka, server, unique):
    name, topic = unique("typed"), kafka.create_topic(unique("typed"), 1)
    server.run(f"CREATE TABLE {name} ({COLUMNS}, at TIME, free NUMERIC);\n"
               f"INSERT INTO {name} VALUES (1, 12.34, '2024-02-29', '2024-02-29 12:34:56.789123', '2024-02-29 12:34:56.789Z', '{{\"a\": [1.50]}}', ARRAY['x', NULL], ARRAY[1, 2], '\\x00ff', '12:34:56.5', 1.500), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);\n"
               f"CREATE SINK {name}_out FROM {name} WITH ({kafka.options(topic)}) FORMAT DEBEZIUM ENCODE JSON (schemas.enable = 'true');\n"
               f"CREATE TABLE {name}_back ({COLUMNS}, at TIME, free NUMERIC) WITH ({kafka.options(topic)}) FORMAT DEBEZIUM ENCODE JSON;")
    rows = lambda table: server.query(f"SELECT id, price, day, made, sent, doc::text, tags, counts, raw, at, free FROM {table} ORDER BY id")
    eventually(lambda: rows(f"{name}_back") == rows(name))
    assert rows(name)[0][9:] == (time(12, 34, 56, 500000), Decimal("1.500"))
    server.run(f"DELETE FROM {name} WHERE id = 2;")
    eventually(lambda: rows(f"{name}_back") == rows(name))
    first = min(kafka.read(topic), key=lambda record: record.offset)
    assert set(first.value) == {"schema", "payload"} and first.key["payload"]["id"] in (1, 2)
    assert json.dumps(first.value["schema"]).count("org.apache.kafka.connect.data.Decimal") == 2


def test_arrays_and_faults(kafka, server, unique):
    topic, source = kafka.create_topic(unique("arrays"), 1), unique("arrays")
    kafka.produce(topic, [(None, value) for value in ({"A": [1, None, 3], "j": {"b": [1], "a": None}}, {"A": [1, "x"], "j": 2}, {"A": [], "j": "s"}, {"A": [[1]], "j": [3]})])
    server.run(f"CREATE TABLE {source} (a INT[], j JSONB) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;")
    assert sorted(server.query(f"SELECT a, j::text FROM {source}"), key=str) == [([1, None, 3], '{"a": null, "b": [1]}'), ([], '"s"')]
    faults = [tuple(row) for row in server.query(f"SELECT \"column\", message FROM tidemark.errors WHERE relation = '{source}'")]
    assert sorted(faults) == [("a", "an array of type integer[] cannot have more than one dimension"), ("a", 'invalid input syntax for type integer: "x"')]
    error = server.error(f"CREATE SOURCE {source}_2 (a INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON (decimal.handling.mod = 'precise')")
    assert error.sqlstate == "22023", error
