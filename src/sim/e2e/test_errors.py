"""Bad input: each a clear error where the user looks, the server stays up, and nothing else is harmed."""

import time

import psycopg
import pytest
from harness import eventually


def test_undecodable_records(kafka, server, unique):
    topic, source = kafka.create_topic(unique("dirty"), 2), unique("dirty")
    bad = [b"{not json", b'{"id": "seven", "x": 1}', b'[1, 2]', b'\xff\xfe']
    kafka.produce(topic, [(None, {"id": n, "x": n}) for n in range(50)], partition=0)
    kafka.produce(topic, [(None, value) for value in bad], partition=1)
    kafka.produce(topic, [(None, {"id": n, "x": n}) for n in range(50, 100)], partition=1)
    server.run(f"CREATE SOURCE {source} (id BIGINT, x BIGINT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
               f"CREATE MATERIALIZED VIEW {source}_v AS SELECT count(*) AS c, sum(id) AS s FROM {source};")
    assert server.query(f"SELECT c, s FROM {source}_v") == [(100, sum(range(100)))]
    errors = server.query(f'SELECT topic, "partition", "offset", raw, message FROM tidemark.errors WHERE relation = \'{source}\' ORDER BY "offset"')
    assert [row[:3] for row in errors] == [(topic, 1, number) for number in range(len(bad))]
    assert [bytes(row[3]) for row in errors] == bad
    assert "id" in errors[1][4] and all(row[4] for row in errors)


def test_failing_expression(kafka, server, unique):
    """Division by zero: 22012 in a query; in a view the row is left out, and recorded; it leaves the record with its row."""
    table = unique("ratios")
    assert server.error("SELECT 1 / 0").sqlstate == "22012"
    assert server.error("SELECT 9223372036854775807 + 1::bigint").sqlstate == "22003"
    server.run(f"CREATE TABLE {table} (id INT PRIMARY KEY, a INT, b INT);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT id, a / b AS q FROM {table};\n"
               f"INSERT INTO {table} VALUES (1, 10, 2), (2, 10, 0), (3, 9, 3);")
    assert sorted(server.query(f"SELECT id, q FROM {table}_v")) == [(1, 5), (3, 3)]
    errors = f"SELECT message FROM tidemark.errors WHERE relation = '{table}_v'"
    eventually(lambda: server.query(errors), 5)
    assert "division by zero" in server.query(errors)[0][0]
    server.query(f"UPDATE {table} SET b = 5 WHERE id = 2")
    assert sorted(server.query(f"SELECT id, q FROM {table}_v")) == [(1, 5), (2, 2), (3, 3)]
    eventually(lambda: not server.query(errors), 5)


EVERYTHING = 'SELECT relation, epoch, topic, "partition", "offset", "column", sqlstate, message, raw FROM tidemark.errors'


def errors_objects(server):
    return sorted(path.name for path in (server.data / "checkpoints" / "errors").glob("*"))


