"""Watermarks: what they close, who holds them back, what is late; across kills, and for a simulated week."""

import datetime
import random
import time

from cluster import Cluster
from harness import eventually

START = datetime.datetime(2026, 1, 1)


def moment(seconds):
    return (START + datetime.timedelta(seconds=seconds)).isoformat(sep=" ")


def send(kafka, topic, partition, *rows):
    """Each row: seconds, key, value."""
    kafka.produce(topic, [(None, {"k": k, "v": v, "at": moment(at)}) for at, k, v in rows], partition=partition)


def source(kafka, name, topic, delay="2 seconds", **options):
    return (f"CREATE SOURCE {name} (k INT, v INT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '{delay}') "
            f"WITH ({kafka.options(topic, **options)}) FORMAT PLAIN ENCODE JSON")


def per_window(name, of, tail="EMIT ON WINDOW CLOSE"):
    return (f"CREATE MATERIALIZED VIEW {name} AS SELECT window_start, k, count(*) AS n, sum(v) AS s "
            f"FROM TUMBLE({of}, at, INTERVAL '10 seconds') GROUP BY window_start, k {tail}")


def read(server, view):
    rows = server.query(f"SELECT window_start, k, n, s FROM {view} ORDER BY 1, 2")
    return [(int((at - START).total_seconds()), k, n, s) for at, k, n, s in rows]


def test_a_window_is_sent_once_when_it_has_closed(kafka, own_server, unique):
    topic, out = kafka.create_topic(unique("closing"), 2), kafka.create_topic(unique("closed"), 1)
    own_server.start()
    own_server.query(source(kafka, "s", topic))
    own_server.query(per_window("v", "s"))
    own_server.query(f"CREATE SINK k FROM v WITH ({kafka.options(out)}) FORMAT PLAIN ENCODE JSON")
    send(kafka, topic, 0, (1, 1, 5), (3, 2, 7), (9, 1, 6), (12, 1, 1))
    send(kafka, topic, 1, (2, 1, 8))
    counted = "SELECT sum(rows) FROM tidemark.jobs WHERE name = 'public.s'"
    eventually(lambda: own_server.value(counted) == 5)
    assert read(own_server, "v") == []
    # The other partition is where the first one was; neither has passed 10 + 2 seconds.
    send(kafka, topic, 1, (11, 2, 1))
    eventually(lambda: own_server.value(counted) == 6)
    assert read(own_server, "v") == []
    send(kafka, topic, 0, (30, 1, 2))
    send(kafka, topic, 1, (13, 2, 2))
    first = [(0, 1, 3, 19), (0, 2, 1, 7)]
    eventually(lambda: read(own_server, "v") == first)
    # Late: its partition has passed its window.
    send(kafka, topic, 0, (5, 1, 100))
    eventually(lambda: own_server.value("SELECT late_rows FROM tidemark.jobs WHERE name = 'public.s'") == 1)
    own_server.kill()
    send(kafka, topic, 1, (31, 1, 3), (45, 1, 1))
    own_server.start(workers=3)
    second = first + [(10, 1, 1, 1), (10, 2, 2, 3)]
    eventually(lambda: read(own_server, "v") == second)
    eventually(lambda: len(kafka.read(out)) == 4)
    sent = [(row["k"], row["n"], row["s"]) for row in (record.value for record in kafka.read(out))]
    assert sorted(sent) == sorted((k, n, s) for _, k, n, s in second)
    held_back = own_server.query("SELECT watermark, held_back_by FROM tidemark.jobs WHERE name = 'public.v'")
    assert held_back == [(START + datetime.timedelta(seconds=28), "public.s, partition 0")]


def test_windows_close_the_same_through_kills(kafka, own_server, unique):
    """Views that emit on close and views that keep all windows agree about the windows that have closed; a view over the first one, too."""
    topic, dice = kafka.create_topic(unique("kills"), 3), random.Random(7)
    own_server.start()
    own_server.query(source(kafka, "s", topic))
    own_server.query(per_window("closed", "s"))
    own_server.query(per_window("all_of_them", "s", ""))
    own_server.query("CREATE MATERIALIZED VIEW above AS SELECT window_start AS w, sum(n)::bigint AS n FROM closed GROUP BY window_start EMIT ON WINDOW CLOSE")
    now = 0
    for lap in range(8):
        for _ in range(20):
            now += dice.randrange(4)
            for partition in range(3):
                rows = [(max(0, now - dice.randrange(3)), dice.randrange(3), dice.randrange(100)) for _ in range(dice.randrange(1, 6))]
                send(kafka, topic, partition, *sorted(rows))
        if lap % 2:
            own_server.kill()
            own_server.start(workers=dice.randrange(1, 4))
    # One row per partition far ahead closes all before it.
    for partition in range(3):
        send(kafka, topic, partition, (now + 100, 0, 0))
    expected = lambda: [row for row in read(own_server, "all_of_them") if row[0] < now + 80]
    eventually(lambda: len(expected()) > 20 and read(own_server, "closed") == expected(), timeout=60)
    totals = own_server.query("SELECT window_start, sum(n)::bigint FROM closed GROUP BY 1 ORDER BY 1")
    eventually(lambda: own_server.query("SELECT w, n FROM above ORDER BY 1") == totals)


