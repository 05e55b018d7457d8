"""Latency under load: from just before a record is handed to the producer, until a SELECT shows it, and until a read_committed consumer of the sink's topic has it.

A process of its own writes bids at a steady rate. Between them the prober writes marked records (negative auctions), 100 a second, over all partitions. One
thread asks `SELECT` for how many of them a view counts, again and again: the moment it says k is the moment the k-th is visible. Another one consumes the sink's
topic. A second view (bids by auction) is kept meanwhile; epochs are shown only when both views have them.
"""

import multiprocessing
import random
import threading
import time

from confluent_kafka import Consumer, TopicPartition

from .nexmark import COLUMNS, create_sources, wait_delivered
from .server import Server
from .topics import PARTITIONS, Broker, put, say

PROBES_PER_SECOND = 100
# A broker that has just started compiles its code for as long, on the cores that are measured.
WARM_UP_SECONDS = 20
CALIBRATION_BIDS = 1_000_000
BID = '{"auction":%d,"bidder":%d,"price":%d,"channel":"channel-%d","url":"https://www.nexmark.com/abc/def/item.htm?query=1&channel_id=%d","date_time":"2025-01-01 00:00:00.123","extra":"%s"}'
VIEWS = {
    "per_auction": "SELECT auction, count(*) AS bids, max(price) AS best FROM bid GROUP BY auction",
    "probes": "SELECT count(*) AS seen FROM bid WHERE auction < 0",
}
SINK = "SELECT auction, bidder, price, date_time FROM bid WHERE mod(auction, 123) = 0 OR auction < 0"


def start(server, broker, topic):
    for name, text in VIEWS.items():
        server.query(f"CREATE MATERIALIZED VIEW {name} AS {text}")
    server.query(f"CREATE SINK result AS {SINK} WITH ({broker.options(topic)}) FORMAT PLAIN ENCODE JSON")


def highest_rate(args, broker):
    """Bids a second that these views and the sink take together: they are created over empty topics, the server is stopped, the topic is filled, the server goes on."""
    prefix = f"calibration_{time.time_ns()}"
    topics = [broker.create(f"{prefix}_{kind}") for kind in [*COLUMNS, "out"]]
    with Server(args.workers) as server:
        create_sources(server, 0, broker=broker, prefix=prefix)
        start(server, broker, f"{prefix}_out")
        server.query("FLUSH")
        server.stop()
        producer, values = broker.producer(), bids(random.Random(7))
        for i in range(CALIBRATION_BIDS):
            put(producer, f"{prefix}_bid", None, values[i % len(values)], i % PARTITIONS)
        producer.flush()
        began = time.monotonic()
        server.start(workers=args.workers)
        server.wait(lambda: int(server.jobs()["bid"]["Rows"]) >= CALIBRATION_BIDS)
        server.query("FLUSH")
        wait_delivered(server)
        rate = CALIBRATION_BIDS / (time.monotonic() - began)
    for topic in topics:
        broker.delete(topic)
    return round(rate)


def bids(draw):
    """Many bids as JSON."""
    return [BID % (1000 + draw.randrange(20_000), draw.randrange(10_000), draw.randrange(10**8), draw.randrange(10_000), draw.randrange(10**9), "x" * 68) for _ in range(20_000)]


def load(address, topic, rate, seconds, written):
    """Writes `rate` bids a second in batches that go out at most every 5 ms; `written` counts them."""
    producer, values = Broker(address).producer(**{"linger.ms": 5}), bids(random.Random(7))
    size = max(1, min(500, rate // 200))
    batches = [[{"value": value} for value in values[at:at + size]] for at in range(0, len(values) - size, size)]
    began, sent, turn = time.monotonic(), 0, 0
    while (now := time.monotonic() - began) < seconds:
        while sent + size <= now * rate:
            sent += producer.produce_batch(topic, batches[turn % len(batches)], partition=turn % PARTITIONS)
            turn += 1
        producer.poll(0)
        written.value = sent
        time.sleep(0.002)
    producer.flush()


def percentiles(samples):
    """p50, p99 and p99.9 in milliseconds."""
    ordered = sorted(samples)
    at = lambda share: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)  # noqa: E731
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "p99.9_ms": at(0.999)}