def test_errors_survive_a_crash(kafka, own_server, unique):
    """After `kill -9` tidemark.errors holds the same rows, none twice: those of the checkpoint and those of the epochs since. A corrected row still takes its error back."""
    plain, keyed = kafka.create_topic(unique("dirty"), 2), kafka.create_topic(unique("keyed"), 1, cleanup_policy="compact")

    def send(number):
        """Bad records, each partition ending with a good one: when that is seen, the bad ones before it are part of an epoch that is decided."""
        kafka.produce(plain, [(None, {"id": number, "x": 99999999999}), (None, {"id": number, "x": "bad"}), (None, {"id": number, "x": 1})], partition=0)
        kafka.produce(plain, [(None, b"{broken"), (None, {"id": number, "x": 1})], partition=1)
        kafka.produce(keyed, [({"id": 1}, b"{broken"), ({"id": 2}, {"v": "bad"}), ({"id": 3}, {"v": number})])
        eventually(lambda: own_server.query(f"SELECT count(*) FROM v WHERE id = {number}") == [(2,)] and own_server.query("SELECT v FROM k WHERE id = 3") == [(number,)])

    def crash():
        before = sorted(own_server.query(EVERYTHING))
        own_server.kill()
        own_server.start(checkpoint_ms=3_600_000)
        assert sorted(own_server.query(EVERYTHING)) == before
        return before

    def states(relation):
        own_server.query("SELECT count(*) FROM q")  # waits for the epoch of this session's last write
        return sorted(own_server.query(f"SELECT sqlstate, count(*) FROM tidemark.errors WHERE relation = '{relation}' GROUP BY sqlstate"))

    own_server.start(checkpoint_ms=3_600_000)
    own_server.run(f"CREATE SOURCE s (id INT, x INT) WITH ({kafka.options(plain)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT id, x FROM s;\n"
                   f"CREATE TABLE k (id INT, v INT, PRIMARY KEY (id)) WITH ({kafka.options(keyed)}) FORMAT UPSERT ENCODE JSON;\n"
                   "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT);\nCREATE MATERIALIZED VIEW q AS SELECT id, a / b AS q FROM t;\n"
                   "CREATE MATERIALIZED VIEW sums AS SELECT a, 1 / sum(b) AS q FROM t GROUP BY a;\nINSERT INTO t VALUES (1, 1, 0), (2, 2, 0), (3, 3, 3);")
    send(1)
    assert states("s") == [("22003", 1), ("22P02", 2)] and states("k") == [("22P02", 2)] and states("q") == [("22012", 2)] and states("sums") == [("22012", 2)]
    assert len(crash()) == 9, "none in a checkpoint"
    own_server.query("FLUSH")
    assert len(crash()) == 9, "all in a checkpoint"
    own_server.query("INSERT INTO t VALUES (4, 4, 0)")
    send(2)
    own_server.query("UPDATE t SET b = 1 WHERE id = 1")
    assert states("q") == [("22012", 2)]
    assert len(crash()) == 9 + 7 - 2, "some in a checkpoint, of which two were taken back since"
    own_server.query("UPDATE t SET b = 1 WHERE id = 2")
    own_server.query("DELETE FROM t WHERE id = 4")
    assert states("q") == [] and states("sums") == [], "taken back by rows of before the crash"
    own_server.query("FLUSH")
    assert len(crash()) == 10
    own_server.query("DROP MATERIALIZED VIEW v")
    own_server.query("DROP SOURCE s")
    assert len(crash()) == 4, "errors of what was dropped are gone"


def test_errors_are_stored_when_they_change(own_server):
    """One object for each checkpoint that found other errors than the last one, and no more of them than manifests name."""
    own_server.start(checkpoint_ms=3_600_000)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW q AS SELECT id, 1 / b AS q FROM t;\nINSERT INTO t VALUES (1, 1);\nFLUSH;")
    assert errors_objects(own_server) == []
    own_server.run("INSERT INTO t VALUES (2, 0);\nFLUSH;")
    first = errors_objects(own_server)
    assert len(first) == 1, first
    own_server.run("INSERT INTO t VALUES (3, 3);\nFLUSH;")
    assert errors_objects(own_server) == first, "nothing changed"
    own_server.kill()
    own_server.start(checkpoint_ms=3_600_000)
    own_server.run("INSERT INTO t VALUES (4, 4);\nFLUSH;")
    assert errors_objects(own_server) == first, "nothing changed, after a restart"
    own_server.run("INSERT INTO t VALUES (5, 0);\nFLUSH;")
    eventually(lambda: len(errors_objects(own_server)) == 1 and errors_objects(own_server) != first)
    own_server.run("DELETE FROM t WHERE b = 0;\nFLUSH;")
    eventually(lambda: errors_objects(own_server) == [])


