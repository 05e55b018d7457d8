"""The judges are judged: what the other tests trust must see a doubled, a lost and an uncommitted record."""

import subprocess

import pytest
from confluent_kafka import Producer
from harness import ROOT, Record, replay_debezium, replay_upserts


def records(*pairs):
    return [Record(0, offset, {"id": key}, value, 0) for offset, (key, value) in enumerate(pairs)]


def test_replay_upserts():
    assert replay_upserts(records((1, {"x": 1}), (2, {"x": 5}), (1, {"x": 2}), (2, None))) == {(("id", 1),): {"x": 2}}
    for twice in ([(1, {"x": 1}), (1, {"x": 1})], [(1, {"x": 1}), (1, None), (1, None)], [(1, None)]):
        with pytest.raises(AssertionError, match="repeats"):
            replay_upserts(records(*twice))


def test_replay_debezium():
    change = lambda before, after: {"before": before, "after": after}
    assert replay_debezium(records((1, change(None, {"x": 1})), (1, change({"x": 1}, {"x": 2})), (2, change(None, {"x": 3})), (2, change({"x": 3}, None)))) == {(("id", 1),): {"x": 2}}
    with pytest.raises(AssertionError, match="before is"):
        replay_debezium(records((1, change(None, {"x": 1})), (1, change(None, {"x": 1}))))
    with pytest.raises(AssertionError, match="before is"):
        replay_debezium(records((1, change(None, {"x": 1})), (1, change({"x": 2}, {"x": 3}))))


def test_reading_sees_committed_records_only(kafka, unique):
    topic = kafka.create_topic(unique("judged"), 2)
    kafka.produce(topic, [({"id": n}, {"x": n}) for n in range(20)])
    producer = Producer({"bootstrap.servers": kafka.broker, "log_level": 0, "transactional.id": topic})
    producer.init_transactions()
    for commit in (False, True, None):
        producer.begin_transaction()
        producer.produce(topic, b'{"x": "%d"}' % bool(commit), b'{"id": 100}')
        producer.flush()
        if commit is not None:
            producer.commit_transaction() if commit else producer.abort_transaction()
    # the last transaction is open: its record, and an aborted one's, are not there
    found = kafka.read(topic)
    assert sorted(record.value["x"] for record in found if record.key["id"] < 100) == list(range(20))
    assert [record.value for record in found if record.key["id"] == 100] == [{"x": "1"}]


def test_what_kafka_sh_writes(kafka, unique):
    """`kafka.sh write`: a key and a value, a value alone, a deletion."""
    topic = kafka.create_topic(unique("written"))
    lines = '{"id":1} => {"x":"a, b = c"}\n{"x":2}\n{"id":1} => NULL\n'
    command = [ROOT / "docker" / "kafka.sh", "write", topic, "--port", str(kafka.port), "--dir", str(kafka.folder)]
    subprocess.run(command, input=lines.encode(), check=True, timeout=60)
    assert [(record.key, record.value) for record in kafka.read(topic)] == [({"id": 1}, {"x": "a, b = c"}), (None, {"x": 2}), ({"id": 1}, None)]
