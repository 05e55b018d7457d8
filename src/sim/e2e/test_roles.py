"""Who comes in, and what each may do: passwords, certificates, privileges, through restarts."""

import base64
import re
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress

import psycopg
import pytest

from harness import Tidemark, eventually


@pytest.fixture
def own(folder, request):
    """A server of this test's own, not started."""
    server = Tidemark(folder / request.node.name)
    yield server
    server.kill()


def connect(server, user, password=None, host="127.0.0.1", **options):
    return psycopg.connect(host=host, port=server.port, dbname="dev", user=user, password=password, connect_timeout=15, autocommit=True, **options)


def state(error):
    """The SQLSTATE of a statement's error; of one at login, what the message says."""
    return error.value.sqlstate or str(error.value)


def certificate(folder, name):
    """A new certificate of localhost, which signs itself, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return cert, key


def test_a_password_is_asked_for_and_kept(own):
    own.start()
    own.query("CREATE USER ann PASSWORD 'first'")
    own.query("CREATE ROLE staff")
    with connect(own, "ann", "first") as ann:
        assert ann.execute("SELECT current_user").fetchone() == ("ann",)
        ann.execute("ALTER USER ann PASSWORD 'second'")
    log = b"".join(path.read_bytes() for path in own.data.rglob("*") if path.is_file())
    assert b"first" not in log and b"second" not in log and b"SCRAM-SHA-256$4096" in log
    for again in range(2):
        for user, password, expected in [("ann", "first", "authentication failed"), ("nobody", "x", "authentication failed"), ("staff", "x", "authentication failed")]:
            with pytest.raises(psycopg.OperationalError, match=expected):
                connect(own, user, password)
        connect(own, "ann", "second").close()
        if not again:
            own.stop()
            own.start()
    own.query("ALTER USER ann VALID UNTIL '2020-01-01'")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        connect(own, "ann", "second")
    own.query("ALTER USER ann VALID UNTIL 'infinity' NOLOGIN")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        connect(own, "ann", "second")
    # root has no password, and comes from this machine.
    assert own.query("SELECT rolname, rolsuper, rolcanlogin FROM pg_roles ORDER BY 1") == [("ann", False, False), ("root", True, True), ("staff", False, False)]
    own.query("DROP USER ann")
    with pytest.raises(psycopg.OperationalError, match="authentication failed|does not exist"):
        connect(own, "ann", "second")


def test_wrong_passwords_take_longer_each_time(own):
    own.start()
    own.query("ALTER USER root PASSWORD 'right'")
    begun = time.monotonic()
    for _ in range(4):
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            connect(own, "root", "wrong")
    # 250, 500, 1000, 2000 ms.
    assert time.monotonic() - begun > 3.5
    connect(own, "root", "right").close()


def test_a_role_does_what_was_granted_and_no_more(own):
    own.start()
    for statement in ["CREATE USER ann; CREATE USER bob; CREATE ROLE staff", "CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)",
                      "CREATE VIEW w AS SELECT id FROM t", "CREATE MATERIALIZED VIEW s AS SELECT sum(v) AS v FROM t", "CREATE SCHEMA shop", "CREATE TABLE shop.x (a INT)"]:
        for one in statement.split(";"):
            own.query(one)
    denied = [
        "SELECT * FROM t", "SELECT v FROM t WHERE id = 1", "SELECT * FROM w", "SELECT * FROM s", "INSERT INTO t VALUES (3, 3)", "UPDATE t SET v = 2", "DELETE FROM t",
        "CREATE TABLE q (a INT)", "CREATE SCHEMA other", "DROP TABLE t", "ALTER TABLE t RENAME TO u", "COMMENT ON TABLE t IS 'x'", "CREATE USER eve", "GRANT SELECT ON t TO ann",
        "SELECT * FROM shop.x", "CREATE INDEX ON t (v)", "EXPLAIN SELECT * FROM t", "COPY t FROM STDIN", "COPY t TO STDOUT", "ALTER USER bob PASSWORD 'x'", "ALTER USER ann SUPERUSER",
        "GRANT staff TO ann", "SELECT count(*) FROM w, t", "SELECT (SELECT max(v) FROM t)", "DROP SCHEMA shop CASCADE", "CREATE TABLE c AS SELECT * FROM t",
    ]
    with connect(own, "ann") as ann, connect(own, "bob") as bob:
        for statement in denied:
            with pytest.raises(psycopg.Error) as error:
                ann.execute(statement)
            assert state(error) == "42501", (statement, str(error.value))
        assert ann.execute("SELECT has_table_privilege('t', 'select'), has_schema_privilege('public', 'usage, create'), has_table_privilege('root', 't', 'insert')").fetchone() == (False, True, True)
        # The options of a connector, which may have passwords, are its owner's.
        own.query("CREATE SOURCE numbers (n BIGINT) WITH (connector = 'datagen', datagen.rows.total = '5')")
        assert ann.execute("SELECT definition FROM tidemark.relations WHERE name = 'numbers'").fetchone() == ("",)
        assert own.value("SELECT definition FROM tidemark.relations WHERE name = 'numbers'").startswith("CREATE SOURCE")
        with pytest.raises(psycopg.Error, match="must be owner of source numbers"):
            ann.execute("SHOW CREATE SOURCE numbers")
        for statement in ["GRANT SELECT ON w TO ann", "GRANT SELECT ON t TO staff", "GRANT staff TO bob", "GRANT INSERT, UPDATE ON TABLE t TO bob", "GRANT CREATE ON SCHEMA public TO bob",
                          "GRANT USAGE ON SCHEMA shop TO PUBLIC", "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO PUBLIC"]:
            own.query(statement)
        # Through the view, and not beside it.
        assert ann.execute("SELECT count(*) FROM w").fetchone() == (2,)
        assert ann.execute("SELECT * FROM shop.x").fetchall() == []
        for statement in ["SELECT * FROM t", "SELECT * FROM w JOIN t USING (id)", "WITH w AS (SELECT * FROM t) SELECT * FROM w"]:
            with pytest.raises(psycopg.Error) as error:
                ann.execute(statement)
            assert state(error) == "42501", statement
        assert bob.execute("SELECT v FROM t WHERE id = %s", [1], prepare=True).fetchone() == (1,)
        bob.execute("INSERT INTO t VALUES (3, 3) ON CONFLICT (id) DO UPDATE SET v = 9")
        bob.execute("UPDATE t SET v = 5 WHERE id = 3")
        bob.execute("CREATE MATERIALIZED VIEW mine AS SELECT sum(v) AS v FROM t")
        assert bob.execute("SELECT v FROM mine").fetchone() == (8,)
        with pytest.raises(psycopg.Error, match="must be owner"):
            bob.execute("DROP MATERIALIZED VIEW s")
        with pytest.raises(psycopg.Error, match="permission denied for table t"):
            bob.execute("DELETE FROM t")
        own.query("CREATE OR REPLACE VIEW w AS SELECT id FROM t WHERE id > 1")
        assert ann.execute("SELECT count(*) FROM w").fetchone() == (2,)
    own.kill()
    own.start()
    with connect(own, "bob") as bob:
        assert bob.execute("SELECT v FROM t WHERE id = %s", [1], prepare=True).fetchone() == (1,)
        own.query("REVOKE SELECT ON t FROM staff")
        with pytest.raises(psycopg.Error) as error:
            bob.execute("SELECT v FROM t WHERE id = %s", [1], prepare=True)
        assert state(error) == "42501"
    for statement, expected in [("DROP ROLE bob", "2BP01"), ("GRANT SELECT ON t TO nobody", "42704"), ("GRANT SELECT ON nothing TO bob", "42P01"), ("GRANT bob TO staff", "0LP01"),
                                ("GRANT EXECUTE ON t TO bob", "0LP01"), ("GRANT SELECT (id) ON t TO bob", "0A000"), ("CREATE ROLE bob", "42710"), ("DROP ROLE root", "55006")]:
        with pytest.raises(psycopg.Error) as error:
            own.query(statement)
        assert state(error) == expected, (statement, str(error.value))
    assert own.query("SELECT relacl FROM pg_class WHERE relname = 't'") == [(["bob=aw/root", "root=rawd/root"],)]
    for statement in ["ALTER MATERIALIZED VIEW mine OWNER TO root", "REVOKE ALL ON t FROM bob", "REVOKE ALL ON SCHEMA public FROM bob", "REVOKE CONNECT ON DATABASE dev FROM PUBLIC"]:
        own.query(statement)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(own, "bob")
    own.query("DROP ROLE bob, staff")


def test_grant_options_go_on_and_come_back(own):
    own.start()
    for statement in ["CREATE USER ann", "CREATE USER bob", "CREATE USER cid", "CREATE TABLE t (id INT)", "GRANT SELECT ON t TO ann WITH GRANT OPTION"]:
        own.query(statement)

    def warned(connection, statement):
        said = []
        connection.add_notice_handler(lambda diagnostic: said.append((diagnostic.sqlstate, diagnostic.message_primary)))
        connection.execute(statement)
        return said[-1:] or None

    def acl():
        return own.value("SELECT relacl FROM pg_class WHERE relname = 't'")

    with connect(own, "ann") as ann, connect(own, "bob") as bob, connect(own, "cid") as cid:
        assert warned(ann, "GRANT SELECT ON t TO bob") is None
        assert warned(ann, "GRANT INSERT ON t TO bob") == [("01007", 'no privileges were granted for "t"')]
        assert warned(ann, "GRANT SELECT, INSERT ON t TO bob") == [("01007", 'not all privileges were granted for "t"')]
        assert warned(bob, "GRANT SELECT ON t TO cid") == [("01007", 'no privileges were granted for "t"')]
        with pytest.raises(psycopg.Error, match="permission denied for table t"):
            cid.execute("GRANT SELECT ON t TO bob")
        assert bob.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert acl() == ["ann=r*/root", "bob=r/ann", "root=rawd/root"]
        for role, privilege, expected in [("ann", "select", True), ("bob", "select", False), ("ann", "insert", False), ("root", "delete", True)]:
            assert own.value(f"SELECT has_table_privilege('{role}', 't', '{privilege} with grant option')") is expected
        for statement, expected in [("REVOKE SELECT ON t FROM ann", "2BP01"), ("REVOKE GRANT OPTION FOR SELECT ON t FROM ann", "2BP01"),
                                    ("GRANT SELECT ON t TO PUBLIC WITH GRANT OPTION", "0LP01"), ("DROP ROLE ann", "2BP01")]:
            with pytest.raises(psycopg.Error) as error:
                own.query(statement)
            assert state(error) == expected, (statement, str(error.value))
        own.kill()
        own.start()
        own.query("REVOKE GRANT OPTION FOR SELECT ON t FROM ann CASCADE")
        assert acl() == ["ann=r/root", "root=rawd/root"]
    with connect(own, "ann") as ann, connect(own, "bob") as bob:
        own.query("GRANT SELECT ON t TO ann WITH GRANT OPTION")
        ann.execute("GRANT SELECT ON t TO bob WITH GRANT OPTION")
        with pytest.raises(psycopg.Error, match="grant options cannot be granted back to your own grantor"):
            bob.execute("GRANT SELECT ON t TO ann WITH GRANT OPTION")
        own.query("REVOKE ALL ON t FROM ann CASCADE")
        assert acl() is None


def test_defaults_are_granted_on_what_is_made_later(own):
    own.start()
    for statement in ["CREATE USER ann", "CREATE USER bob", "CREATE SCHEMA shop", "CREATE TABLE before (id INT)", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO ann WITH GRANT OPTION",
                      "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT INSERT ON TABLES TO bob", "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO PUBLIC"]:
        own.query(statement)
    own.kill()
    own.start()
    for statement in ["CREATE TABLE t (id INT)", "CREATE TABLE shop.t (id INT)", "CREATE SCHEMA later"]:
        own.query(statement)
    acls = dict(own.query("SELECT oid::regclass::text, relacl FROM pg_class WHERE relname IN ('t', 'before') AND relkind = 'r'"))
    assert acls == {"before": None, "t": ["ann=r*/root", "root=rawd/root"], "shop.t": ["ann=r*/root", "bob=a/root", "root=rawd/root"]}
    assert own.value("SELECT has_schema_privilege('bob', 'later', 'usage')") is True and own.value("SELECT has_schema_privilege('bob', 'shop', 'usage')") is False
    assert own.query("SELECT defaclrole, nspname, defaclobjtype, defaclacl FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace ORDER BY 2 NULLS FIRST, 3") == [
        (10, None, "n", ["=U/root", "root=UC/root"]), (10, None, "r", ["ann=r*/root", "root=rawd/root"]), (10, "shop", "r", ["bob=a/root"])]
    with connect(own, "ann") as ann:
        with pytest.raises(psycopg.Error) as error:
            ann.execute("ALTER DEFAULT PRIVILEGES FOR ROLE root GRANT SELECT ON TABLES TO ann")
        assert state(error) == "42501"
    for statement, expected in [("ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT USAGE ON SCHEMAS TO bob", "0LP01"), ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO nobody", "42704"),
                                ("ALTER DEFAULT PRIVILEGES IN SCHEMA none GRANT SELECT ON TABLES TO bob", "3F000"), ("DROP ROLE bob", "2BP01"),
                                ("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO bob", "0A000")]:
        with pytest.raises(psycopg.Error) as error:
            own.query(statement)
        assert state(error) == expected, (statement, str(error.value))
    own.query("ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM ann")
    own.query("CREATE TABLE u (id INT)")
    assert own.value("SELECT relacl FROM pg_class WHERE relname = 'u'") is None


def test_a_view_reads_for_its_owner_alone(own):
    own.start()
    for statement in ["CREATE USER ann", "CREATE USER bob", "CREATE TABLE t (id INT)", "INSERT INTO t VALUES (1)", "CREATE VIEW inner_view AS SELECT id FROM t",
                      "GRANT CREATE ON SCHEMA public TO ann", "GRANT SELECT ON inner_view TO ann"]:
        own.query(statement)
    with connect(own, "ann") as ann, connect(own, "bob") as bob:
        # Over the view of somebody else, without a right on what is below it.
        ann.execute("CREATE VIEW outer_view AS SELECT id FROM inner_view")
        ann.execute("CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM inner_view")
        ann.execute("GRANT SELECT ON outer_view TO bob")
        assert ann.execute("SELECT * FROM kept").fetchall() == [(1,)]
        assert bob.execute("SELECT * FROM outer_view").fetchall() == [(1,)]
        with pytest.raises(psycopg.Error, match="permission denied for view inner_view"):
            bob.execute("SELECT * FROM inner_view")
        own.query("REVOKE SELECT ON inner_view FROM ann")
        with pytest.raises(psycopg.Error, match="permission denied for view inner_view"):
            bob.execute("SELECT * FROM outer_view")


def test_errors_are_for_who_may_read_the_relation(own, kafka, unique):
    topic = unique("errors")
    kafka.create_topic(topic)
    kafka.produce(topic, [(None, b"no json")])
    own.start()
    own.query("CREATE USER ann")
    own.query(f"CREATE TABLE bad (id INT) APPEND ONLY WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON")
    eventually(lambda: own.value("SELECT count(*) FROM tidemark.errors") == 1)
    with connect(own, "ann") as ann:
        assert ann.execute("SELECT count(*) FROM tidemark.errors").fetchone() == (0,)
        own.query("GRANT SELECT ON bad TO ann")
        assert ann.execute("SELECT relation FROM tidemark.errors").fetchall() == [("bad",)]


def test_the_number_of_a_role_stays(own):
    own.start()
    for name in ["cid", "ann", "bob"]:
        own.query(f"CREATE ROLE {name}")
    before = dict(own.query("SELECT rolname, oid FROM pg_roles"))
    own.query("DROP ROLE ann")
    own.query("ALTER ROLE bob LOGIN")
    own.query("CREATE ROLE aaa")
    own.kill()
    own.start()
    after = dict(own.query("SELECT rolname, oid FROM pg_roles"))
    assert after["aaa"] not in before.values() and all(after[name] == before[name] for name in ["root", "bob", "cid"])
    assert own.value(f"SELECT pg_get_userbyid({after['bob']})") == "bob"


def test_others_reach_no_open_door(own, folder):
    said = own.refused(host="0.0.0.0")
    assert "no user has a password, and there is no TLS certificate" in said and "--first-password" in said
    cert, key = certificate(folder, "doors")
    said = own.refused(host="0.0.0.0", tls_cert=cert, tls_key=key)
    assert "no user has a password" in said and "no TLS certificate" not in said
    assert "tls_cert and tls_key go together" in own.refused(tls_cert=cert)
    assert "doors.none" in own.refused(tls_cert=folder / "doors.none", tls_key=key)
    own.start(host="0.0.0.0", insecure="true")
    assert own.value("SELECT 1") == 1


def test_tls_with_a_first_password(own, folder):
    cert, key = certificate(folder, "first")
    begun = dict(host="0.0.0.0", wait=False, arguments=["--first-password"], tls_cert=cert, tls_key=key)
    own.start(**begun)
    shown = eventually(lambda: re.search(r"password  (\S+)", own.log_path.read_text()), 30)
    password = shown.group(1)
    with connect(own, "root", password, "localhost", sslmode="verify-full", sslrootcert=cert) as root:
        assert root.pgconn.ssl_in_use and root.execute("SELECT 1").fetchone() == (1,)
    # Without TLS the password is asked for all the same, also on this machine.
    connect(own, "root", password, sslmode="disable").close()
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(own, "root")
    trusting = ssl.create_default_context(cafile=cert)
    assert urllib.request.urlopen(f"https://localhost:{own.port + 1}/ready", context=trusting, timeout=5).status == 200
    # Another certificate, while the server runs.
    other, _ = certificate(folder, "second")
    other.replace(cert)
    (folder / "second.key").replace(key)
    with connect(own, "root", password, "localhost", sslmode="require") as old:
        own.process.send_signal(signal.SIGHUP)
        eventually(lambda: "certificate and key were read again" in own.log_path.read_text(), 10)
        connect(own, "root", password, "localhost", sslmode="verify-full", sslrootcert=cert).close()
        assert old.execute("SELECT 2").fetchone() == (2,)
    cert.write_text("no certificate")
    own.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the certificate stays as it was" in own.log_path.read_text(), 10)
    connect(own, "root", password, "localhost", sslmode="require").close()


def test_clients_show_certificates_where_they_are_asked_for(own, folder):
    cert, key = certificate(folder, "server")
    authority, authority_key = certificate(folder, "authority")
    client, client_key, request = folder / "client.crt", folder / "client.key", folder / "client.csr"
    subprocess.run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", client_key, "-out", request, "-subj", "/CN=root"], check=True, capture_output=True)
    extensions = folder / "client.ext"
    extensions.write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
    subprocess.run(["openssl", "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", client],
                   check=True, capture_output=True)
    client_key.chmod(0o600)
    own.start(wait=False, tls_cert=cert, tls_key=key, tls_client_ca=authority)
    eventually(lambda: "is ready" in own.log_path.read_text(), 30)
    connect(own, "root", None, "localhost", sslmode="verify-full", sslrootcert=cert, sslcert=client, sslkey=client_key).close()
    with pytest.raises(psycopg.OperationalError):
        connect(own, "root", None, "localhost", sslmode="verify-full", sslrootcert=cert)


def test_a_client_takes_a_role_and_its_rights_alone(own):
    own.start()
    for statement in ["CREATE USER ann", "CREATE USER eve", "CREATE ROLE staff", "GRANT staff TO ann", "CREATE TABLE sec (id INT PRIMARY KEY)", "INSERT INTO sec VALUES (1)",
                      "CREATE TABLE shared (id INT PRIMARY KEY)", "GRANT SELECT ON shared TO staff", "GRANT CREATE ON SCHEMA public TO staff"]:
        own.query(statement)

    def who(client):
        return client.execute("SELECT session_user, current_user, current_role, current_setting('is_superuser'), current_setting('role')").fetchone()

    def refused(client, statement, expected):
        with pytest.raises(psycopg.Error) as error:
            client.execute(statement)
        assert state(error) == expected, (statement, str(error.value))

    with connect(own, "root") as root, connect(own, "ann") as ann:
        assert who(root) == ("root", "root", "root", "on", "none") and who(ann) == ("ann", "ann", "ann", "off", "none")
        # A superuser gives up what it may do; a lookup that was kept is refused like any other.
        root.execute("SELECT id FROM sec WHERE id = %s", [1], prepare=True)
        root.execute("SET ROLE eve")
        assert who(root) == ("root", "eve", "eve", "off", "eve") and root.info.parameter_status("is_superuser") == "off"
        for statement in ["SELECT * FROM sec", "DELETE FROM sec", "INSERT INTO sec VALUES (2)", "CREATE USER bob", "CREATE TABLE q (a INT)", "COPY sec TO STDOUT"]:
            refused(root, statement, "42501")
        with pytest.raises(psycopg.Error, match="permission denied"):
            root.execute("SELECT id FROM sec WHERE id = %s", [1], prepare=True)
        root.execute("RESET ALL")
        assert who(root)[1] == "eve"
        root.execute("RESET ROLE")
        assert who(root)[1:4] == ("root", "root", "on") and root.execute("SELECT count(*) FROM sec").fetchone() == (1,)
        # With a transaction it comes and goes.
        root.execute("BEGIN")
        root.execute("SET LOCAL ROLE eve")
        assert who(root)[1] == "eve"
        root.execute("COMMIT")
        assert who(root)[1:4] == ("root", "root", "on")
        root.execute("BEGIN")
        root.execute("SET ROLE eve")
        root.execute("ROLLBACK")
        assert who(root)[1:4] == ("root", "root", "on")
        assert root.execute("SELECT set_config('role', 'eve', false)").fetchone() == ("eve",)
        refused(root, "SELECT * FROM sec", "42501")
        root.execute("SET ROLE none")
        # Another session's user altogether: the role is its own again.
        root.execute("SET SESSION AUTHORIZATION ann")
        root.execute("SET ROLE staff")
        assert who(root)[:4] == ("ann", "staff", "staff", "off")
        refused(root, "SET ROLE eve", "42501")
        root.execute("RESET SESSION AUTHORIZATION")
        assert who(root) == ("root", "root", "root", "on", "none")
        root.execute("SET SESSION AUTHORIZATION ann")
        root.execute("DISCARD ALL")
        assert who(root) == ("root", "root", "root", "on", "none")
        # A member takes a role; what it makes then is that role's.
        refused(ann, "SET ROLE root", "42501")
        refused(ann, "SET ROLE nobody", "22023")
        refused(ann, "SELECT set_config('role', 'root', false)", "42501")
        refused(ann, "SET SESSION AUTHORIZATION eve", "42501")
        assert who(ann)[1] == "ann"
        ann.execute("SET ROLE staff")
        assert ann.execute("SHOW role").fetchone() == ("staff",) and ann.execute("SELECT count(*) FROM shared").fetchone() == (0,)
        ann.execute("CREATE TABLE made (id INT)")
        assert own.value("SELECT tableowner FROM pg_tables WHERE tablename = 'made'") == "staff"
        own.query("DROP TABLE made")
        # A role that is dropped meanwhile, and another one of its name.
        own.query("REVOKE staff FROM ann")
        for statement in ["REVOKE ALL ON shared FROM staff", "REVOKE ALL ON SCHEMA public FROM staff", "DROP ROLE staff", "CREATE ROLE staff SUPERUSER"]:
            own.query(statement)
        refused(ann, "SELECT * FROM sec", "42704")
        ann.execute("RESET ROLE")
        assert who(ann)[1] == "ann"
    with connect(own, "root", options="-c role=eve") as root:
        assert who(root)[:2] == ("root", "eve")
    with pytest.raises(psycopg.OperationalError, match="permission denied to set role"):
        connect(own, "ann", options="-c role=root")


def test_a_session_is_that_role_and_no_later_one_of_its_name(own):
    own.start()
    for statement in ["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE USER tmp", "GRANT SELECT ON t TO tmp"]:
        own.query(statement)
    with connect(own, "tmp") as tmp:
        assert tmp.execute("SELECT id FROM t WHERE id = %s", [1], prepare=True).fetchone() == (1,)
        for statement in ["REVOKE ALL ON t FROM tmp", "DROP USER tmp", "CREATE USER tmp SUPERUSER PASSWORD 'b'"]:
            own.query(statement)
        for statement, parameters in [("SELECT * FROM t", None), ("SELECT id FROM t WHERE id = %s", [1]), ("INSERT INTO t VALUES (2)", None), ("SELECT 1", None), ("SET ROLE none", None)]:
            with pytest.raises(psycopg.Error, match="invalid role OID: ") as error:
                tmp.execute(statement, parameters)
            assert state(error) == "42704"
    connect(own, "tmp", "b").close()


def test_the_last_superuser_keeps_its_way_in(own):
    own.start()
    for statement in ["ALTER USER root NOLOGIN", "ALTER ROLE root WITH NOLOGIN PASSWORD 'x'"]:
        with pytest.raises(psycopg.Error, match="no superuser could log in any more"):
            own.query(statement)
    own.query("CREATE USER ada SUPERUSER")
    own.query("ALTER USER root NOLOGIN")
    with connect(own, "ada") as ada:
        for statement in ["ALTER USER ada NOLOGIN", "ALTER USER ada NOSUPERUSER"]:
            with pytest.raises(psycopg.Error, match="no superuser could log in any more"):
                ada.execute(statement)
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        connect(own, "root")
    own.stop()
    own.start(wait=False, arguments=["--first-password"])
    shown = eventually(lambda: re.search(r"password  (\S+)", own.log_path.read_text()), 30)
    with connect(own, "root", shown.group(1)) as root:
        root.execute("DROP USER ada")
        with pytest.raises(psycopg.Error, match="no superuser could log in any more"):
            root.execute("ALTER USER root NOLOGIN")


def test_statements_of_others_are_not_shown(own):
    own.start()
    own.query("CREATE USER ann")
    own.query("CREATE USER eve")
    own.query("CREATE ROLE staff")
    own.query("GRANT ann TO staff")
    with connect(own, "ann") as ann, connect(own, "eve") as eve:
        ann.execute("SELECT 'of ann'")
        # PostgreSQL has no such statement: whatever is answered, the password is not shown.
        with suppress(psycopg.Error):
            ann.execute("PREPARE pp AS ALTER USER bob PASSWORD 'clear'")
        assert "clear" not in str(own.query("SELECT query FROM pg_stat_activity"))
        ann.execute("SELECT 'of ann'")
        pid = ann.info.backend_pid
        seen = f"SELECT usename, query, state, client_addr FROM pg_stat_activity WHERE pid = {pid}"
        assert eve.execute(seen).fetchone() == ("ann", "<insufficient privilege>", None, None)
        assert own.query(seen) == [("ann", "SELECT 'of ann'", "idle", "127.0.0.1")]
        assert ann.execute("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()[0].startswith("SELECT query")
        shown = {row[0]: row[5] for row in eve.execute("SHOW PROCESSLIST").fetchall()}
        assert shown[str(pid)] == "<insufficient privilege>" and shown[str(eve.info.backend_pid)] == "SHOW PROCESSLIST"
        assert eve.execute(f"SELECT running FROM tidemark.clients WHERE pid = {pid}").fetchone() == ("<insufficient privilege>",)
        own.query("GRANT staff TO eve")
        assert eve.execute(seen).fetchone()[1].startswith("SELECT query")


def test_insert_alone_reads_and_changes_nothing(own):
    own.start()
    for statement in ["CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)", "CREATE USER eve", "GRANT INSERT ON t TO eve",
                      "CREATE TABLE first (id INT PRIMARY KEY, v INT) ON CONFLICT IGNORE", "INSERT INTO first VALUES (1, 1)", "GRANT INSERT ON first TO eve"]:
        own.query(statement)
    with connect(own, "eve") as eve:
        # This table keeps the row that it has.
        eve.execute("INSERT INTO first VALUES (1, 2), (2, 2)")
        eventually(lambda: own.query("SELECT * FROM first ORDER BY id") == [(1, 1), (2, 2)])
        for statement in ["INSERT INTO t VALUES (2, 2) RETURNING *", "INSERT INTO t VALUES (2, 2) RETURNING v + 1", "INSERT INTO t VALUES (2, 2) ON CONFLICT (id) DO NOTHING",
                          "INSERT INTO t VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET v = 9", "INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (3, 3), (1, 2)",
                          "INSERT INTO t SELECT 1, 2 FROM generate_series(1, 2)"]:
            with pytest.raises(psycopg.Error, match="permission denied for table t") as error:
                eve.execute(statement)
            assert state(error) == "42501", statement
        with pytest.raises(psycopg.Error, match="permission denied for table t"), eve.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            copy.write("4\t4\n1\t2\n")
        for statement in ["INSERT INTO t VALUES (5, 5)", "INSERT INTO t VALUES (1, 6) ON CONFLICT DO NOTHING", "INSERT INTO t SELECT g, g FROM generate_series(10, 12) g"]:
            eve.execute(statement)
        assert eve.execute("INSERT INTO t VALUES (6, 6) RETURNING 7").fetchone() == (7,)
        with eve.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            copy.write("7\t7\n")
        eventually(lambda: own.query("SELECT * FROM t ORDER BY id") == [(1, 1), (5, 5), (6, 6), (7, 7), (10, 10), (11, 11), (12, 12)])
        own.query("GRANT SELECT ON t TO eve")
        eve.execute("INSERT INTO t VALUES (1, 2) ON CONFLICT (id) DO NOTHING")
        assert eve.execute("INSERT INTO t VALUES (8, 8) RETURNING *").fetchall() == [(8, 8)]
        own.query("GRANT UPDATE ON t TO eve")
        eve.execute("INSERT INTO t VALUES (1, 2)")
        eventually(lambda: own.value("SELECT v FROM t WHERE id = 1") == 2)


def test_nothing_is_told_before_a_client_has_said_who_it_is(own):
    own.start()
    own.query("CREATE USER ann PASSWORD 'right'")
    own.query("CREATE USER shut NOLOGIN PASSWORD 'right'")

    def said(user, database, password):
        with pytest.raises(psycopg.OperationalError) as error:
            psycopg.connect(host="127.0.0.1", port=own.port, dbname=database, user=user, password=password, connect_timeout=15)
        return str(error.value).split("FATAL:")[-1].strip()

    for user in ["ann", "shut", "nobody"]:
        assert said(user, "nowhere", "wrong") == f'password authentication failed for user "{user}"'
    assert said("shut", "dev", "right") == 'role "shut" is not permitted to log in'
    assert said("ann", "nowhere", "right").startswith('database "nowhere" does not exist')
    # What is no startup message ends the connection at once.
    for sent in [struct.pack("!I", 4), struct.pack("!II", 8, 196608), struct.pack("!II", 18, 196608) + b"user\0root\0", struct.pack("!II", 19, 196608) + b"user\0r\xffot\0\0"]:
        with socket.create_connection(("127.0.0.1", own.port), timeout=10) as client:
            client.sendall(sent)
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert answer == b"" or answer.startswith(b"E") and b"FATAL" in answer
    # Also behind requests for encryption.
    with socket.create_connection(("127.0.0.1", own.port), timeout=10) as client:
        client.sendall(struct.pack("!II", 8, 80877104) + struct.pack("!II", 8, 80877103) + struct.pack("!I", 4))
        assert b"".join(iter(lambda: client.recv(4096), b"")) == b"NN"


def test_http_asks_who_comes_from_elsewhere(own, folder):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its own")
        address = probe.getsockname()[0]
    assert "others reach http address" in own.refused(http_host="0.0.0.0")
    cert, key = certificate(folder, "web")
    own.start()
    own.query("CREATE USER ann PASSWORD 'right'")
    own.query("CREATE USER shut NOLOGIN PASSWORD 'right'")
    own.stop()
    own.start(wait=False, http_host="0.0.0.0", tls_cert=cert, tls_key=key)
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False

    def ask(host, path, user=None, password=None):
        request = urllib.request.Request(f"https://{host}:{own.port + 1}{path}")
        if user:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, context=trusting, timeout=15) as response:
                return response.status, response.headers
        except urllib.error.HTTPError as error:
            return error.code, error.headers

    def is_ready():
        try:
            return ask(address, "/ready")[0] == 200
        except OSError:
            return False

    eventually(is_ready, 30)
    assert ask(address, "/health")[0] == 200
    for path in ["/", "/metrics"]:
        status, headers = ask(address, path)
        assert status == 401 and headers["WWW-Authenticate"].startswith("Basic")
        assert ask(address, path, "ann", "right")[0] == 200
        assert ask("localhost", path)[0] == 200
    for user, password in [("ann", "wrong"), ("shut", "right"), ("nobody", "right"), ("root", "")]:
        assert ask(address, "/metrics", user, password)[0] == 401
    own.stop()
    own.start(http_host="0.0.0.0", insecure="true")
    assert urllib.request.urlopen(f"http://{address}:{own.port + 1}/metrics", timeout=5).status == 200
