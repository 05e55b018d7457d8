"""Changes of the catalog are checked where they are logged, and take effect wholly or not at all: names under creation, OR REPLACE, SWAP, CASCADE, CREATE TABLE AS, through errors, cancels and kills."""

import signal
import threading

import psycopg
import pytest
from harness import eventually, in_threads

SETUP = """CREATE TABLE t (n BIGINT PRIMARY KEY, k BIGINT);
INSERT INTO t SELECT n, n % 7 FROM generate_series(1, 100) AS g (n);
CREATE MATERIALIZED VIEW v AS SELECT count(*) AS a FROM t;
CREATE MATERIALIZED VIEW w AS SELECT max(n) + 1000 AS a FROM t;
CREATE SCHEMA s;
CREATE TABLE s.x (a BIGINT);
CREATE MATERIALIZED VIEW s.y AS SELECT count(*) AS a FROM s.x;
CREATE MATERIALIZED VIEW outside AS SELECT a FROM s.y;"""
REPLACE = "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT sum(n)::BIGINT AS a FROM t"
BEFORE_CREATED = [("ddl.promote", False), ("checkpoint.manifest", False), ("checkpoint.commit", False), ("ddl.visible", True)]
BEFORE_LOGGED = [("ddl.log", False), ("ddl.logged", True)]
STATEMENTS = {
    "replace": (REPLACE, "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT count(*) AS a FROM t", BEFORE_CREATED),
    "table_as": ("CREATE TABLE copied AS SELECT n, k FROM t WHERE n <= 60", "DROP TABLE copied", BEFORE_CREATED),
    "swap": ("ALTER MATERIALIZED VIEW v SWAP WITH w", "ALTER MATERIALIZED VIEW v SWAP WITH w", BEFORE_LOGGED),
    "drop_schema": ("DROP SCHEMA s CASCADE", "\n".join(SETUP.splitlines()[4:]), BEFORE_LOGGED),
}


def jobs(server):
    return {row[1]: row[3] for row in server.query("SHOW JOBS")}


def picture(server):
    """All jobs by name, and what the views and the copied table say."""
    names = sorted(jobs(server))
    copied = server.query("SELECT count(*), sum(n) FROM copied") if "public.copied" in names else None
    return names, server.value("SELECT a FROM v"), server.value("SELECT a FROM w"), copied


@pytest.mark.parametrize("kind", STATEMENTS)
def test_kill_at_every_point(kind, own_server):
    """What was acknowledged is there, and what is there is whole."""
    statement, undo, points = STATEMENTS[kind]
    own_server.start()
    own_server.run(SETUP)
    before = picture(own_server)
    own_server.run(statement)
    after = picture(own_server)
    assert after != before
    own_server.run(undo)
    assert picture(own_server) == before
    for point, takes_effect in points:
        # Nothing is left to be replayed: a start that replays takes a checkpoint at once.
        own_server.query("FLUSH")
        own_server.kill()
        own_server.start(failpoint=point, checkpoint_ms=600_000)
        with pytest.raises(psycopg.Error):
            own_server.run(statement)
        assert own_server.wait_exit() == -signal.SIGABRT
        own_server.start()
        assert picture(own_server) == (after if takes_effect else before), point
        if takes_effect:
            own_server.run(undo)


def rows_of(server, job):
    """Rows that entered a job since the process started."""
    lines = (line for line in server.metrics().splitlines() if line.startswith("tidemark_job_rows_total") and f'job="{job}"' in line)
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines)


def test_a_replacement_that_fails_leaves_the_old_one(own_server):
    own_server.start()
    own_server.run(SETUP)
    # The first view of a source begins with it; the next ones have its past to read, which takes long here.
    own_server.run("CREATE SOURCE bid (auction BIGINT, price BIGINT) WITH (connector = 'nexmark', nexmark.table.type = 'Bid', nexmark.event.num = '900000000');\nCREATE MATERIALIZED VIEW first AS SELECT max(price) AS a FROM bid")
    # However slow the machine is: a past that is read for longer than the statement may take.
    eventually(lambda: rows_of(own_server, "public.first") > 100_000_000, timeout=120)
    own_server.query("FLUSH")
    own_server.kill()
    own_server.start(failpoint="ddl.promote=error(1)")
    before = picture(own_server)
    assert own_server.error(REPLACE).sqlstate == "58030"
    own_server.query("SET statement_timeout = '300ms'")
    assert own_server.error("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT max(auction + price) AS a FROM bid").sqlstate == "57014"
    own_server.query("SET statement_timeout = 0")
    assert picture(own_server) == before
    own_server.query("INSERT INTO t VALUES (101, 0)")
    assert own_server.query("SELECT a FROM v") == [(101,)]
    own_server.query("COMMENT ON MATERIALIZED VIEW v IS 'kept'")
    own_server.query("CREATE VIEW plain AS SELECT a FROM v")
    own_server.query(REPLACE)
    assert own_server.query("SELECT v.a, plain.a, obj_description('v'::regclass) FROM v, plain") == [(5151, 5151, "kept")]
    # A plain view names columns.
    assert own_server.error("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k FROM t").sqlstate == "2BP01"
    assert own_server.error("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT a FROM v").sqlstate == "42P17"
    own_server.query("CREATE MATERIALIZED VIEW reader AS SELECT a FROM plain")
    assert own_server.error("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k FROM t").sqlstate == "2BP01"
    own_server.query(REPLACE.replace("sum(n)", "1 + sum(n)"))
    assert own_server.query("SELECT v.a, plain.a, reader.a FROM v, plain, reader") == [(5152, 5152, 5152)]
    own_server.kill()
    own_server.start()
    assert own_server.query("SELECT v.a, plain.a, reader.a FROM v, plain, reader") == [(5152, 5152, 5152)]