def test_damaged_errors(own_server):
    """Errors are diagnostics: an object of them that is damaged or missing is reported with its name, and the server starts."""
    own_server.start(checkpoint_ms=3_600_000)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW q AS SELECT id, 1 / b AS q FROM t;")
    folder = own_server.data / "checkpoints" / "errors"
    for id, harm in ((1, lambda path: path.write_bytes(path.read_bytes()[:-1])), (2, lambda path: path.unlink())):
        own_server.run(f"INSERT INTO t VALUES ({id}, 0);\nFLUSH;")
        assert len(own_server.query("SELECT 1 FROM tidemark.errors")) == 1, "FLUSH has waited for it"
        name = eventually(lambda: len(errors_objects(own_server)) == 1 and errors_objects(own_server)[0])
        own_server.kill()
        harm(folder / name)
        own_server.start(checkpoint_ms=3_600_000)
        assert any("ERROR" in line and name in line for line in own_server.log_tail(200).splitlines()), own_server.log_tail()
        assert own_server.query("SELECT 1 FROM tidemark.errors") == []


def test_broker_that_is_not_there(server, unique):
    source, began = unique("lost"), time.monotonic()
    error = server.error(f"CREATE SOURCE {source} (x INT) WITH (connector = 'kafka', topic = 't', properties.bootstrap.server = '127.0.0.1:1') FORMAT PLAIN ENCODE JSON")
    assert error.sqlstate.startswith("08") and "127.0.0.1:1" in str(error), error
    assert time.monotonic() - began < 30
    assert server.error(f"SELECT * FROM {source}").sqlstate == "42P01"


def test_broker_that_went_away(kafka, own_server, unique):
    """SHOW JOBS says it of sources and sinks, nobody else is held up, DROP SINK does not wait; and all catch up when it is back."""
    source, sink = kafka.create_topic(unique("in"), 1), kafka.create_topic(unique("out"), 1)
    kafka.produce(source, [(None, {"x": 1})])
    own_server.start()
    own_server.run(f"CREATE SOURCE s (x INT) WITH ({kafka.options(source)}) FORMAT PLAIN ENCODE JSON;\nCREATE MATERIALIZED VIEW v AS SELECT x FROM s;\n"
                   "CREATE TABLE t (id INT PRIMARY KEY, b INT);\n"
                   f"CREATE SINK k FROM t WITH ({kafka.options(sink, primary_key='id')}) FORMAT UPSERT ENCODE JSON KEY ENCODE TEXT;\n"
                   f"CREATE SINK k2 FROM t WITH ({kafka.options(sink, primary_key='id')}) FORMAT UPSERT ENCODE JSON;\nINSERT INTO t VALUES (1, 1);")
    eventually(lambda: len(kafka.read(sink)) == 2)
    troubles = lambda: {row[1]: row[-1] for row in own_server.query("SHOW JOBS") if row[-1]}
    kafka.stop()
    try:
        own_server.query("INSERT INTO t VALUES (2, 2)")
        assert own_server.query("SELECT count(*) FROM t") == [(2,)] and own_server.query("SELECT x FROM v") == [(1,)]
        eventually(lambda: {"public.s", "public.k"} <= set(troubles()), 30)
        assert kafka.broker in troubles()["public.s"] and kafka.broker in troubles()["public.k"], troubles()
        began = time.monotonic()
        own_server.query("DROP SINK k2")
        assert time.monotonic() - began < 2
    finally:
        kafka.start()
    eventually(lambda: kafka.topics(), 30)
    eventually(lambda: not troubles(), 60)
    keyed = eventually(lambda: [(record.key, record.value) for record in kafka.read(sink) if not isinstance(record.key, dict) and record.value["id"] == 2], 30)
    assert keyed == [(2, {"id": 2, "b": 2})]
    kafka.produce(source, [(None, {"x": 2})])
    eventually(lambda: sorted(own_server.query("SELECT x FROM v")) == [(1,), (2,)])


def test_unknown_topic(kafka, server, unique):
    error = server.error(f"CREATE SOURCE {unique('lost')} (x INT) WITH ({kafka.options('there_is_no_such_topic')}) FORMAT PLAIN ENCODE JSON")
    assert "there_is_no_such_topic" in str(error), error


