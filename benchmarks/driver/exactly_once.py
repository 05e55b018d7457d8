"""Kafka to Kafka, exactly once: a query from topics into a topic, one transaction an epoch. What the topic has at read_committed is counted: each row once, or it fails.

`matches` is the demo's query: mutual likes over an upsert topic, a self join whose answers are taken back by unlikes.
"""

import time

from confluent_kafka import Consumer, TopicPartition

from . import perf
from .nexmark import create_sources, figures, reads, text_of, wait_delivered, wait_read
from .server import Server
from .topics import fill_likes, fill_nexmark

MATCHES = """SELECT a.liker AS person_a, a.liked AS person_b, greatest(a.at, b.at) AS matched_at
FROM likes a JOIN likes b ON a.liker = b.liked AND a.liked = b.liker WHERE a.liker < a.liked"""


def measure(name, args, broker):
    """One query."""
    topic = broker.create(f"out_{name}")
    try:
        return matches(topic, args, broker) if name == "matches" else nexmark(name, topic, args, broker)
    finally:
        broker.delete(topic)


def nexmark(name, topic, args, broker):
    prefix, text = fill_nexmark(broker, args.events), text_of(name)
    with Server(args.workers) as server:
        create_sources(server, args.events, broker=broker, prefix=prefix)
        with perf.recording(server, args.perf, f"{name}-kafka"):
            cpu, began = server.cpu_seconds(), time.monotonic()
            server.query(f"CREATE SINK result AS {text} WITH ({broker.options(topic)}) FORMAT PLAIN ENCODE JSON")
            wait_read(server, reads(name), args.events)
            wait_delivered(server)
            seconds = time.monotonic() - began
        line = figures(server, seconds, cpu, name, args, "kafka", "exactly_once")
        expected = server.value(f"SELECT count(*) FROM ({text}) AS answer")
    written = broker.count(topic, committed=True)
    if written != expected:
        raise RuntimeError(f"{name}: the topic has {written} records, the query {expected} rows")
    return {**line, "output_rows": written}


def matches(topic, args, broker):
    likes, expected = fill_likes(broker, args.events)
    with Server(args.workers) as server:
        with perf.recording(server, args.perf, "matches"):
            cpu, began = server.cpu_seconds(), time.monotonic()
            server.query(f"CREATE SOURCE likes (liker VARCHAR, liked VARCHAR, at TIMESTAMP, PRIMARY KEY (liker, liked)) WITH ({broker.options(likes)}) FORMAT UPSERT ENCODE JSON")
            server.query(f"CREATE SINK result AS {MATCHES} WITH ({broker.options(topic)}, primary_key = 'person_a,person_b') FORMAT UPSERT ENCODE JSON")
            server.wait(lambda: int(server.jobs()["likes"]["Rows"]) >= args.events)
            server.query("FLUSH")
            wait_delivered(server)
            seconds = time.monotonic() - began
        line = figures(server, seconds, cpu, "matches", args, "kafka", "exactly_once")
    written = len(upserts(broker, topic))
    if written != expected:
        raise RuntimeError(f"matches: the topic says {written} matches, there are {expected}")
    return {**line, "output_rows": written}


def upserts(broker, topic):
    """What an upsert topic says at its end."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "bench", "isolation.level": "read_committed", "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = broker.admin.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    state, left = {}, len(partitions)
    while left:
        for message in consumer.consume(50_000, 0.1):
            if message.error():
                left -= 1
            elif message.value() is None:
                state.pop(message.key(), None)
            else:
                state[message.key()] = message.value()
    consumer.close()
    return state
