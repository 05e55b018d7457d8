"""Records that the broker takes away: by compaction between two offsets, by retention at the start, by a log that was cut off. What was answered stays true, and what is missing is said."""

import pytest

from harness import eventually

COMPACTED = {"cleanup_policy": "compact", "segment_ms": 100, "min_cleanable_dirty_ratio": 0.01, "max_compaction_lag_ms": 100}


def wait_for_compaction(kafka, topic, below):
    """Writes single records, each of which may begin a new segment, until fewer than `below` are left to read; returns how many it wrote."""
    written = 0

    def compacted():
        nonlocal written
        written += kafka.produce(topic, [("tick", {"k": 0, "v": 0})])
        return len(kafka.read(topic)) < below

    eventually(compacted, 60, 0.2)
    return written


def test_compacted_plain_topic(kafka, own_server, unique):
    """Rows of a compacted topic come back from the log after `kill -9`, also where nothing says that they have a key, and also those of which a value could not be read."""
    topic = kafka.create_topic(unique("compacted"), 1, **COMPACTED)
    own_server.start(checkpoint_ms=600_000)
    own_server.run(f"CREATE SOURCE s (k INT, v INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
                   "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM s;\nCREATE MATERIALIZED VIEW t AS SELECT sum(v) AS t FROM s;")
    rows = kafka.produce(topic, ((i % 10, {"k": i % 10, "v": 1 if i % 100 else "bad"}) for i in range(10_000)))
    read = lambda: own_server.query("SELECT n, t FROM n, t")
    eventually(lambda: read() == [(10_000, 9_900)])
    rows += wait_for_compaction(kafka, topic, 5_000)
    eventually(lambda: read() == [(rows, 9_900)])
    own_server.kill()
    own_server.start(checkpoint_ms=600_000, workers=3)
    assert read() == [(rows, 9_900)]
    rows += kafka.produce(topic, [(1, {"k": 1, "v": 5})])
    eventually(lambda: read() == [(rows, 9_905)])
    own_server.query("FLUSH")
    rows += kafka.produce(topic, [(1, {"k": 1, "v": 5})])
    eventually(lambda: read() == [(rows, 9_910)])
    own_server.kill()
    own_server.start()
    assert read() == [(rows, 9_910)]
    # what comes later has what is left, and says so
    _, notices = own_server.notices("CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM s")
    assert any(topic in notice and "is compacted" in notice for notice in notices), notices
    left = own_server.value("SELECT n FROM later")
    assert left < rows
    (((counted,),), notices) = own_server.notices("SELECT count(*) FROM s")
    assert counted <= left and any(f"{rows - counted} records" in notice for notice in notices), (counted, left, notices)


def stopped(server, reason):
    """Whether a job has stopped for that reason."""
    return any("stopped" in row and reason in str(row) for row in server.query("SHOW JOBS"))


@pytest.mark.parametrize("noticed", [True, False])
def test_a_topic_that_becomes_compacted(kafka, own_server, unique, noticed):
    """From when it is noticed, rows are logged; a replay reads the epochs before from the topic and the later ones from the log. Where it was not noticed in time, the source stops and says why."""
    topic = kafka.create_topic(unique("becomes"), 1, segment_ms=100)
    settings = {"checkpoint_ms": 600_000, "discovery_ms": 200 if noticed else 600_000}
    own_server.start(**settings)
    own_server.run(f"CREATE SOURCE s (k INT, v INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM s;")
    # these stay: each has a key of its own
    rows = kafka.produce(topic, ((f"only {i}", {"k": i, "v": 1}) for i in range(1_000)))
    read = lambda: own_server.query("SELECT n FROM n")
    eventually(lambda: read() == [(rows,)])
    # the checkpoint that is asked for at the change cannot be stored
    manifests, away = own_server.data / "checkpoints" / "manifests", own_server.folder / "manifests"
    manifests.rename(away)
    manifests.write_text("in the way")
    kafka.alter_topic(topic, **COMPACTED)
    if noticed:
        eventually(lambda: "its topic is compacted now" in own_server.log_path.read_text(), 30)
    rows += kafka.produce(topic, ((i % 10, {"k": i % 10, "v": 1}) for i in range(5_000)))
    rows += wait_for_compaction(kafka, topic, 3_000)
    eventually(lambda: read() == [(rows,)])
    own_server.kill()
    manifests.unlink()
    away.rename(manifests)
    own_server.start(**settings)
    if not noticed:
        eventually(lambda: stopped(own_server, "has not the records any more"))
        return
    assert read() == [(rows,)]
    rows += kafka.produce(topic, [(1, {"k": 1, "v": 5})])
    eventually(lambda: read() == [(rows,)])


def test_the_first_records_are_gone(kafka, own_server, unique):
    """A new view begins with what retention has left, and so does a query; both say what is missing. What was made earlier has it, and a replay begins where it began."""
    topic = kafka.create_topic(unique("retained"), 2)
    for partition in (0, 1):
        kafka.produce(topic, [(None, {"x": n}) for n in range(100)], partition)
    own_server.start()
    own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW early AS SELECT count(*) AS n FROM s;")
    assert own_server.value("SELECT n FROM early") == 200
    kafka.delete_records(topic, {0: 30})
    said = f'kafka topic "{topic}" no longer has partition 0 offsets 0 to 29;'
    _, notices = own_server.notices("CREATE MATERIALIZED VIEW late AS SELECT count(*) AS n FROM s")
    assert any(said in notice for notice in notices), notices
    rows, notices = own_server.notices("SELECT count(*) FROM s")
    assert rows == [(170,)] and any(said in notice for notice in notices), (rows, notices)
    assert any("30 records that were read" in notice for notice in notices), notices
    read = lambda: own_server.query("SELECT early.n, late.n FROM early, late")
    assert read() == [(200, 170)]
    own_server.kill()
    own_server.start()
    assert read() == [(200, 170)]
    kafka.produce(topic, [(None, {"x": 0})], 0)
    eventually(lambda: read() == [(201, 171)])
    # the first reader of a source that nobody read any more
    own_server.run("DROP MATERIALIZED VIEW early;\nDROP MATERIALIZED VIEW late;")
    kafka.delete_records(topic, {0: 40, 1: 50})
    _, notices = own_server.notices("CREATE MATERIALIZED VIEW again AS SELECT count(*) AS n FROM s")
    assert any("partition 0 offsets 0 to 39, partition 1 offsets 0 to 49;" in notice for notice in notices), notices
    assert own_server.value("SELECT n FROM again") == 111
    own_server.kill()
    own_server.start()
    assert own_server.value("SELECT n FROM again") == 111


def test_a_replay_does_not_begin_anew(kafka, own_server, unique):
    """Records that a running view has not kept and that are gone stop it: a replay never skips."""
    topic = kafka.create_topic(unique("strict"), 1)
    own_server.start(checkpoint_ms=600_000)
    own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s;")
    kafka.produce(topic, [(None, {"x": n}) for n in range(100)])
    eventually(lambda: own_server.value("SELECT n FROM v") == 100)
    own_server.kill()
    kafka.delete_records(topic, {0: 60})
    own_server.start(checkpoint_ms=600_000)
    eventually(lambda: stopped(own_server, "no longer has offset 0"))
    # it is read as of its last checkpoint, and the records of after are not in it
    assert own_server.value("SELECT n FROM v") in (0, 100)
