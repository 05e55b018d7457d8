"""Secrets: what nobody reads who is not meant to, in no file, log, catalog or message; and that they work."""

import re
import stat
from contextlib import suppress

import psycopg
import pytest

from harness import Tidemark, eventually

HIDDEN = ["hunter2-named", "hunter2-inline", "hunter2-sink", "hunter2-role", "hunter2-wrong", "hunter2-later", "hunter2-kept"]


@pytest.fixture
def own(folder, request):
    """A server of this test's own, not started."""
    server = Tidemark(folder / request.node.name)
    yield server
    server.kill()


def files_with(server, words):
    """The files of a server, its log among them, in which one of these words stands."""
    found = []
    for path in [path for path in server.data.rglob("*") if path.is_file()] + [server.log_path]:
        with suppress(FileNotFoundError):  # one that was replaced meanwhile
            text = path.read_bytes()
            found += [(str(path), word) for word in words if word.encode() in text]
    return found


def error(server, text):
    """SQLSTATE and message of a statement's error."""
    with pytest.raises(psycopg.Error) as caught:
        server.query(text)
    return caught.value.sqlstate, str(caught.value)


def source(name, kafka, topic, password, more=""):
    # Without SASL the broker asks for no password; the client takes it all the same.
    return (f"CREATE SOURCE {name} (id INT) WITH (connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{kafka.broker}', "
            f"properties.ssl.key.password = {password}{more}) FORMAT PLAIN ENCODE JSON")


def everything_shown(server):
    """All that the server tells of its relations and statements, as one text."""
    shown = []
    for query in ["SHOW CREATE SOURCE a", "SHOW CREATE SOURCE b", "SHOW CREATE SINK k", "SHOW SECRETS", "SHOW JOBS", "SHOW SOURCES", "SHOW PROCESSLIST", "SELECT * FROM tidemark.relations",
                  "SELECT * FROM pg_catalog.pg_stat_activity", "SELECT * FROM pg_catalog.pg_class", "SELECT * FROM pg_catalog.pg_authid", "SELECT * FROM information_schema.tables"]:
        shown.append(str(server.query(query)))
    return "\n".join(shown)


def test_secrets_work_and_are_nowhere(own, kafka, unique, monkeypatch):
    monkeypatch.setenv("TIDEMARK_LOG", "debug")
    topic = unique("secrets")
    kafka.create_topic(topic)
    kafka.create_topic(f"{topic}-out")
    kafka.produce(topic, [(None, {"id": 1})])
    own.start(checkpoint_ms=200)
    own.query("CREATE SECRET pass WITH (backend = 'meta') AS 'hunter2-named'")
    own.query("CREATE SECRET IF NOT EXISTS pass WITH (backend = 'meta') AS 'hunter2-kept'")
    own.query(source("a", kafka, topic, "SECRET pass"))
    own.query(source("b", kafka, topic, "'hunter2-inline'"))
    own.query("CREATE MATERIALIZED VIEW ids AS SELECT a.id FROM a JOIN b ON a.id = b.id")
    own.query(f"CREATE SINK k FROM ids WITH (connector = 'kafka', topic = '{topic}-out', properties.bootstrap.server = '{kafka.broker}', type = 'append-only', "
              "force_append_only = 'true', properties.ssl.key.password = $$hunter2-sink$$)")
    own.query("CREATE USER ann PASSWORD 'hunter2-role'")
    # A statement that fails, with the value that is to blame: this broker knows no SASL.
    login = ", properties.security.protocol = 'sasl_plaintext', properties.sasl.mechanism = 'PLAIN', properties.sasl.username = 'u', properties.sasl.password = 'hunter2-wrong'"
    wrong = source("c", kafka, topic, "SECRET pass", login)
    assert "hunter2" not in error(own, wrong)[1]
    shown = everything_shown(own)
    assert not [word for word in HIDDEN if word in shown]
    assert "properties.ssl.key.password = SECRET pass" in own.value("SELECT definition FROM tidemark.relations WHERE name = 'a'")
    assert "properties.ssl.key.password = '********'" in own.value("SELECT definition FROM tidemark.relations WHERE name = 'b'")
    assert own.query("SHOW SECRETS") == [("pass",)]
    for again in range(2):
        eventually(lambda: own.value("SELECT count(*) FROM ids") == 1)
        assert files_with(own, HIDDEN) == []
        own.kill() if again else own.stop()
        own.start(checkpoint_ms=200)
    key = own.data / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    own.query("ALTER SECRET pass AS 'hunter2-later'")
    assert files_with(own, HIDDEN) == []

    state, text = error(own, "DROP SECRET pass")
    assert state == "2BP01" and "source a depends on secret pass" in text
    assert error(own, "DROP SECRET none")[0] == "42704" and error(own, "ALTER SECRET none AS 'x'")[0] == "42704"
    assert error(own, "CREATE SECRET pass WITH (backend = 'meta') AS 'x'")[0] == "42710"
    assert error(own, "CREATE SECRET q WITH (backend = 'vault') AS 'x'")[0] == "0A000"
    assert error(own, source("c", kafka, topic, "SECRET none"))[0] == "42704"
    with psycopg.connect(host="127.0.0.1", port=own.port, dbname="dev", user="ann", password="hunter2-role", autocommit=True) as ann:
        own.query("GRANT CREATE ON SCHEMA public TO ann")
        for statement in ["DROP SECRET pass", "ALTER SECRET pass AS 'x'", source("mine", kafka, topic, "SECRET pass")]:
            with pytest.raises(psycopg.Error, match="must be owner of secret pass"):
                ann.execute(statement)
        ann.execute("CREATE SECRET mine WITH (backend = 'meta') AS 'x'")
        ann.execute("DROP SECRET mine")
    for statement in ["DROP SINK k", "DROP MATERIALIZED VIEW ids", "DROP SOURCE a", "DROP SECRET pass", "DROP SECRET IF EXISTS pass"]:
        own.query(statement)
    assert own.query("SHOW SECRETS") == []


