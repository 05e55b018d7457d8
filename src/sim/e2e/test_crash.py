"""Crashes: `kill -9` at random and at every named fail-point, under load, with a changing number of workers. Afterwards everything is as if nothing had happened.

The seed of a run is printed; E2E_SEED=n repeats it, E2E_ROUNDS=n kills more often.
"""

import os
import random
import signal
import threading
import time

import psycopg
import pytest
from harness import Poller, eventually
from workload import World

SEED = int(os.environ.get("E2E_SEED", 20261))
ROUNDS = int(os.environ.get("E2E_ROUNDS", 6))
FAILPOINTS = ["log.append", "log.sync", "checkpoint.upload", "checkpoint.manifest", "checkpoint.commit", "sink.begin", "sink.send", "sink.commit", "sink.committed"]


def load_until(world, stop, size=60, pause=0.01):
    """Produces small bursts on a thread until `stop` is set; returns the thread."""

    def run():
        while not stop.is_set():
            world.produce(size)
            time.sleep(pause)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_random_kills(kafka, own_server, unique):
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    world = World(kafka, own_server, unique, SEED)
    world.produce(500)
    own_server.start()
    world.create()
    with Poller(own_server, "SELECT orders FROM order_count", world.count_never_falls):
        for number in range(ROUNDS):
            stop = threading.Event()
            loading = load_until(world, stop)
            time.sleep(chance.uniform(0.05, 2.5))
            own_server.kill()
            # half of the time it is killed again while it recovers
            if chance.random() < 0.5:
                own_server.start(workers=chance.choice([1, 2, 3, 4]), wait=False)
                time.sleep(chance.uniform(0.01, 0.6))
                own_server.kill()
            workers = chance.choice([1, 2, 3, 4])
            began = time.monotonic()
            own_server.start(workers=workers)
            stop.set()
            loading.join(30)
            print(f"round {number}: back with {workers} workers after {time.monotonic() - began:.2f} s, {world.order} orders")
            world.verify()


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_failpoint(failpoint, kafka, own_server, unique):
    chance = random.Random(f"{SEED}{failpoint}")
    world = World(kafka, own_server, unique, SEED)
    world.produce(200)
    own_server.start()
    world.create()
    world.verify()
    own_server.kill()
    with Poller(own_server, "SELECT orders FROM order_count", world.count_never_falls):
        for nth in (1, chance.randrange(2, 6)):
            own_server.start(failpoint=f"{failpoint}:{nth}", wait=False, checkpoint_ms=300)
            stop = threading.Event()
            loading = load_until(world, stop)
            try:
                code = own_server.wait_exit()
            finally:
                stop.set()
                loading.join(30)
            assert code == -signal.SIGABRT, f"the server ended with {code}, not by the fail-point"
        own_server.start(workers=3)
        world.verify()


def test_replay_stops_at_the_cut(kafka, own_server, unique):
    """No checkpoint is taken, so every start replays; and many records wait behind the last cut, which replay must not touch before its last epoch is closed."""
    chance = random.Random(SEED)
    world = World(kafka, own_server, unique, SEED + 3)
    own_server.start()
    world.create()
    own_server.kill()
    for _ in range(6):
        own_server.start(workers=chance.choice([1, 2, 3]), checkpoint_ms=600_000)
        stop = threading.Event()
        loading = load_until(world, stop, size=20)
        time.sleep(chance.uniform(0.3, 0.6))
        own_server.kill()
        stop.set()
        loading.join(30)
        world.produce(1500)
    own_server.start(checkpoint_ms=600_000)
    world.verify()


def test_kill_while_creating(kafka, own_server, unique):
    """A view whose CREATE was cut off is there whole or not at all, and can be created again."""
    chance = random.Random(SEED)
    topic = kafka.create_topic(unique("numbers"), 2)
    kafka.produce(topic, (({"n": n}, {"n": n, "bucket": n % 97}) for n in range(60_000)))
    own_server.start()
    own_server.run(f"CREATE SOURCE numbers (n BIGINT, bucket BIGINT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;")
    create = "CREATE MATERIALIZED VIEW IF NOT EXISTS buckets AS SELECT bucket, count(*) AS c, sum(n) AS s FROM numbers GROUP BY bucket"
    for _ in range(4):
        def attempt():
            try:
                with own_server.connect() as connection:
                    connection.execute(create)
            except psycopg.Error:
                pass

        creating = threading.Thread(target=attempt, daemon=True)
        creating.start()
        time.sleep(chance.uniform(0.0, 0.5))
        own_server.kill()
        creating.join(30)
        own_server.start()
    own_server.query(create)
    assert sorted(own_server.query("SELECT bucket, c, s FROM buckets")) == sorted((b, len(range(b, 60_000, 97)), sum(range(b, 60_000, 97))) for b in range(97))
    own_server.query("DROP MATERIALIZED VIEW buckets")
    own_server.kill()
    own_server.start()
    assert own_server.error("SELECT * FROM buckets").sqlstate == "42P01"


def test_orderly_stop(kafka, own_server, unique):
    """SIGTERM leaves cleanly, and the next start goes on, with other numbers of workers."""
    world = World(kafka, own_server, unique, SEED + 1)
    own_server.start(workers=1)
    world.create()
    for workers in (4, 2):
        world.produce(300)
        assert own_server.stop() == 0
        own_server.start(workers=workers)
        world.verify()


def test_broker_restart(kafka, own_server, unique):
    """The broker goes away under load: Tidemark stays up, answers from what it has, and carries on when the broker is back."""
    world = World(kafka, own_server, unique, SEED + 2)
    own_server.start()
    world.create()
    world.produce(300)
    world.verify()
    kafka.stop()
    time.sleep(1)
    assert own_server.query("SELECT orders FROM order_count") == [(world.order,)]
    kafka.start()
    eventually(lambda: kafka.topics(), 30)
    world.produce(300)
    world.verify(60)