class Probes:
    """When each probe was sent, seen by SELECT, and read from the sink's topic."""

    def __init__(self):
        self.sent, self.selected, self.read, self.done = [], [], {}, threading.Event()

    def send(self, broker, topic, seconds):
        producer, draw = broker.producer(**{"linger.ms": 0}), random.Random(3)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number = len(self.sent) + 1
            value = BID % (-number, 1, 1, 1, 1, "probe")
            self.sent.append(time.monotonic())
            put(producer, topic, None, value, number % PARTITIONS)
            producer.poll(0)
            time.sleep(draw.uniform(0, 2 / PROBES_PER_SECOND))
        producer.flush()

    def select(self, server):
        with server.connect() as connection:
            while not self.done.is_set():
                seen = connection.execute("SELECT seen FROM probes").fetchone()[0]
                now = time.monotonic()
                self.selected.extend([now] * (seen - len(self.selected)))
                time.sleep(0.002)

    def consume(self, broker, topic):
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "bench", "isolation.level": "read_committed", "enable.auto.commit": False, "fetch.wait.max.ms": 10})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        while not self.done.is_set():
            for message in consumer.consume(1000, 0.002):
                if message.error() is None and message.value().startswith(b'{"auction":-'):
                    self.read[int(message.value()[12:message.value().index(b",")])] = time.monotonic()
        consumer.close()


def measure(args, broker):
    """One line."""
    highest = None if args.rate else highest_rate(args, broker)
    rate = args.rate or highest // 2
    say(f"latency at {rate} bids a second")
    prefix = f"latency_{time.time_ns()}"
    topics = [broker.create(f"{prefix}_{kind}") for kind in COLUMNS]
    sink, probes, written = broker.create(f"{prefix}_out"), Probes(), multiprocessing.get_context("spawn").Value("q", 0)
    total = args.seconds + WARM_UP_SECONDS
    with Server(args.workers) as server:
        create_sources(server, 0, broker=broker, prefix=prefix)
        start(server, broker, sink)
        loader = multiprocessing.get_context("spawn").Process(target=load, args=(broker.address, f"{prefix}_bid", rate, total + 1, written), daemon=True)
        loader.start()
        time.sleep(WARM_UP_SECONDS)
        before, began = written.value, time.monotonic()
        watchers = [threading.Thread(target=probes.select, args=(server,), daemon=True), threading.Thread(target=probes.consume, args=(broker, sink), daemon=True)]
        for thread in watchers:
            thread.start()
        cpu = server.cpu_seconds()
        probes.send(broker, f"{prefix}_bid", args.seconds)
        achieved = (written.value - before) / (time.monotonic() - began)
        server.wait(lambda: len(probes.selected) >= len(probes.sent) and len(probes.read) >= len(probes.sent), timeout=60, every=0.05)
        probes.done.set()
        for thread in watchers:
            thread.join()
        # It may be behind: one process writes some hundred thousand records a second beside the broker, and the line says how many it did.
        loader.terminate()
        loader.join()
        select = percentiles([seen - sent for sent, seen in zip(probes.sent, probes.selected)])
        read = percentiles([probes.read[i + 1] - sent for i, sent in enumerate(probes.sent)])
        line = {
            "engine": "tidemark", "query": "latency", "events_per_second": round(achieved), "highest_events_per_second": highest, "seconds": args.seconds, "probes": len(probes.sent),
            **{f"select_{k}": v for k, v in select.items()}, **{f"sink_{k}": v for k, v in read.items()},
            "peak_rss_mb": server.peak_rss_mb(), "cpu_seconds": round(server.cpu_seconds() - cpu, 2), "workers": args.workers, "source": "kafka", "sink": "exactly_once",
        }
    for topic in [*topics, sink]:
        broker.delete(topic)
    return line
