"""Nobody hurts anybody: one job with a hot key beside others, and the end of such a job in the middle of its work."""

import os
import threading
import time

import psycopg
import pytest

from harness import eventually

# A key that 100,000 rows share: a join of them with themselves is of 10^10 pairs, hours of work.
HOT_ROWS = 100_000
PAIRS = "CREATE MATERIALIZED VIEW {name} AS SELECT count(*) AS n, max(a.v + b.v) AS m FROM hot a JOIN hot b USING (k)"
# What such a job may hold beyond the table itself: some edges and slices.
GROWTH_MAX = 400 << 20


@pytest.fixture
def jobs(own_server):
    own_server.start()
    own_server.run("""
        CREATE TABLE hot (id BIGINT PRIMARY KEY, k INT, v INT);
        CREATE TABLE other (id BIGINT PRIMARY KEY, v INT);
        CREATE MATERIALIZED VIEW others AS SELECT count(*) AS n FROM other;
    """)
    return own_server


def fill(server):
    server.run(f"INSERT INTO hot SELECT i, 1, i FROM generate_series(1, {HOT_ROWS}) AS i;")


def rss(server):
    with open(f"/proc/{server.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def creating(server, name):
    return (f"public.{name}", "creating") in server.query("SELECT name, state FROM tidemark.jobs")


def is_idle(server):
    """The processor time that it takes within some looks is that of the looks."""
    before = cpu_seconds(server)
    threading.Event().wait(0.5)
    return cpu_seconds(server) - before < 0.25


def test_a_hot_key_holds_up_nobody_and_ends_when_told(jobs):
    fill(jobs)
    before = rss(jobs)
    outcome = []

    def create():
        with jobs.connect() as connection:
            try:
                connection.execute(PAIRS.format(name="pairs"))
                outcome.append("created")
            except psycopg.Error as e:
                outcome.append(e.sqlstate)

    thread = threading.Thread(target=create)
    thread.start()
    eventually(lambda: creating(jobs, "pairs"))
    # Others write, read, checkpoint and create.
    for i in range(200):
        jobs.query(f"INSERT INTO other VALUES ({i}, {i})")
        assert jobs.value("SELECT n FROM others") == i + 1
    jobs.run("FLUSH; CREATE MATERIALIZED VIEW sums AS SELECT sum(v) AS s FROM other;")
    assert jobs.value("SELECT s FROM sums") == sum(range(200))
    assert creating(jobs, "pairs"), "it takes hours"
    assert rss(jobs) - before < GROWTH_MAX
    number = jobs.value("SELECT id FROM tidemark.jobs WHERE name = 'public.pairs'")
    jobs.run(f"CANCEL JOBS {number}")
    thread.join(10)
    assert outcome == ["57014"]
    eventually(lambda: is_idle(jobs), timeout=10)
    # The place is free.
    jobs.run("CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n FROM hot")
    assert jobs.value("SELECT n FROM pairs") == HOT_ROWS


def test_writes_wait_for_no_job(jobs):
    """A running view that takes hours for an epoch: writes are acknowledged all the same, and are there when it is dropped, and after a kill."""
    jobs.run(PAIRS.format(name="pairs"))
    fill(jobs)
    for i in range(500):
        jobs.query(f"INSERT INTO other VALUES ({i}, {i})")
    with jobs.connect() as reader:
        assert reader.execute("SELECT n FROM pairs").fetchone() == (0,), "the view is not through"
        eventually(lambda: reader.execute("SELECT n FROM others").fetchone() == (500,))
        eventually(lambda: reader.execute("SELECT count(*) FROM hot").fetchone() == (HOT_ROWS,))
        reader.execute("DROP MATERIALIZED VIEW pairs")
    eventually(lambda: is_idle(jobs), timeout=10)
    jobs.kill()
    jobs.start()
    assert jobs.query("SELECT n, (SELECT count(*) FROM hot) FROM others") == [(500, HOT_ROWS)]


def test_a_slow_view_delays_nobody(kafka, jobs, unique):
    """Beside a running view that takes hours for an epoch, a table, a fast view over it and a sink go on: what was written is read and sent at once.
    A query over both is as of where the slow one is, and so is a block that reads it first."""
    topic, out = kafka.create_topic(unique("in"), 1), kafka.create_topic(unique("out"), 1)
    jobs.run(f"""
        CREATE SOURCE s (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;
        CREATE MATERIALIZED VIEW read AS SELECT count(*) AS n FROM s;
        CREATE MATERIALIZED VIEW hots AS SELECT count(*) AS n FROM hot;
        CREATE SINK sent FROM other WITH ({kafka.options(out, primary_key='id')}) FORMAT UPSERT ENCODE JSON;
        INSERT INTO other VALUES (-1, 0);
    """)
    jobs.run(PAIRS.format(name="pairs"))
    fill(jobs)
    before = rss(jobs)
    seconds = []
    for i in range(300):
        begun = time.monotonic()
        jobs.query(f"INSERT INTO other VALUES ({i}, {i})")
        assert jobs.value("SELECT count(*) FROM other") == i + 2
        assert jobs.value("SELECT n FROM others") == i + 2
        seconds.append(time.monotonic() - begun)
    assert sorted(seconds)[len(seconds) // 2] < 1
    assert jobs.value("SELECT n FROM hots") == HOT_ROWS
    kafka.produce(topic, [(None, {"x": n}) for n in range(100)])
    eventually(lambda: jobs.value("SELECT n FROM read") == 100)
    eventually(lambda: len(kafka.read(out)) == 301)
    behind = dict(jobs.query("SELECT name, epochs_behind FROM tidemark.jobs"))
    assert behind["public.pairs"] > 100 > behind["public.others"]
    with jobs.connect() as reader:
        together = "SELECT others.n, hots.n, pairs.n, read.n, (SELECT count(*) FROM other), (SELECT count(*) FROM hot) FROM others, hots, pairs, read"
        assert reader.execute(together).fetchone() == (1, 0, 0, 0, 1, 0), "one cut"
        with reader.transaction():
            assert reader.execute("SELECT n FROM pairs").fetchone() == (0,)
            assert reader.execute("SELECT n, (SELECT count(*) FROM hot) FROM others").fetchone() == (1, 0)
        with reader.transaction():
            assert reader.execute("SELECT n, (SELECT count(*) FROM hot) FROM others").fetchone() == (301, HOT_ROWS)
        reader.execute("SET statement_timeout = '500ms'")
        # What was written is in the view only later.
        reader.execute(f"INSERT INTO hot VALUES ({HOT_ROWS + 1}, 2, 2)")
        assert reader.execute("SELECT n FROM hots").fetchone() == (HOT_ROWS + 1,)
        with pytest.raises(psycopg.errors.QueryCanceled):
            reader.execute("SELECT n FROM pairs")
        # It is not made of this one.
        reader.execute("INSERT INTO other VALUES (1000, 0)")
        with jobs.connect() as other:
            other.execute("INSERT INTO other VALUES (1001, 0)")
            assert other.execute("SELECT n FROM pairs").fetchone() == (0,)
            assert other.execute("SELECT n FROM others").fetchone() == (303,)
    assert rss(jobs) - before < GROWTH_MAX
    jobs.query("DROP MATERIALIZED VIEW pairs")
    eventually(lambda: jobs.query("SELECT others.n, hots.n, read.n FROM others, hots, read") == [(303, HOT_ROWS + 1, 100)])
    jobs.kill()
    jobs.start()
    assert jobs.query("SELECT others.n, hots.n, read.n FROM others, hots, read") == [(303, HOT_ROWS + 1, 100)]
    jobs.query("DELETE FROM other WHERE id >= 0")
    eventually(lambda: len(kafka.read(out)) == 303 + 302)


def test_what_was_read_and_sent_beside_a_slow_view_stays_true_after_a_kill(kafka, jobs, unique):
    """The slow view takes seconds. Killed in its middle, the server comes to the same answers in all of them, and nothing is sent twice."""
    out, rows = kafka.create_topic(unique("out"), 1), 6_000
    jobs.run(f"""
        CREATE MATERIALIZED VIEW counts AS SELECT v % 1 AS g, count(*) AS n FROM other GROUP BY v % 1;
        CREATE SINK sent FROM counts WITH ({kafka.options(out, primary_key='g')}) FORMAT UPSERT ENCODE JSON;
    """)
    jobs.run(PAIRS.format(name="pairs"))
    jobs.run(f"INSERT INTO hot SELECT i, 1, i FROM generate_series(1, {rows}) AS i;")
    for i in range(50):
        jobs.query(f"INSERT INTO other VALUES ({i}, {i})")
    assert jobs.value("SELECT n FROM others") == 50
    assert jobs.value("SELECT count(*) FROM hot") == rows
    eventually(lambda: any(record.value == {"g": 0, "n": 50} for record in kafka.read(out)))
    sent = [(record.key, record.value) for record in kafka.read(out)]
    assert jobs.value("SELECT epochs_behind FROM tidemark.jobs WHERE name = 'public.pairs'") > 50, "it is in the middle"
    jobs.kill()
    jobs.start()
    assert jobs.query("SELECT others.n, pairs.n, m, (SELECT count(*) FROM hot) FROM others, pairs") == [(50, rows * rows, 2 * rows, rows)]
    jobs.query("INSERT INTO other VALUES (50, 50)")
    eventually(lambda: any(record.value == {"g": 0, "n": 51} for record in kafka.read(out)))
    assert [(record.key, record.value) for record in kafka.read(out)][:len(sent)] == sent
    values = [record.value["n"] for record in kafka.read(out) if record.value]
    assert values == sorted(set(values)), "nothing twice, and nothing back"


def test_the_job_that_grows_most_stops_at_the_memory_limit_and_no_other(own_server):
    """Ten views, of which one keeps everything: it stops alone, its last answer can be read, the others go on, and the process stays within the limit."""
    limit = 700 << 20
    own_server.start(memory_limit=limit)
    own_server.run("CREATE SOURCE wide (id BIGINT, payload VARCHAR) WITH (connector = 'datagen', fields.id.kind = 'sequence', "
                   "fields.payload.length = '400', rows.per.second = '150000');")
    for i in range(9):
        own_server.run(f"CREATE MATERIALIZED VIEW small{i} AS SELECT count(*) AS n, max(id) AS m FROM wide WHERE id % 9 = {i}")
    own_server.run("CREATE MATERIALIZED VIEW large AS SELECT id, payload FROM wide")

    def stopped():
        assert rss(own_server) < limit + (200 << 20)
        return [row for row in own_server.query("SELECT name, error FROM tidemark.jobs WHERE state = 'stopped'")]

    rows = eventually(stopped, timeout=120, every=0.2)
    assert [name for name, _ in rows] == ["public.large"]
    assert "out of memory" in rows[0][1]
    # The others go on, without anybody's help, and none of them stops.
    for _ in range(3):
        before = own_server.value("SELECT sum(n) FROM (" + " UNION ALL ".join(f"SELECT n FROM small{i}" for i in range(9)) + ") AS s")
        eventually(lambda: own_server.value("SELECT n FROM small1") * 9 > before + 300_000, timeout=60)
    assert [name for name, _ in stopped()] == ["public.large"]
    # Its last answer, unless the room was needed.
    try:
        assert own_server.value("SELECT count(*) FROM large") > 0
    except psycopg.Error as e:
        assert e.sqlstate == "55000"
    held = {row[0]: int(row[1]) for row in own_server.query("SHOW MEMORY")}
    assert held["process"] < held["limit"] == limit