def test_a_partition_without_rows_holds_back(kafka, own_server, unique):
    topic = kafka.create_topic(unique("idle"), 2)
    own_server.start()
    own_server.query(source(kafka, "patient", topic))
    own_server.query(per_window("waits", "patient"))
    send(kafka, topic, 0, (1, 1, 5), (25, 1, 6))
    held_back = "SELECT held_back_by FROM tidemark.jobs WHERE name = 'public.waits'"
    eventually(lambda: own_server.value(held_back) == "public.patient, partition 1 (no row yet)")
    assert read(own_server, "waits") == []
    own_server.kill()
    own_server.start()
    send(kafka, topic, 1, (3, 2, 9), (60, 1, 1))
    send(kafka, topic, 0, (60, 1, 1))
    eventually(lambda: read(own_server, "waits") == [(0, 1, 1, 5), (0, 2, 1, 9), (20, 1, 1, 6)])


def test_an_idle_partition_holds_nobody_back(kafka, own_server, unique):
    """What comes to it later and is older is late: for the view that was there, for one that is made later, for a query; after a kill, and when the source begins anew."""
    topic = kafka.create_topic(unique("idle"), 2)
    own_server.start()
    own_server.query(source(kafka, "patient", topic))
    own_server.query(source(kafka, "hasty", topic, idle_timeout="1 second"))
    own_server.query(per_window("waits", "patient"))
    own_server.query(per_window("goes_on", "hasty"))
    # With none but idle partitions nothing moves: one of them gets rows while the other is idle.
    time.sleep(2)
    send(kafka, topic, 0, (1, 1, 5), (25, 1, 6))
    eventually(lambda: read(own_server, "goes_on") == [(0, 1, 1, 5)])
    assert read(own_server, "waits") == []
    jobs = "SELECT watermark, held_back_by FROM tidemark.jobs WHERE name = 'public.{}'"
    assert own_server.query(jobs.format("waits")) == [(None, "public.patient, partition 1 (no row yet)")]
    assert own_server.query(jobs.format("goes_on")) == [(START + datetime.timedelta(seconds=23), None)]
    send(kafka, topic, 1, (3, 2, 9), (24, 2, 4), (26, 2, 9))
    late = "SELECT name, late_rows FROM tidemark.jobs WHERE late_rows > 0"
    eventually(lambda: own_server.query(late) == [("public.hasty", 1)])
    on_time = [(0, 1, 1, 5), (20, 1, 1, 6), (20, 2, 2, 13)]
    rows = [(1, 5), (1, 6), (2, 4), (2, 9)]

    def all_agree(name):
        own_server.query(per_window(name, "hasty", ""))
        assert read(own_server, name) == on_time
        assert own_server.query("SELECT k, v FROM hasty ORDER BY 1, 2") == rows
        assert own_server.value("SELECT count(*) FROM patient") == 5

    eventually(lambda: own_server.value("SELECT count(*) FROM hasty") == 4)
    all_agree("later")
    own_server.kill()
    own_server.start(workers=3)
    all_agree("after_a_kill")
    send(kafka, topic, 0, (60, 1, 1))
    send(kafka, topic, 1, (60, 1, 1))
    eventually(lambda: read(own_server, "waits") == [(0, 1, 1, 5), (0, 2, 1, 9), (20, 1, 1, 6), (20, 2, 2, 13)])
    eventually(lambda: read(own_server, "goes_on") == on_time)
    # Nobody reads it any more; then it is read from its start.
    for view in ("goes_on", "later", "after_a_kill"):
        own_server.query(f"DROP MATERIALIZED VIEW {view}")
    on_time, rows = on_time + [(60, 1, 2, 2)], [(1, 1), (1, 1)] + rows
    assert own_server.query("SELECT k, v FROM hasty ORDER BY 1, 2") == rows
    own_server.query(per_window("anew", "hasty", ""))
    eventually(lambda: read(own_server, "anew") == on_time)


