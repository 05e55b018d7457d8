"""Sources: start positions, included columns, shared readers and views that are created while data flows."""

import threading
import time

from harness import Poller, eventually


def test_backfill_while_loading(kafka, server, unique):
    """A view created under load agrees, from its first reading on, with an older one over the same source: both in one query, so at one cut."""
    topic, source = kafka.create_topic(unique("flow"), 4), unique("flow")
    stop, sent = threading.Event(), [0]

    def load():
        while not stop.is_set():
            sent[0] += kafka.produce(topic, [({"id": sent[0] + n}, {"id": sent[0] + n, "bucket": n % 7}) for n in range(200)])
            time.sleep(0.01)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    try:
        server.run(f"CREATE SOURCE {source} (id BIGINT, bucket INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
                   f"CREATE MATERIALIZED VIEW {source}_a AS SELECT count(*) AS c, sum(id) AS s FROM {source};")
        time.sleep(1)
        server.query(f"CREATE MATERIALIZED VIEW {source}_b AS SELECT bucket, count(*) AS c, sum(id) AS s FROM {source} GROUP BY bucket")

        def agree(rows):
            ((a, b),) = rows
            assert a == b, f"the views over one source disagree in one reading: {a} and {b}"

        with Poller(server, f"SELECT (SELECT c FROM {source}_a), (SELECT sum(c)::bigint FROM {source}_b)", agree) as poller:
            time.sleep(1.5)
        assert poller.readings > 10
    finally:
        stop.set()
        loading.join(30)
    eventually(lambda: server.query(f"SELECT c, s FROM {source}_a") == [(sent[0], sum(range(sent[0])))])
    assert server.query(f"SELECT sum(c)::bigint, sum(s)::bigint FROM {source}_b") == [(sent[0], sum(range(sent[0])))]


def test_startup_mode_and_includes(kafka, server, unique):
    topic, source = kafka.create_topic(unique("modes"), 1), unique("modes")
    kafka.produce(topic, [(f"k{n}".encode(), {"x": n}) for n in range(5)])
    columns = "INCLUDE KEY AS k INCLUDE PARTITION AS p INCLUDE OFFSET AS o INCLUDE TIMESTAMP AS ts"
    for name, mode in (("early", "earliest"), ("late", "latest")):
        server.run(f"CREATE SOURCE {source}_{name} (x INT) {columns} WITH ({kafka.options(topic, scan__startup__mode=mode)}) FORMAT PLAIN ENCODE JSON;\n"
                   f"CREATE MATERIALIZED VIEW {source}_{name}_v AS SELECT x, k, p, o, ts FROM {source}_{name};")
    kafka.produce(topic, [(f"k{n}".encode(), {"x": n}) for n in range(5, 8)])
    reading = lambda name: sorted(server.query(f"SELECT x, k, p, o FROM {source}_{name}_v"))
    eventually(lambda: reading("early") == [(n, f"k{n}", 0, n) for n in range(8)])
    eventually(lambda: reading("late") == [(n, f"k{n}", 0, n) for n in range(5, 8)])
    stamps = [record.timestamp_ms for record in kafka.read(topic)]
    seen = [row[0] for row in server.query(f"SELECT ts FROM {source}_early_v ORDER BY o")]
    assert [round(moment.timestamp() * 1000) for moment in seen] == stamps


def test_latest_stays_where_it_began(kafka, own_server, unique):
    """`latest` is resolved once: a restart does not skip what came while the server was away."""
    topic = kafka.create_topic(unique("late"), 2)
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(10)])
    own_server.start()
    own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(topic, scan__startup__mode='latest')}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT x FROM s;")
    own_server.kill()
    kafka.produce(topic, [({"x": n}, {"x": n}) for n in range(10, 20)])
    own_server.start()
    eventually(lambda: sorted(own_server.query("SELECT x FROM v")) == [(n,) for n in range(10, 20)])


def test_transactional_input(kafka, server, unique):
    """Aborted records are not input; the markers in the log are no rows and no standstill."""
    from confluent_kafka import Producer

    topic, source = kafka.create_topic(unique("tx"), 1), unique("tx")
    producer = Producer({"bootstrap.servers": kafka.broker, "log_level": 0, "transactional.id": source})
    producer.init_transactions()
    server.run(f"CREATE SOURCE {source} (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW {source}_v AS SELECT count(*) AS c, sum(x) AS s FROM {source};")
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, f'{{"x": {number}}}'.encode())
        producer.flush()
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    eventually(lambda: server.query(f"SELECT c, s FROM {source}_v") == [(3, 0 + 2 + 4)])
    # the topic ends with markers: CREATE must still see that it has caught up
    server.query(f"CREATE MATERIALIZED VIEW {source}_w AS SELECT x FROM {source}")
    assert sorted(server.query(f"SELECT x FROM {source}_w")) == [(0,), (2,), (4,)]


def test_idle_and_observability(server):
    """/metrics, /health, and the SHOW statements answer."""
    server.run("CREATE TABLE observed (x INT);\nCREATE SINK observed_out FROM observed WITH (connector = 'blackhole');\nINSERT INTO observed VALUES (1);\nFLUSH;")
    figures = dict(line.rsplit(" ", 1) for line in server.metrics().splitlines() if not line.startswith("#"))
    assert int(figures['tidemark_epoch{state="decided"}']) >= int(figures['tidemark_epoch{state="published"}']) > 0
    assert int(figures['tidemark_checkpoint{figure="epoch"}']) > 0
    assert figures['tidemark_job_running{job="public.observed",kind="table"}'] == "1"
    eventually(lambda: 'tidemark_sink_undelivered_epochs{job="public.observed_out"} 0' in server.metrics().splitlines())
    server.query("DROP TABLE observed CASCADE")
    eventually(lambda: 'job="public.observed' not in server.metrics())
    for what in ("JOBS", "SOURCES", "TABLES", "MATERIALIZED VIEWS", "SINKS", "CHECKPOINTS"):
        server.query(f"SHOW {what}")