def test_options_are_checked(kafka, server, unique):
    topic, source = kafka.create_topic(unique("topic")), unique("s")
    create = lambda options, format="PLAIN": f"CREATE SOURCE {source} (x INT) WITH ({options}) FORMAT {format} ENCODE JSON"
    for options in (kafka.options(topic, scan__startup__mode="sometimes"), kafka.options(topic, properties__group__id="mine"), kafka.options(topic, colour="green"),
                    kafka.options(topic, properties__plugin__library__paths="x.so"), kafka.options(topic, properties__metadata__broker__list="h:1"), kafka.options(topic, on_error="explode"),
                    kafka.options(topic, scan__startup__mode="timestamp"), kafka.options(topic, properties__no__such="1"),
                    "connector = 'pigeon'", f"connector = 'kafka', topic = '{topic}'"):
        error = server.error(create(options))
        assert error.sqlstate in ("22023", "0A000"), (options, error.sqlstate, str(error))
    assert server.error(create(kafka.options(topic), "UPSERT")), "an upsert source needs a primary key"
    assert "colour" in str(server.error(create(kafka.options(topic)) + " (colour = 'green')")), "an option of the encoding that nobody reads"
    table = unique("t")
    server.run(f"CREATE TABLE {table} (a INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT b, count(*) AS c FROM {table} GROUP BY b;")
    sink = lambda form, **more: f"CREATE SINK {unique('k')} FROM {table}_v WITH ({kafka.options(topic, **more)}) FORMAT {form} ENCODE JSON"
    assert server.error(sink("PLAIN")), "a plain sink on a view that retracts is refused"
    assert server.error(sink("UPSERT", primary_key="c")), "an upsert sink on a key that is not unique is refused"
    assert server.error(sink("UPSERT", primary_key="nope")).sqlstate in ("42703", "22023")
    assert server.error(sink("UPSERT", primary_key="b,b")).sqlstate == "42701"
    for more in ({"force_append_only": "true"}, {"type": "append-only"}, {"properties__acks": "1"}, {"properties__max__in__flight": "9"}, {"delivery": "twice"}):
        assert server.error(sink("UPSERT", primary_key="b", **more)).sqlstate == "22023", more
    assert server.error(sink("UPSERT", primary_key="b,c").replace("ENCODE JSON", "ENCODE JSON KEY ENCODE TEXT")).sqlstate == "22023", "a text key has one column"


def test_names_and_syntax(server, unique):
    table = unique("t")
    server.query(f"CREATE TABLE {table} (id INT PRIMARY KEY, name VARCHAR)")
    error = server.error(f"SELECT id, nmae FROM {table}")
    assert error.sqlstate == "42703" and "nmae" in error.diag.message_primary
    assert error.diag.statement_position == "12", error.diag.statement_position
    assert server.error("SELECT * FROM nowhere").sqlstate == "42P01"
    assert server.error("SELEC 1").sqlstate == "42601"
    assert server.error(f"CREATE TABLE {table} (id INT)").sqlstate == "42P07"
    assert server.error(f"CREATE MATERIALIZED VIEW {table}_w AS SELECT id, random() AS r FROM {table}").sqlstate == "0A000"
    assert server.error(f"SELECT id FROM {table} WHERE name = 1 + 'x'").sqlstate in ("22P02", "42883", "42804")
    server.query(f"CREATE MATERIALIZED VIEW {table}_v AS SELECT id FROM {table}")
    assert server.error(f"DROP TABLE {table}").sqlstate == "2BP01"
    assert server.query(f"SELECT * FROM {table}") == []


