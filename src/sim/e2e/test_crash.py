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
from harness import Poller, eventually, in_threads, replay_debezium
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


def test_kill_after_creating(kafka, own_server, unique):
    """What a CREATE has returned for is whole after a crash at once, though its input went on and checkpoints were taken while it caught up; and so is what its sink had not delivered."""
    chance = random.Random(SEED)
    topic = kafka.create_topic(unique("numbers"), 4)
    produced = 60_000
    kafka.produce(topic, (({"n": n}, {"n": n, "bucket": n % 97}) for n in range(produced)))
    own_server.start(workers=3, checkpoint_ms=1, epoch_ms=5)
    own_server.run(f"CREATE SOURCE numbers (n BIGINT, bucket BIGINT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
                   "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c FROM numbers;")
    stop = threading.Event()

    def load():
        nonlocal produced
        while not stop.is_set():
            kafka.produce(topic, (({"n": n}, {"n": n, "bucket": n % 97}) for n in range(produced, produced + 500)))
            produced += 500

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    sinks = []
    try:
        for number in range(5):
            own_server.query(f"CREATE MATERIALIZED VIEW v{number} AS SELECT a.bucket, count(*) AS c, sum(b.n) AS s FROM numbers a JOIN numbers b ON a.n = b.n GROUP BY a.bucket")
            if number % 2:
                own_server.kill()
                own_server.start(workers=chance.choice([1, 2, 3]), checkpoint_ms=1, epoch_ms=5)
            sinks.append(kafka.create_topic(unique(f"out{number}"), 2))
            own_server.query(f"CREATE SINK k{number} FROM v{number} WITH ({kafka.options(sinks[-1], primary_key='bucket')}) FORMAT DEBEZIUM ENCODE JSON")
            own_server.kill()
            own_server.start(workers=chance.choice([1, 2, 3]), checkpoint_ms=1, epoch_ms=5)
    finally:
        stop.set()
        loading.join(30)
    expected = sorted((b, len(range(b, produced, 97)), sum(range(b, produced, 97))) for b in range(97))
    for number, sink in enumerate(sinks):
        eventually(lambda number=number: sorted(own_server.query(f"SELECT bucket, c, s FROM v{number}")) == expected)
        eventually(lambda sink=sink: sorted((r["bucket"], r["c"], int(r["s"])) for r in replay_debezium(kafka.read(sink)).values()) == expected)


def test_creations_at_once(own_server):
    """Creations over a source that nobody reads yet: one of them begins its reading, the others catch up with it, whenever each is ready to join."""
    own_server.start()
    for turn in range(5):
        own_server.query(f"CREATE SOURCE bid{turn} (auction BIGINT, price BIGINT) WITH (connector = 'nexmark', nexmark.table.type = 'Bid', nexmark.event.num = '100000')")

        def create(number, turn=turn):
            with own_server.connect() as connection:
                connection.execute(f"CREATE MATERIALIZED VIEW v{turn}_{number} AS SELECT auction % {number + 2} AS k, count(*) AS c FROM bid{turn} GROUP BY 1")

        in_threads(6, create)
        for number in range(6):
            eventually(lambda number=number, turn=turn: own_server.value(f"SELECT sum(c) FROM v{turn}_{number}") == 92_000)


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
    try:
        world.verify(60)
    except AssertionError as error:
        raise AssertionError(f"{error}; {own_server.query('SHOW JOBS')}") from error


def states(server):
    """Each job's state and error, by name without schema."""
    return {row[1].split(".")[-1]: (row[3], row[-1]) for row in server.query("SHOW JOBS")}


def test_killed_again_and_again_while_it_starts(own_server):
    """A `kill -9` during recovery is no proof of guilt: however often, the table is there in the end, and nothing is logged against it."""
    own_server.start(workers=2, checkpoint_ms=100)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY, s TEXT);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;\n"
                   "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 200000) AS g(n);\nFLUSH;\nINSERT INTO t VALUES (0, 'last');")
    own_server.kill()
    for pause in [0.03, 0.06, 0.1] * 4:
        own_server.start(workers=2, wait=False)
        time.sleep(pause)
        own_server.kill()
    own_server.start(workers=2)
    # one that looks as if it ended the process waits for the others first, for seconds
    eventually(lambda: {state for state, _ in states(own_server).values()} == {"running"}, 60)
    assert own_server.query("SELECT c, (SELECT count(*) FROM t) FROM v") == [(200001, 200001)]
    own_server.query("INSERT INTO t VALUES (-1, 'new')")
    assert own_server.query("SELECT c FROM v") == [(200002,)]


