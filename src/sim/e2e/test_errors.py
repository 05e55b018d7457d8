"""Bad input: each a clear error where the user looks, the server stays up, and nothing else is harmed."""

import time

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


def test_broker_that_is_not_there(server, unique):
    source, began = unique("lost"), time.monotonic()
    error = server.error(f"CREATE SOURCE {source} (x INT) WITH (connector = 'kafka', topic = 't', properties.bootstrap.server = '127.0.0.1:1') FORMAT PLAIN ENCODE JSON")
    assert error.sqlstate.startswith("08") and "127.0.0.1:1" in str(error), error
    assert time.monotonic() - began < 30
    assert server.error(f"SELECT * FROM {source}").sqlstate == "42P01"


def test_unknown_topic(kafka, server, unique):
    error = server.error(f"CREATE SOURCE {unique('lost')} (x INT) WITH ({kafka.options('there_is_no_such_topic')}) FORMAT PLAIN ENCODE JSON")
    assert "there_is_no_such_topic" in str(error), error


def test_options_are_checked(kafka, server, unique):
    topic, source = kafka.create_topic(unique("topic")), unique("s")
    create = lambda options, format="PLAIN": f"CREATE SOURCE {source} (x INT) WITH ({options}) FORMAT {format} ENCODE JSON"
    for options in (kafka.options(topic, scan__startup__mode="sometimes"), kafka.options(topic, properties__group__id="mine"), kafka.options(topic, colour="green"),
                    "connector = 'pigeon'", f"connector = 'kafka', topic = '{topic}'"):
        error = server.error(create(options))
        assert error.sqlstate in ("22023", "0A000"), (options, error.sqlstate, str(error))
    assert server.error(create(kafka.options(topic), "UPSERT")), "an upsert source needs a primary key"
    table = unique("t")
    server.run(f"CREATE TABLE {table} (a INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW {table}_v AS SELECT b, count(*) AS c FROM {table} GROUP BY b;")
    sink = lambda form, **more: f"CREATE SINK {unique('k')} FROM {table}_v WITH ({kafka.options(topic, **more)}) FORMAT {form} ENCODE JSON"
    assert server.error(sink("PLAIN")), "a plain sink on a view that retracts is refused"
    assert server.error(sink("UPSERT", primary_key="c")), "an upsert sink on a key that is not unique is refused"
    assert server.error(sink("UPSERT", primary_key="nope")).sqlstate in ("42703", "22023")


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
    """`on_error = 'fail'`: the job stops with its reason, keeps its last answer away from readers, and the others go on."""
    own_server.start()
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, b INT);\nCREATE MATERIALIZED VIEW strict WITH (on_error = 'fail') AS SELECT id, 10 / b AS q FROM t;\n"
                   "CREATE MATERIALIZED VIEW other AS SELECT count(*) AS c FROM t;\nINSERT INTO t VALUES (1, 5);")
    assert own_server.query("SELECT q FROM strict") == [(2,)]
    own_server.query("INSERT INTO t VALUES (2, 0)")
    eventually(lambda: own_server.query("SELECT c FROM other") == [(2,)])

    def stopped():
        error = own_server.error("SELECT * FROM strict")
        return error.sqlstate == "55000" and "division by zero" in str(error)

    eventually(stopped)
    assert any("division by zero" in str(row) for row in own_server.query("SHOW JOBS"))
    own_server.query("INSERT INTO t VALUES (3, 1)")
    assert own_server.query("SELECT c FROM other") == [(3,)]
    own_server.query("DROP MATERIALIZED VIEW strict")
    assert own_server.query("SELECT count(*) FROM t") == [(3,)]