def test_a_restart_does_not_count_as_idleness(kafka, own_server, unique):
    topic = kafka.create_topic(unique("restart"), 2)
    own_server.start()
    own_server.query(source(kafka, "s", topic, idle_timeout="5 seconds"))
    own_server.query(per_window("v", "s"))
    send(kafka, topic, 0, (1, 1, 5), (25, 1, 6))
    eventually(lambda: own_server.value("SELECT count(*) FROM s") == 2)
    time.sleep(2)
    own_server.kill()
    time.sleep(4)
    own_server.start()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert own_server.value("SELECT watermark FROM tidemark.jobs WHERE name = 'public.v'") is None
        time.sleep(0.1)

    def goes_on():
        send(kafka, topic, 0, (25, 1, 6))
        time.sleep(0.3)
        return read(own_server, "v") == [(0, 1, 1, 5)]

    eventually(goes_on)


def test_what_is_late_is_late_for_all_through_kills(kafka, own_server, unique):
    """Partitions fall silent and come back, with old rows at times. Views of all ages, and queries, have the same rows at every rest."""
    topic, dice = kafka.create_topic(unique("silent"), 4), random.Random(11)
    own_server.start(checkpoint_ms=400)
    own_server.query(source(kafka, "s", topic, idle_timeout="300 milliseconds"))
    own_server.query(per_window("closed", "s"))
    own_server.query(per_window("windows", "s", ""))
    own_server.query("CREATE MATERIALIZED VIEW view_0 AS SELECT k, v, at FROM s")
    now, sent = 0, 0
    for lap in range(12):
        silent = dice.sample(range(4), dice.randrange(4))
        for _ in range(6):
            now += dice.randrange(6)
            for partition in set(range(4)) - set(silent):
                rows = [(max(0, now - dice.randrange(3)), partition, sent + n) for n in range(dice.randrange(1, 4))]
                send(kafka, topic, partition, *rows)
                sent += len(rows)
            time.sleep(0.15)
        if silent and lap % 2:
            # Old rows, in whatever moment of the life of its floor.
            send(kafka, topic, silent[0], (max(0, now - 8), silent[0], sent), (now, silent[0], sent + 1))
            sent += 2
        if lap % 3 == 2:
            own_server.kill()
            own_server.start(workers=dice.randrange(1, 4))
        if lap % 2:
            own_server.query(f"CREATE MATERIALIZED VIEW view_{lap} AS SELECT k, v, at FROM s")
    for partition in range(4):
        send(kafka, topic, partition, (now + 100, partition, sent + partition))
    last = f"SELECT count(*) FROM view_0 WHERE v >= {sent}"
    eventually(lambda: own_server.value(last) == 4)
    rows = own_server.query("SELECT k, v, at FROM view_0 ORDER BY v")
    assert sent / 2 < len(rows) < sent + 4, "some rows are late"
    assert own_server.query("SELECT k, v, at FROM s ORDER BY v") == rows
    for lap in (1, 3, 5, 7, 9, 11):
        assert own_server.query(f"SELECT k, v, at FROM view_{lap} ORDER BY v") == rows, lap
    expected = [row for row in read(own_server, "windows") if row[0] < now + 80]
    assert sum(row[2] for row in expected) == len(rows) - 4
    eventually(lambda: read(own_server, "closed") == expected)


def test_idle_partitions_of_a_cluster(kafka, folder, unique):
    """Other nodes than the leader read; the leader dies, and what is late stays late."""
    topic = kafka.create_topic(unique("idle"), 6)
    cluster = Cluster(folder / unique("cluster")).start()
    try:
        cluster.settled(3)
        cluster.run(source(kafka, "s", topic, idle_timeout="1 second"))
        cluster.run(per_window("closed", "s"))
        cluster.run(per_window("windows", "s", ""))
        time.sleep(3)
        for partition in (0, 1, 2):
            send(kafka, topic, partition, (1, partition, 5), (25, partition, 6))
        windows = lambda view, number=None: [row[1:] for row in cluster.run(f"SELECT window_start, k, n, s FROM {view} ORDER BY 1, 2", number)]
        first = [(0, 1, 5), (1, 1, 5), (2, 1, 5)]
        eventually(lambda: windows("closed") == first)
        for partition in (3, 4, 5):
            send(kafka, topic, partition, (3, partition, 9), (26, partition, 9))
        expected = first + [(0, 1, 6), (1, 1, 6), (2, 1, 6), (3, 1, 9), (4, 1, 9), (5, 1, 9)]
        eventually(lambda: windows("windows") == expected)
        for number in cluster.nodes:
            assert cluster.run("SELECT count(*) FROM s", number) == [(9,)]
        cluster.nodes[cluster.leader()].kill()
        cluster.run(per_window("later", "s", ""))
        assert windows("later") == expected and windows("windows") == expected
        assert cluster.run("SELECT count(*) FROM s") == [(9,)]
        for partition in range(6):
            send(kafka, topic, partition, (60, partition, 1))
        eventually(lambda: windows("closed") == expected)
    finally:
        cluster.kill_all()