def test_a_job_that_ends_the_process_waits_for_the_others(own_server):
    """After three deaths in one job without any progress the others run first; it is tried again by itself, and by a statement."""
    own_server.start(workers=1, checkpoint_ms=600_000)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;\nCREATE MATERIALIZED VIEW w AS SELECT max(id) AS m FROM t;\n"
                   "INSERT INTO t VALUES (1), (2);")
    own_server.kill()
    for _ in range(3):
        # the third job that is built is w
        own_server.start(workers=1, failpoint="recovery.run:3", wait=False)
        assert own_server.wait_exit() == -signal.SIGABRT
    own_server.start(workers=1)
    assert {name: state for name, (state, _) in states(own_server).items()} == {"t": "running", "v": "running", "w": "held back"}
    assert "ended 3 times while it restored or replayed this job" in states(own_server)["w"][1]
    error = own_server.error("SELECT * FROM w")
    assert error.sqlstate == "55000" and "ALTER MATERIALIZED VIEW w RESUME" in error.diag.message_hint
    own_server.run("INSERT INTO t VALUES (3);\nALTER MATERIALIZED VIEW w RESUME;")
    assert own_server.query("SELECT c, m FROM v, w") == [(3, 3)]
    own_server.kill()
    own_server.start(workers=2)
    assert own_server.query("SELECT c, m FROM v, w") == [(3, 3)]


@pytest.mark.parametrize("checkpoint_ms", [100, 600_000])
def test_stopped_view_is_resumed_to_the_recomputed_answer(own_server, checkpoint_ms):
    """A view that stopped is read as of its last complete answer, with a warning, while its table goes on; resumed, also through kills, it is the query over what the table has."""
    own_server.start(checkpoint_ms=checkpoint_ms)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW q WITH (on_error = 'fail') AS SELECT id, 10 / b AS q FROM t;\n"
                   "CREATE MATERIALIZED VIEW s AS SELECT sum(q) AS s FROM q;\nINSERT INTO t VALUES (1, 5), (2, 2);")
    assert own_server.query("SELECT s FROM s") == [(7,)]
    own_server.query("INSERT INTO t VALUES (3, 0)")
    eventually(lambda: states(own_server)["q"][0] == "stopped")
    own_server.run("DELETE FROM t WHERE id = 1;\nINSERT INTO t VALUES (4, 1);")
    for _ in range(2):
        warnings = []
        with own_server.connect() as connection:
            connection.add_notice_handler(lambda d: warnings.append((d.severity, d.message_primary, d.message_hint)))
            assert sorted(connection.execute("SELECT id, q FROM q").fetchall()) == [(1, 2), (2, 5)]
        assert [w[0] for w in warnings] == ["WARNING"] and "division by zero" in warnings[0][1] and "ALTER MATERIALIZED VIEW q RESUME" in warnings[0][2]
        # the cause is still there
        assert "division by zero" in str(own_server.error("ALTER MATERIALIZED VIEW s RESUME"))
        own_server.kill()
        own_server.start(workers=3, checkpoint_ms=checkpoint_ms)
        own_server.run("UPDATE t SET b = 0 WHERE id = 3")
    own_server.query("UPDATE t SET b = 10 WHERE id = 3")
    for _ in range(3):
        own_server.start_statement_and_kill("ALTER MATERIALIZED VIEW s RESUME", 0.02)
        own_server.start(workers=2, checkpoint_ms=checkpoint_ms)
    own_server.query("ALTER MATERIALIZED VIEW s RESUME")
    assert sorted(own_server.query("SELECT id, q FROM q")) == [(2, 5), (3, 1), (4, 10)]
    assert own_server.query("SELECT s FROM s") == [(16,)]
    own_server.query("INSERT INTO t VALUES (5, 10)")
    assert own_server.query("SELECT s FROM s") == [(17,)]
    own_server.kill()
    own_server.start(workers=1)
    assert own_server.query("SELECT s FROM s") == [(17,)] and {state for state, _ in states(own_server).values()} == {"running"}


@pytest.mark.parametrize("missing", [False, True])
def test_a_file_that_is_whole_again(own_server, missing):
    """A file that is damaged or missing at a start holds its job back, by name; the others go on. Whole again, the job goes on by RESUME or at the next start, with every row."""
    own_server.start(workers=2)
    for name in ("t", "u"):
        own_server.run(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW {name}_count AS SELECT count(*) AS c FROM {name};\n"
                       f"INSERT INTO {name} SELECT n FROM generate_series(1, 1000) AS g(n);")
    own_server.query("FLUSH")
    number = next(row[0] for row in own_server.query("SHOW JOBS") if row[1] == "public.t")
    own_server.kill()
    own_server.start(workers=2, checkpoint_ms=600_000)
    own_server.query("INSERT INTO t VALUES (0)")
    own_server.kill()
    for again in range(2):
        # those of the newest checkpoint: the start after a kill deletes what no other names any more
        named = max((own_server.data / "checkpoints" / "manifests").glob("*.json")).read_text()
        files = (own_server.data / "checkpoints" / "tables" / f"{number}-0").glob("*.parquet")
        first, *others = sorted(file for file in files if file.name in named)
        content = first.read_bytes()
        if missing:
            first.unlink()
        else:
            first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        for start in range(2):
            own_server.start(workers=3)
            assert [name for name, (state, _) in states(own_server).items() if state == "held back"] == ["t", "t_count"]
            assert f"checkpoint file tables/{number}-0/{first.name} is {'missing' if missing else 'damaged'}" in states(own_server)["t"][1]
            assert own_server.error("SELECT count(*) FROM t").sqlstate == "55000"
            refused = own_server.error("INSERT INTO t VALUES (-7)")
            assert refused.sqlstate == "55000" and "ALTER TABLE t RESUME" in refused.diag.message_hint
            own_server.run("INSERT INTO u SELECT max(id) + 1 FROM u;\nFLUSH;")
            assert first.name in str(own_server.error("ALTER TABLE t RESUME"))
            if start == 0:
                own_server.kill()
        assert all(file.exists() for file in others)
        if again:
            own_server.kill()
            first.write_bytes(content)
            own_server.start(workers=2)
            eventually(lambda: {state for state, _ in states(own_server).values()} == {"running"})
        else:
            first.write_bytes(content)
            own_server.run("ALTER MATERIALIZED VIEW t_count RESUME;\nFLUSH;")
        assert own_server.query("SELECT c, (SELECT count(*) FROM t) FROM t_count") == [(1001, 1001)]
        own_server.kill()
        own_server.start(workers=2)
        assert own_server.query("SELECT c, (SELECT count(*) FROM t) FROM t_count") == [(1001, 1001)]
        own_server.kill()


