"""The broker of the benchmarks, and what fills its topics.

Topics hold the rows of the generator: Tidemark's own `nexmark` source makes them in event order, this module writes them as flat JSON, so both sources
of a query are the same events. PREFIX_person, PREFIX_auction and PREFIX_bid have 4 partitions; event n goes to partition n / 50 mod 4, its key is the id.
A topic that has its records already is kept: the broker's data stays in the cache folder until `run.sh kafka wipe`.
"""

import os
import random
import subprocess
import sys
import time
from datetime import datetime

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from .nexmark import COLUMNS, create_sources, rows_of
from .server import CACHE, ROOT, Server

PORT = int(os.environ.get("BENCH_KAFKA_PORT", 29092))
FOLDER = os.environ.get("BENCH_KAFKA_DIR", CACHE / "bench-kafka")
PARTITIONS = 4
START = datetime(2025, 1, 1)
PRODUCER = {"linger.ms": 20, "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1 << 18, "acks": "1"}


def say(text):
    print(text, file=sys.stderr, flush=True)


class Broker:
    """A running Kafka: the one at `address`, or else the benchmarks' own, which is left running."""

    def __init__(self, address=None):
        self.address = address or f"127.0.0.1:{PORT}"
        if not address:
            words = [ROOT / "docker" / "kafka.sh", "start", "--port", str(PORT), "--dir", FOLDER]
            subprocess.run(words, check=True, stdout=sys.stderr, env={**os.environ, "KAFKA_HEAP": "1g"})
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 2})
        try:
            self.admin.list_topics(timeout=10)
        except KafkaException as error:
            raise SystemExit(f"the broker {self.address} does not answer: {error.args[0].str()}") from None

    def options(self, topic):
        """The inside of `WITH (...)`."""
        return f"connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{self.address}'"

    def create(self, topic, partitions=PARTITIONS):
        """An empty topic; one that was there is deleted first."""
        if topic in self.admin.list_topics(timeout=10).topics:
            self.admin.delete_topics([topic])[topic].result()
            while topic in self.admin.list_topics(timeout=10).topics:
                time.sleep(0.1)
        while True:
            try:
                self.admin.create_topics([NewTopic(topic, partitions, config={"retention.ms": "-1"})])[topic].result()
                return topic
            except Exception as error:
                if "already exists" not in str(error) and "marked for deletion" not in str(error):
                    raise
                time.sleep(0.2)

    def delete(self, topic):
        self.admin.delete_topics([topic])[topic].result()

    def count(self, topic, committed=False):
        """Records of a topic: from its offsets, or, `committed`, by reading them (transactions leave markers and aborted records behind)."""
        if topic not in self.admin.list_topics(timeout=10).topics:
            return 0
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "bench", "isolation.level": "read_committed", "enable.auto.commit": False,
                             "enable.partition.eof": True, "fetch.message.max.bytes": 1 << 23, "queued.max.messages.kbytes": 1 << 16})
        try:
            parts = [TopicPartition(topic, p, 0) for p in self.admin.list_topics(topic, timeout=10).topics[topic].partitions]
            if not committed:
                return sum(high - low for low, high in (consumer.get_watermark_offsets(p, timeout=10) for p in parts))
            consumer.assign(parts)
            left, records = len(parts), 0
            while left:
                for message in consumer.consume(100_000, 0.05):
                    if message.error():
                        left -= 1
                    else:
                        records += 1
            return records
        finally:
            consumer.close()

    def producer(self, **more):
        return Producer({"bootstrap.servers": self.address, **PRODUCER, **more})


def put(producer, topic, key, value, partition=-1):
    """Queues a record, and waits where the queue is full."""
    while True:
        try:
            return producer.produce(topic, value, key, partition)
        except BufferError:
            producer.poll(0.01)


def fill_nexmark(broker, events, prefix=None):
    """Makes sure that the topics have the first `events` events; returns their prefix."""
    prefix = prefix or f"nexmark_{events}"
    missing = [kind for kind in COLUMNS if broker.count(f"{prefix}_{kind}") != rows_of(kind, events)]
    for kind in missing:
        began = time.monotonic()
        with Server(workers=1) as server:
            # One split: the rows come in the order of their events.
            create_sources(server, events, splits=1)
            server.query(f"CREATE SINK reader AS SELECT * FROM {kind} WITH (connector = 'blackhole')")
            server.wait(lambda: int(server.jobs()[kind]["Rows"]) == rows_of(kind, events))
            server.query("FLUSH")
            rows = write_rows(server, broker, kind, broker.create(f"{prefix}_{kind}"))
        if rows != rows_of(kind, events):
            raise RuntimeError(f"{rows} rows of {kind} were written instead of {rows_of(kind, events)}")
        say(f"filled {prefix}_{kind}: {rows} records in {time.monotonic() - began:.0f} s")
    return prefix


def write_rows(server, broker, kind, topic):
    """Copies a source's rows to a topic as JSON: numbers as they are, everything else in quotes (Nexmark's texts need no escapes)."""
    columns = COLUMNS[kind]
    template = "{" + ",".join(f'"{name}":%s' if sql == "BIGINT" else f'"{name}":"%s"' for name, sql in columns) + "}"
    time_at, producer, rows, last = [name for name, _ in columns].index("date_time"), broker.producer(), 0, ""
    seconds, base = "", 0
    with server.connection().cursor() as cursor, cursor.copy(f"COPY (SELECT {', '.join(name for name, _ in columns)} FROM {kind}) TO STDOUT") as copy:
        for block in copy:
            for line in bytes(block).decode().splitlines():
                fields = line.split("\t")
                at = fields[time_at]
                assert at[:19] >= last[:19], f"{kind} rows are not in order: {at} after {last}"
                last = at
                if at[:19] != seconds:
                    seconds = at[:19]
                    base = int((datetime.fromisoformat(seconds) - START).total_seconds()) * 10_000
                event = base + round(float("0" + at[19:]) * 10_000)
                put(producer, topic, fields[0], template % tuple(fields), event // 50 % PARTITIONS)
                rows += 1
    producer.flush()
    return rows


def fill_likes(broker, likes, people=None, seed=1):
    """Topic of likes: random pairs of people, one in twenty an unlike. Returns (topic, the number of matches at its end)."""
    people = people or max(10, int(likes ** 0.5) * 2)
    topic, draw, liked = f"likes_{likes}", random.Random(seed), set()
    fresh = broker.count(topic) != likes
    producer = broker.producer() if fresh else None
    if fresh:
        broker.create(topic)
    for n in range(likes):
        a, b = draw.randrange(people), draw.randrange(people - 1)
        b += b >= a
        gone = draw.random() < 0.05
        (liked.discard if gone else liked.add)((a, b))
        if fresh:
            put(producer, topic, '{"liker":"p%d","liked":"p%d"}' % (a, b), None if gone else '{"at":"2025-01-01 00:00:00.%06d"}' % (n % 1_000_000))
    if fresh:
        producer.flush()
        say(f"filled {topic}")
    return topic, sum(1 for a, b in liked if a < b and (b, a) in liked)