def test_a_join_of_streams_keeps_a_flat_state(kafka, own_server, unique):
    """A simulated week: rows of both sides within a minute of each other find each other, and what is kept does not grow."""
    left, right = kafka.create_topic(unique("left"), 1), kafka.create_topic(unique("right"), 1)
    own_server.start(checkpoint_ms=300)
    own_server.query(source(kafka, "l", left))
    own_server.query(source(kafka, "r", right))
    own_server.query("CREATE MATERIALIZED VIEW pairs AS SELECT l.k, count(*) AS n FROM l JOIN r ON l.k = r.k "
                     "AND r.at BETWEEN l.at AND l.at + INTERVAL '1 minute' GROUP BY l.k")
    memory = lambda: own_server.value("SELECT memory_bytes FROM tidemark.jobs WHERE name = 'public.pairs'")
    seen, expected = [], 0
    for day in range(7):
        rows = [(day * 86_400 + n * 17, n % 5, n) for n in range(5_000)]
        send(kafka, left, 0, *rows)
        send(kafka, right, 0, *[(at + 10, k, v) for at, k, v in rows])
        expected += 5_000
        eventually(lambda: own_server.value("SELECT sum(n)::bigint FROM pairs") == expected, timeout=60)
        own_server.query("FLUSH")
        seen.append(memory())
    # 35,000 rows of each side came; some thousand are kept until the next look at them.
    assert max(seen[2:]) < 2 * seen[0] + (1 << 20), seen
    assert "closes=left.at closes=right.at" in str(own_server.query("EXPLAIN ANALYZE MATERIALIZED VIEW pairs"))


def test_what_is_kept_of_windows_stays_flat(kafka, own_server, unique):
    """Groups, distinct rows, set operations and joins by equal times, over sixteen simulated days,
    beside the same over sources without a watermark, which keep everything."""
    left, right = kafka.create_topic(unique("left"), 1), kafka.create_topic(unique("right"), 1)
    own_server.start(checkpoint_ms=300)
    for name, topic in (("a", left), ("b", right)):
        closing = source(kafka, name, topic)
        own_server.query(closing)
        own_server.query(closing.replace(f"SOURCE {name}", f"SOURCE all_{name}")
                         .replace(", WATERMARK FOR at AS at - INTERVAL '2 seconds'", ""))
    queries = {
        "groups": "SELECT window_start, k, count(*) AS c FROM TUMBLE({0}, at, INTERVAL '10 seconds') GROUP BY window_start, k",
        "rows": "SELECT DISTINCT at, k FROM {0}",
        "difference": "SELECT at, k FROM {0} EXCEPT SELECT at, k FROM {1}",
        "joined": "SELECT {0}.k FROM {0} JOIN {1} ON {0}.at = {1}.at",
    }
    for name, query in queries.items():
        for prefix in ("", "all_"):
            of = query.format(f"{prefix}a", f"{prefix}b")
            own_server.query(f"CREATE MATERIALIZED VIEW {prefix}{name} AS SELECT count(*) AS n FROM ({of}) q")
    most = dict.fromkeys(queries, 0)
    for day in range(16):
        rows = [(day * 86_400 + n * 9, n % 5, n) for n in range(9_000)]
        send(kafka, left, 0, *rows)
        send(kafka, right, 0, *[(at + n % 2 * 3, k, v) for n, (at, k, v) in enumerate(rows)])
        for name in ("rows", "all_rows"):
            eventually(lambda: own_server.value(f"SELECT n FROM {name}") == 9_000 * (day + 1), timeout=60)
        own_server.query("FLUSH")
        memory = dict(own_server.query("SELECT name, memory_bytes FROM tidemark.jobs WHERE kind = 'materialized view'"))
        most = {name: max(memory[f"public.{name}"], most[name]) for name in queries}
    # However a day is cut into epochs, no more than one is kept, and its tables grow by doubling.
    everything = {name: memory[f"public.all_{name}"] for name in queries}
    assert all(3 * most[name] < everything[name] for name in queries), (most, everything)
    for name in queries:
        assert own_server.value(f"SELECT n FROM {name}") == own_server.value(f"SELECT n FROM all_{name}")
