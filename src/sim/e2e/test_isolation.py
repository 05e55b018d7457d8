"""Nobody hurts anybody: one job with a hot key beside others, and the end of such a job in the middle of its work."""

import os
import threading

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
        assert reader.execute("SELECT count(*) FROM hot").fetchone() == (0,), "the view is not through"
        reader.execute("DROP MATERIALIZED VIEW pairs")
        eventually(lambda: reader.execute("SELECT n FROM others").fetchone() == (500,))
        assert reader.execute("SELECT count(*) FROM hot").fetchone() == (HOT_ROWS,)
    eventually(lambda: is_idle(jobs), timeout=10)
    jobs.kill()
    jobs.start()
    assert jobs.query("SELECT n, (SELECT count(*) FROM hot) FROM others") == [(500, HOT_ROWS)]


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