def test_the_wrong_key_opens_nothing_and_loses_nothing(own):
    own.start()
    own.query("CREATE SECRET s WITH (backend = 'meta') AS 'hunter2-named'")
    own.query("CREATE TABLE t (id INT PRIMARY KEY)")
    own.query("INSERT INTO t VALUES (1)")
    own.stop()
    key = own.data / "secret.key"
    aside = key.rename(own.data.parent / "aside.key")
    said = own.refused()
    assert re.search(r"secrets were sealed with key [0-9a-f]{8}, and \S+secret.key is missing", said) and "TIDEMARK_SECRET_KEY" in said
    other = own.data.parent / "other.key"
    other.write_text("00" * 32)
    assert re.search(r"secrets were sealed with key [0-9a-f]{8}, and secret_key_file \S+ has key [0-9a-f]{8}", own.refused(secret_key_file=other))
    other.write_text("nonsense")
    assert "has no key of 32 bytes" in own.refused(secret_key_file=other)
    assert not key.exists()
    own.start(secret_key_file=aside)
    assert own.query("SHOW SECRETS") == [("s",)] and own.query("SELECT * FROM t") == [(1,)]
    own.stop()
    own.start(secret_key=aside.read_text())
    assert own.query("SHOW SECRETS") == [("s",)]


def test_what_messages_show_is_no_secret(own):
    own.start()
    own.query("CREATE SECRET s WITH (backend = 'meta') AS 'hunter2-named:9092'")
    for option in ["properties.bootstrap.server", "properties.bootstrap.servers"]:
        state, text = error(own, f"CREATE SOURCE a (id INT) WITH (connector = 'kafka', topic = 't', {option} = SECRET s) FORMAT PLAIN ENCODE JSON")
        assert state == "22023" and f'option "{option}" cannot be a secret' in text
    for more in ["topic = SECRET s, properties.bootstrap.server = '127.0.0.1:1'", "topic = 't', properties.bootstrap.server = '127.0.0.1:1', properties.client.id = SECRET s"]:
        assert error(own, f"CREATE SOURCE a (id INT) WITH (connector = 'kafka', {more}) FORMAT PLAIN ENCODE JSON")[0] == "22023"
    assert "hunter2" not in own.log_path.read_text()
    for statement in ["CREATE SECRET q WITH (backend = 'meta') AS hunter2", "ALTER SECRET s AS hunter2", "CREATE USER x WITH PASSWORD hunter2", "ALTER USER root PASSWORD hunter2"]:
        assert error(own, statement)[0] == "42601"


def test_what_is_done_and_refused_is_a_line_of_the_log(own):
    own.start()
    own.query("CREATE USER ann PASSWORD 'hunter2-role'")
    own.query("CREATE TABLE t (id INT)")
    own.query("GRANT INSERT ON t\nTO ann")
    own.query("CREATE SECRET s WITH (backend = 'meta') AS 'hunter2-named'")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host="127.0.0.1", port=own.port, dbname="dev", user="ann", password="hunter2-wrong")
    with psycopg.connect(host="127.0.0.1", port=own.port, dbname="dev", user="ann", password="hunter2-role", autocommit=True) as ann:
        for statement in ["SELECT * FROM t WHERE id = 5", "DROP TABLE t"]:
            with pytest.raises(psycopg.Error) as caught:
                ann.execute(statement)
            assert caught.value.sqlstate == "42501"
    log = own.log_path.read_text()
    lines = log.splitlines()

    def line(*words):
        return [each for each in lines if all(word in each for word in words)]

    assert len(line(" changed ", "user=\"root\"", "127.0.0.1", "CREATE TABLE t (id INT)")) == 1
    assert len(line(" changed ", "GRANT INSERT ON t\\nTO ann")) == 1
    assert len(line(" changed ", "CREATE USER ann PASSWORD '********'")) == 1
    assert len(line(" changed ", "CREATE SECRET s WITH (backend = 'meta') AS '********'")) == 1
    assert len(line(" login refused ", "user=\"ann\"", "28P01", "127.0.0.1")) == 1
    assert len(line(" logged in ", "user=\"ann\"")) == 1
    assert len(line(" refused ", "user=\"ann\"", "42501", "permission denied for table t", "SELECT * FROM t WHERE id = 5")) == 1
    assert len(line(" refused ", "user=\"ann\"", "42501", "must be owner of table t", "DROP TABLE t")) == 1
    assert "hunter2" not in log