def test_sink_far_behind(kafka, own_server, unique):
    """A sink whose broker is away keeps what it has not delivered in its log, more than it keeps in memory, through a crash; then each row arrives once."""
    out = kafka.create_topic(unique("out"), 2)
    own_server.start(workers=2)
    own_server.run("CREATE SOURCE bid (auction BIGINT, price BIGINT) WITH (connector = 'nexmark', nexmark.table.type = 'Bid', nexmark.event.num = '600000', nexmark.rate = '150000');\n"
                   "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(price) AS s FROM bid;\n"
                   f"CREATE SINK bid_out AS SELECT auction, price FROM bid WITH ({kafka.options(out)}) FORMAT PLAIN ENCODE JSON;")
    kafka.stop()
    try:
        eventually(lambda: own_server.value("SELECT c FROM total") == 552_000)
        own_server.query("FLUSH")
        own_server.kill()
        own_server.start(workers=1)
        count, total = own_server.query("SELECT c, s FROM total")[0]
        assert count == 552_000 and states(own_server)["bid_out"][0] == "running"
    finally:
        kafka.start()

    def delivered():
        prices = [record.value["price"] for record in kafka.read(out, 60)]
        assert len(prices) == count and sum(prices) == total, f"{len(prices)} of {count} rows"
        return True

    eventually(delivered, 60, 0.5)


# Two columns of a key: their types, and their values for row g.
KEYS = {
    "int": "g", "bigint": "g * 1000003", "smallint": "g", "date": "date '2024-01-01' + g", "uuid": "lpad(g::text, 32, '0')::uuid", "numeric": "g / 100.0", "timestamp": "timestamp '2024-01-01' + g * interval '1 s'",
    **{f"varchar({length})": f"left('gold, open, paid', {length})" for length in range(1, 14)}, "bytea": "'gold'::bytea", "boolean": "g % 2 = 0",
}


@pytest.mark.parametrize("first", ["int", "bigint", "smallint", "date", "uuid", "numeric", "timestamp"])
def test_rows_of_every_kind_of_key_survive_beside_deleted_ones(own_server, first):
    """A restart puts the rows of many checkpoints together by their keys: one that was deleted or replaced takes no other with it."""
    own_server.start()
    tables = []
    for number, (second, value) in enumerate(KEYS.items()):
        for a, b, name in ((first, second, f"a{number}"), (second, first, f"b{number}")):
            of = {first: KEYS[first], second: value}
            columns = f"{of[a]}, {of[b]}" if a != b else f"{KEYS[a]}, {KEYS[b]}"
            own_server.query(f"CREATE TABLE {name} (x {a}, y {b}, n int, PRIMARY KEY (x, y))")
            own_server.query(f"INSERT INTO {name} SELECT {columns}, g FROM generate_series(1, 1500) AS s(g)")
            tables.append(name)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, k INT, s TEXT);\nINSERT INTO t SELECT g, g % 700, (ARRAY['gold', 'paid', 'open'])[g % 3 + 1] FROM generate_series(1, 3000) AS s(g);\n"
                   "CREATE MATERIALIZED VIEW v AS SELECT k, s, count(*) AS n FROM t GROUP BY k, s;\nFLUSH;\nUPDATE t SET s = 'paid' WHERE id % 5 = 0;")
    for name in tables:
        own_server.query(f"DELETE FROM {name} WHERE n % 3 = 0")
        own_server.query(f"UPDATE {name} SET n = n + 10000 WHERE n % 3 = 1")
    own_server.query("FLUSH")
    state = lambda: {name: sorted(own_server.query(f"SELECT * FROM {name}"), key=str) for name in [*tables, "v"]}
    before = state()
    assert all(len(before[name]) == 1000 for name in tables)
    own_server.kill()
    own_server.start()
    after = state()
    assert [name for name in before if before[name] != after[name]] == []
    assert after["v"] == sorted(own_server.query("SELECT k, s, count(*) FROM t GROUP BY k, s"), key=str)
