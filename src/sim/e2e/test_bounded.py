"""Memory is bounded: what is restored, merged, fetched ahead and begun with passes through in pieces, and SHOW MEMORY says who holds what."""

from harness import eventually

MB = 1 << 20
ROWS = 1_000_000


def status(server, field):
    with open(f"/proc/{server.process.pid}/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) << 10


def held(server):
    return {row[0]: int(row[1]) for row in server.query("SHOW MEMORY")}


def fill(server, rows=ROWS):
    server.run("CREATE TABLE t (k BIGINT PRIMARY KEY, a TEXT, b BIGINT);")
    for start in range(0, rows, 250_000):
        server.run(f"SET dml_commit = 'async'; INSERT INTO t SELECT g, 'row ' || g || repeat(md5(g::text), 5), g * 7 "
                   f"FROM generate_series({start} + 1, {start + 250_000}) AS g;")


def parts_add_up(server):
    parts = held(server)
    process, _ = parts.pop("process"), parts.pop("limit")
    rest = parts.pop("everything else")
    assert abs(process - sum(parts.values())) < process // 10, (process, rest, parts)
    return parts


def test_what_show_memory_names_adds_up_to_the_process(own_server, kafka):
    kafka.create_topic("bounded_m", partitions=2)
    kafka.produce("bounded_m", [(None, {"k": i, "v": "x" * 100}) for i in range(50_000)])
    own_server.start()
    fill(own_server)
    own_server.run(f"""
        CREATE MATERIALIZED VIEW sums AS SELECT b % 50000 AS g, count(*) AS n, sum(b) AS s, max(a) AS m FROM t GROUP BY 1;
        CREATE MATERIALIZED VIEW pairs AS SELECT t.k, t.a, s.n FROM t JOIN sums s ON s.g = t.k;
        CREATE SOURCE events (k BIGINT, v VARCHAR) WITH ({kafka.options("bounded_m", scan__startup__mode="earliest")})
            FORMAT PLAIN ENCODE JSON;
        CREATE MATERIALIZED VIEW kept AS SELECT k, v FROM events;
        CREATE SINK out FROM kept WITH (connector = 'blackhole');
    """)
    sessions = [own_server.connect() for _ in range(20)]
    eventually(lambda: own_server.value("SELECT count(*) FROM kept") == 50_000, timeout=60)
    own_server.run("FLUSH;")
    parts = eventually(lambda: parts_add_up(own_server), timeout=30)
    assert parts["state of jobs"] > 200 * MB
    assert set(parts) >= {"records fetched ahead", "checkpoints being stored", "queries", "free memory that the allocator keeps"}
    for session in sessions:
        session.close()


def test_the_parts_add_up_after_loads_of_every_kind(own_server):
    """When memory is calm, what SHOW MEMORY names is the process, whatever was done before."""
    own_server.start(max_connections=700)

    def adds_up():
        eventually(lambda: parts_add_up(own_server), timeout=60)

    rows = 250_000
    fill(own_server, rows)
    adds_up()
    own_server.run("""
        CREATE MATERIALIZED VIEW counts AS SELECT b % 50000 AS g, count(*) AS n, max(a) AS m FROM t GROUP BY 1;
        CREATE MATERIALIZED VIEW pairs AS SELECT t.k, t.a, c.n FROM t JOIN counts c ON c.g = t.k;
    """)
    adds_up()
    state = held(own_server)["state of jobs"]
    own_server.run("CREATE INDEX by_text ON t (a);")
    adds_up()
    assert held(own_server)["state of jobs"] > state + 8 * rows
    own_server.run("UPDATE t SET b = b + 1 WHERE k % 3 = 0; DELETE FROM t WHERE k % 10 = 0;")
    own_server.run("CREATE TABLE copied (k BIGINT PRIMARY KEY, a TEXT);")
    with own_server.connect() as connection:
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for start in range(0, rows, 10_000):
                copy.write("".join(f"{k}\tthe text of {k}\n" for k in range(start, start + 10_000)))
    adds_up()
    for _ in range(3):
        assert own_server.value("SELECT count(*) FROM (SELECT a FROM t ORDER BY a DESC, k OFFSET 1) s") == rows * 9 // 10 - 1
    adds_up()
    sessions = [own_server.connect() for _ in range(600)]
    for session in sessions:
        session.execute("SELECT 1")
    adds_up()
    assert held(own_server)["sessions"] > 600 * 16 * 1024
    for session in sessions:
        session.close()
    jobs = own_server.query("SELECT name, memory_bytes FROM tidemark.jobs WHERE name LIKE 'public.%'")
    assert sum(bytes for _, bytes in jobs) == held(own_server)["state of jobs"], jobs
    own_server.kill()
    own_server.start()
    adds_up()


def test_sessions_that_are_many_and_idle_are_named(own_server):
    """Of a server that has nothing else to hold, too."""
    own_server.start(max_connections=1010)
    sessions = [own_server.connect() for _ in range(1000)]
    parts = eventually(lambda: parts_add_up(own_server), timeout=30)
    assert parts["sessions"] > 1000 * 16 * 1024
    assert f'tidemark_memory_bytes{{of="sessions"}} {parts["sessions"]}' in own_server.metrics()
    for session in sessions:
        session.close()
    eventually(lambda: held(own_server)["sessions"] < parts["sessions"] // 100, timeout=30)


def test_sources_share_what_they_fetch_ahead(own_server, kafka):
    """Sources that come one after the other hold one budget together, and each record is read once."""
    topics, records = 6, 20_000
    for i in range(topics):
        kafka.create_topic(f"bounded_f{i}", partitions=2)
        kafka.produce(f"bounded_f{i}", [(None, {"k": k, "v": "x" * 300}) for k in range(records)])
    own_server.start(fetch_memory="8MB")
    for i in range(topics):
        own_server.run(f"""CREATE TABLE f{i} (k BIGINT, v VARCHAR) WITH ({kafka.options(f"bounded_f{i}", scan__startup__mode="earliest")})
            FORMAT PLAIN ENCODE JSON;""")
        assert held(own_server)["records fetched ahead"] < 16 * MB
    for i in range(topics):
        eventually(lambda: own_server.value(f"SELECT count(*) FROM f{i}") == records, timeout=60)
        assert own_server.value(f"SELECT count(DISTINCT k) FROM f{i}") == records
    assert held(own_server)["records fetched ahead"] < 16 * MB


def test_a_restore_stays_within_a_limit_that_its_state_just_fits(own_server):
    own_server.start()
    fill(own_server)
    # Newer files that contradict older ones, and merged ones.
    for i in range(12):
        own_server.run(f"UPDATE t SET b = b + 1 WHERE k % 12 = {i}; FLUSH;")
    own_server.run("CREATE MATERIALIZED VIEW sums AS SELECT b % 1000 AS g, count(*) AS n FROM t GROUP BY 1; FLUSH;")
    expected = own_server.query("SELECT count(*), sum(b), (SELECT sum(n) FROM sums) FROM t")
    own_server.kill()
    own_server.start()
    eventually(lambda: own_server.query("SELECT count(*), sum(b), (SELECT sum(n) FROM sums) FROM t") == expected, timeout=60)
    state = held(own_server)["state of jobs"]
    own_server.kill()
    limit = state * 5 // 4 + 150 * MB
    own_server.start(memory_limit=limit)
    eventually(lambda: own_server.query("SELECT count(*), sum(b), (SELECT sum(n) FROM sums) FROM t") == expected, timeout=60)
    assert status(own_server, "VmHWM") < limit, (status(own_server, "VmHWM"), state)
    assert own_server.query("SELECT name FROM tidemark.jobs WHERE state = 'stopped'") == []


def test_a_view_over_a_large_one_begins_with_its_rows_piece_by_piece(own_server):
    """What it begins with is one epoch's rows, and memory does not grow by a second copy of them."""
    own_server.start()
    fill(own_server)
    own_server.run("FLUSH;")
    before = status(own_server, "VmRSS")
    own_server.run("CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, sum(b) AS s, max(length(a)) AS m FROM t;")
    assert own_server.query("SELECT n, s FROM n") == [(ROWS, 7 * ROWS * (ROWS + 1) // 2)]
    assert status(own_server, "VmRSS") - before < 150 * MB
    with own_server.connect() as writer:
        writer.execute("UPDATE t SET b = 0 WHERE k <= 1000")
        writer.execute("DELETE FROM t WHERE k > 999000")
        assert writer.execute("SELECT n, s FROM n").fetchall() == writer.execute("SELECT count(*), sum(b)::NUMERIC FROM t").fetchall()


def test_a_view_over_a_source_and_a_table_begins_however_narrow_its_edges_are(own_server):
    """Rows of the source wait on the view's edges for the end of the table's rows, which must be fed all the same."""
    own_server.start(workers=1, edge_bytes_max=1024, batch_rows_max=64)
    own_server.run("""
        CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT);
        INSERT INTO t SELECT g, g FROM generate_series(0, 49999) AS g;
        CREATE SOURCE events (k BIGINT, v BIGINT) WITH (connector = 'datagen', datagen.rows.total = '20000', fields.k.min = '0', fields.k.max = '49999');
        SET statement_timeout = '120s';
        CREATE MATERIALIZED VIEW enriched AS SELECT e.k, e.v, t.v AS known FROM events e JOIN t ON e.k = t.k;
    """)
    eventually(lambda: own_server.value("SELECT count(*) FROM enriched") == 20_000, timeout=60)


def test_a_replay_of_two_sources_ends_however_narrow_the_edges_are(own_server, kafka):
    """One source is read ahead of the other, and its rows wait on the edges of their reader for the other one's barrier."""
    topics = ["bounded_left", "bounded_right"]
    for topic in topics:
        kafka.create_topic(topic, partitions=2)
    settings = dict(workers=1, edge_bytes_max=1024, batch_rows_max=64, checkpoint_ms=600_000)
    own_server.start(**settings)
    for topic in topics:
        own_server.run(f"CREATE SOURCE {topic} (k BIGINT, v BIGINT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;")
    own_server.run("CREATE MATERIALIZED VIEW pairs AS SELECT l.k, l.v, r.v AS w FROM bounded_left l JOIN bounded_right r ON l.k = r.k; FLUSH;")
    for at in range(0, 20_000, 2000):
        for topic in topics:
            kafka.produce(topic, [(None, {"k": i, "v": i}) for i in range(at, at + 2000)])
    eventually(lambda: own_server.value("SELECT count(*) FROM pairs") == 20_000, timeout=60)
    own_server.kill()
    own_server.start(**settings)
    assert own_server.value("SELECT count(*) FROM pairs") == 20_000