def test_names_are_taken_while_something_is_created(own_server):
    own_server.start()
    own_server.run(SETUP)
    own_server.run("CREATE SOURCE bid (auction BIGINT, price BIGINT) WITH (connector = 'nexmark', nexmark.table.type = 'Bid', nexmark.event.num = '900000000');\nCREATE MATERIALIZED VIEW first AS SELECT max(price) AS a FROM bid;\nSET background_ddl = on;\n"
                   "CREATE MATERIALIZED VIEW slow AS SELECT max(auction + price) AS a FROM bid;\nCREATE OR REPLACE MATERIALIZED VIEW v AS SELECT max(auction + price) AS a FROM bid;\n"
                   "CREATE SCHEMA empty;\nCREATE MATERIALIZED VIEW empty.slow AS SELECT max(auction + price) AS a FROM bid")
    # Also in the background a statement that is refused says so.
    assert own_server.error("CREATE MATERIALIZED VIEW slow AS SELECT 1 AS a").sqlstate == "42P07"
    own_server.query("SET background_ddl = off")
    for statement, state in [
        ("ALTER MATERIALIZED VIEW w RENAME TO slow", "42P07"),
        ("CREATE TABLE slow (a INT)", "42P07"),
        ("ALTER MATERIALIZED VIEW s.y RENAME TO v", None),
        ("ALTER MATERIALIZED VIEW s.v SET SCHEMA public", "42P07"),
        ("ALTER MATERIALIZED VIEW v RENAME TO z", "55006"),
        ("ALTER MATERIALIZED VIEW v SWAP WITH w", "55006"),
        ("CREATE MATERIALIZED VIEW reader AS SELECT a FROM v", "55006"),
        (REPLACE, "55006"),
        ("DROP SCHEMA empty", "2BP01"),
        ("DROP SCHEMA empty CASCADE", None),
        ("ALTER MATERIALIZED VIEW w SET SCHEMA empty", "3F000"),
    ]:
        if state is None:
            own_server.query(statement)
        else:
            assert own_server.error(statement).sqlstate == state, statement
    assert own_server.query("SELECT a FROM v") == [(100,)]
    eventually(lambda: "empty.slow" not in jobs(own_server))
    assert jobs(own_server)["public.slow"] == "creating"
    # What is dropped is not replaced any more.
    own_server.run("DROP MATERIALIZED VIEW v;\nDROP MATERIALIZED VIEW slow;\nALTER MATERIALIZED VIEW w RENAME TO slow")
    eventually(lambda: "public.v" not in jobs(own_server))


def test_one_name_many_sessions(own_server):
    own_server.start()
    for turn in range(4):
        answers = []

        def create(number, turn=turn, answers=answers):
            with own_server.connect() as connection:
                try:
                    connection.execute(f"CREATE TABLE t{turn} (c{number} INT)")
                    answers.append("made")
                except psycopg.Error as error:
                    answers.append(error.sqlstate)

        in_threads(8, create)
        assert sorted(answers) == ["42P07"] * 7 + ["made"]


def test_readers_see_one_of_each_name(own_server):
    """SWAP and OR REPLACE under readers: both names answer at every moment, each with its own answer."""
    own_server.start()
    own_server.run("CREATE TABLE t (n INT);\nINSERT INTO t VALUES (1);\nCREATE MATERIALIZED VIEW x AS SELECT n AS a FROM t;\nCREATE MATERIALIZED VIEW y AS SELECT n + 1 AS a FROM t;\n"
                   "CREATE MATERIALIZED VIEW z AS SELECT n AS a FROM t")
    stop, seen, failures = threading.Event(), [], []

    def read():
        with own_server.connect() as connection:
            while not stop.is_set():
                try:
                    seen.append(connection.execute("SELECT x.a, y.a FROM x, y").fetchall())
                    seen_z = connection.execute("SELECT count(*) FROM z").fetchall()
                    assert seen_z == [(1,)], seen_z
                except Exception as error:
                    failures.append(error)
                    return

    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(25):
        own_server.query("ALTER MATERIALIZED VIEW x SWAP WITH y")
        own_server.query(f"CREATE OR REPLACE MATERIALIZED VIEW z AS SELECT n + {turn} AS a FROM t")
    stop.set()
    for reader in readers:
        reader.join(20)
    assert not failures, failures[0]
    assert {tuple(sorted(rows[0])) for rows in seen} == {(1, 2)} and len({tuple(rows[0]) for rows in seen}) == 2