def test_damaged_checkpoint(own_server):
    """A flipped byte in a checkpoint file is found by its checksum and reported with the file's name; nothing wrong is answered."""
    own_server.start(checkpoint_ms=200)
    own_server.run("CREATE TABLE kept (id INT PRIMARY KEY, x VARCHAR);\nCREATE MATERIALIZED VIEW kept_count AS SELECT count(*) AS c FROM kept;\n"
                   "INSERT INTO kept SELECT g.value, 'row ' || g.value FROM generate_series(1, 5000) AS g(value);\nFLUSH;")
    assert own_server.stop() == 0
    files = sorted(own_server.data.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    assert files, "the checkpoint has no Parquet file"
    victim = files[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x55
    victim.write_bytes(content)
    own_server.start(wait=False)

    def reported():
        if own_server.running and own_server.ready():
            return victim.name in str(own_server.error("SELECT count(*) FROM kept")) + str(own_server.query("SHOW JOBS"))
        return victim.name in own_server.log_tail(200)

    eventually(reported, 20)


def test_stopped_job_stops_alone(kafka, own_server, unique):
    """`on_error = 'fail'`: the job stops with its reason and keeps its last answer, and the others go on."""
    own_server.start()
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW strict WITH (on_error = 'fail') AS SELECT id, 10 / b AS q FROM t;\n"
                   "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS c FROM t;\nINSERT INTO t VALUES (1, 5);")
    assert own_server.query("SELECT q FROM strict") == [(2,)]
    own_server.query("INSERT INTO t VALUES (2, 0)")
    eventually(lambda: own_server.query("SELECT c FROM other") == [(2,)])

    eventually(lambda: any("stopped" in row and "division by zero" in str(row) for row in own_server.query("SHOW JOBS")))
    assert own_server.query("SELECT q FROM strict") == [(2,)]
    own_server.query("INSERT INTO t VALUES (3, 1)")
    assert own_server.query("SELECT c FROM other") == [(3,)]
    own_server.query("DROP MATERIALIZED VIEW strict")
    assert own_server.query("SELECT count(*) FROM t") == [(3,)]


def test_json_that_nests_deep(kafka, server, unique):
    """JSON as deep as PostgreSQL takes it is taken; 100,000 levels are an error of their record or statement, and nothing else happens."""
    nested = lambda levels: "[" * levels + "]" * levels
    topic, name = kafka.create_topic(unique("deep"), 1), unique("deep")
    kafka.produce(topic, [(None, f'{{"k": {k}, "v": {nested(levels)}}}'.encode()) for k, levels in enumerate((11_990, 100_000, 1))])
    server.run(f"CREATE SOURCE {name}_s (k INT, v JSONB) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
               f"CREATE MATERIALIZED VIEW {name}_v AS SELECT k, v FROM {name}_s;\nCREATE MATERIALIZED VIEW {name}_k AS SELECT k FROM {name}_s;\n"
               f"CREATE TABLE {name}_t (k INT PRIMARY KEY, v JSONB);")
    assert sorted(server.query(f"SELECT k, length(v::text) FROM {name}_v")) == [(0, 23_980), (2, 2)]
    assert sorted(server.query(f"SELECT k FROM {name}_k")) == [(0,), (2,)]
    assert server.query(f"SELECT \"offset\", sqlstate FROM tidemark.errors WHERE relation = '{name}_s'") == [(1, "54001")]

    def copy(connection, text):
        with connection.cursor().copy(f"COPY {name}_t FROM STDIN") as rows:
            rows.write_row((3, text))

    ways = {
        "literal": lambda connection, text: connection.execute(f"INSERT INTO {name}_t VALUES (1, '{text}')"),
        "parameter": lambda connection, text: connection.execute(f"INSERT INTO {name}_t VALUES (2, %s)", (text,)),
        "COPY": copy,
        "cast": lambda connection, text: connection.execute(f"SELECT '{text}'::jsonb"),
        "parameter's cast": lambda connection, text: connection.execute("SELECT %s::jsonb", (text,)),
        "computed": lambda connection, text: connection.execute(f"INSERT INTO {name}_t SELECT 4, (repeat('[', {len(text) // 2}) || repeat(']', {len(text) // 2}))::jsonb"),
    }
    for way, run in ways.items():
        with server.connect() as connection:
            run(connection, nested(11_990))
            with pytest.raises(psycopg.Error) as raised:
                run(connection, nested(100_000))
            assert raised.value.sqlstate == "54001", (way, raised.value)
    assert sorted(server.query(f"SELECT k, length(v::text) FROM {name}_t")) == [(k, 23_980) for k in (1, 2, 3, 4)]
