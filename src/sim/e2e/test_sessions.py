"""Sessions: what one of them holds costs the others nothing for ever. Limits in time are kept, sessions and statements are ended from outside, and the catalog tells who waits for whom."""

import datetime
import socket
import struct
import threading
import time
from contextlib import suppress

import psycopg
import pytest
from harness import eventually


@pytest.fixture
def table(server, unique):
    """A table of 1,000 rows."""
    name = unique("held")
    server.run(f"CREATE TABLE {name} (id INT PRIMARY KEY, x BIGINT);\nINSERT INTO {name} SELECT g, 0 FROM generate_series(1, 1000) AS t(g);")
    return name


def pid_of(connection):
    return connection.info.backend_pid


def background(work):
    """Runs `work` on a thread; what it returns, or raises, is in the list that comes back with the thread."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def failed(outcome, thread):
    """The error of a statement in the background."""
    thread.join(10)
    assert not thread.is_alive(), "no answer within 10 s"
    assert isinstance(outcome[0], psycopg.Error), outcome[0]
    return outcome[0]


def activity(server, pid):
    rows = server.query("SELECT state, wait_event_type, wait_event, query, xact_start IS NOT NULL, application_name FROM pg_stat_activity WHERE pid = %s", (pid,))
    return rows[0] if rows else None


def test_idle_in_transaction_session_timeout(server, table):
    with server.connect() as other, server.connect(autocommit=False) as idle:
        idle.execute("SET idle_in_transaction_session_timeout = '300ms'")
        idle.commit()
        idle.execute(f"UPDATE {table} SET x = 1 WHERE id = 1")
        began = time.monotonic()
        # it waits for the block, which is ended for it
        other.execute(f"UPDATE {table} SET x = x + 10 WHERE id = 1")
        assert time.monotonic() - began < 5
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            idle.execute("SELECT 1")
        assert idle.closed
        assert other.execute(f"SELECT x FROM {table} WHERE id = 1").fetchone() == (10,), "what the block wrote is gone"


def test_idle_session_and_transaction_timeout(server, table):
    with server.connect() as idle:
        idle.execute("SET idle_session_timeout = '200ms'")
        eventually(lambda: activity(server, pid_of(idle)) is None)
        with pytest.raises(psycopg.errors.IdleSessionTimeout):
            idle.execute("SELECT 1")
    with server.connect(autocommit=False) as slow:
        slow.execute("SET transaction_timeout = '300ms'")
        slow.commit()
        slow.execute(f"UPDATE {table} SET x = 2 WHERE id = 2")
        eventually(lambda: activity(server, pid_of(slow)) is None)
        with pytest.raises(psycopg.Error, match="transaction timeout"):
            slow.execute("SELECT 1")
    assert server.value(f"SELECT x FROM {table} WHERE id = 2") == 0


def test_a_writer_that_waits_gives_up_and_knows_for_whom(server, table):
    with server.connect(autocommit=False) as holder, server.connect() as waiter:
        holder.execute(f"UPDATE {table} SET x = 1 WHERE id = 1")
        waiter.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable) as locked:
            waiter.execute(f"UPDATE {table} SET x = 2 WHERE id = 1")
        assert f"Session {pid_of(holder)} has locked table \"{table}\"" in locked.value.diag.message_detail
        waiter.execute("SET lock_timeout = 0; SET statement_timeout = '300ms'")
        for write in (f"UPDATE {table} SET x = 2 WHERE id = 1", f"INSERT INTO {table} VALUES (5000, 1)"):
            with pytest.raises(psycopg.errors.QueryCanceled) as canceled:
                waiter.execute(write)
            assert f"Session {pid_of(holder)} has locked" in canceled.value.diag.message_detail
        with pytest.raises(psycopg.errors.QueryCanceled), waiter.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write("6000\t1\n")
            copy.write("6001\t1\n")
        waiter.execute("SET statement_timeout = 0")
        holder.commit()
        assert waiter.execute(f"UPDATE {table} SET x = 3 WHERE id = 1").rowcount == 1


def test_who_waits_for_whom(server, table):
    with server.connect(autocommit=False, application_name="keeper") as holder, server.connect() as waiter:
        holder.execute(f"UPDATE {table} SET x = 1 WHERE id = 1")
        thread, outcome = background(lambda: waiter.execute(f"UPDATE {table} SET x = 2 WHERE id = 1").rowcount)
        waiting = pid_of(waiter)
        eventually(lambda: server.value("SELECT pg_blocking_pids(%s)", (waiting,)) == [pid_of(holder)])
        assert activity(server, waiting)[:3] == ("active", "Lock", "relation")
        state = activity(server, pid_of(holder))
        assert state[0] == "idle in transaction" and state[1:3] == ("Client", "ClientRead") and state[3].startswith("UPDATE") and state[4:] == (True, "keeper")
        locks = server.query("SELECT pid, granted, mode FROM pg_locks WHERE relation = %s::regclass ORDER BY granted DESC", (table,))
        assert locks == [(pid_of(holder), True, "ShareRowExclusiveLock"), (waiting, False, "ShareRowExclusiveLock")]
        assert server.value("SELECT pg_blocking_pids(%s)", (pid_of(holder),)) == []
        holder.rollback()
        thread.join(10)
        assert outcome == [1]
        assert server.query("SELECT pid FROM pg_locks WHERE relation = %s::regclass", (table,)) == []
        eventually(lambda: activity(server, pid_of(holder))[0] == "idle")
        assert activity(server, pid_of(holder))[4] is False
        with suppress(psycopg.Error):
            holder.execute("SELECT no_such_column")
        assert activity(server, pid_of(holder))[0] == "idle in transaction (aborted)"


@pytest.mark.parametrize("how", ["SELECT pg_terminate_backend({})", "KILL {}"])
def test_a_session_is_ended_wherever_it_is(server, table, how):
    def end(connection):
        rows = server.query(how.format(pid_of(connection)))
        assert rows in ([], [(True,)])

    # idle in transaction, holding a lock
    with server.connect(autocommit=False) as holder, server.connect() as waiter:
        holder.execute(f"UPDATE {table} SET x = 7 WHERE id = 7")
        # waiting for that lock
        thread, outcome = background(lambda: waiter.execute(f"UPDATE {table} SET x = 8 WHERE id = 7"))
        eventually(lambda: activity(server, pid_of(waiter))[1] == "Lock")
        end(waiter)
        assert failed(outcome, thread).sqlstate == "57P01"
        assert waiter.closed
        end(holder)
        with pytest.raises(psycopg.errors.AdminShutdown):
            holder.execute("SELECT 1")
    assert server.value(f"SELECT x FROM {table} WHERE id = 7") == 0
    assert server.query("SELECT pid FROM pg_locks WHERE relation = %s::regclass", (table,)) == []
    # idle, in a statement, in COPY
    with server.connect() as idle:
        end(idle)
        with pytest.raises(psycopg.errors.AdminShutdown):
            idle.execute("SELECT 1")
    with server.connect() as busy:
        thread, outcome = background(lambda: busy.execute("SELECT count(*) FROM generate_series(1, 200000) a(x), generate_series(1, 200000) b(y) WHERE x + y < 0"))
        eventually(lambda: activity(server, pid_of(busy))[3].startswith("SELECT count"))
        end(busy)
        assert failed(outcome, thread).sqlstate == "57P01"
    with server.connect() as copying:
        with pytest.raises(psycopg.OperationalError), copying.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write("7000\t1\n")
            end(copying)
            eventually(lambda: activity(server, pid_of(copying)) is None)
            for row in range(100_000):
                copy.write(f"{8000 + row}\t1\n")
    assert server.value(f"SELECT count(*) FROM {table}") == 1000


def test_only_the_statement_is_canceled(server, table):
    with server.connect(autocommit=False) as holder, server.connect() as waiter:
        holder.execute(f"UPDATE {table} SET x = 1 WHERE id = 1")
        for cancel in ("SELECT pg_cancel_backend({})", "KILL QUERY {}"):
            thread, outcome = background(lambda: waiter.execute(f"DELETE FROM {table} WHERE id = 1"))
            eventually(lambda: activity(server, pid_of(waiter))[1] == "Lock")
            server.query(cancel.format(pid_of(waiter)))
            assert failed(outcome, thread).sqlstate == "57014"
            assert waiter.execute("SELECT 1").fetchone() == (1,)
    notices = []
    with server.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
        assert connection.execute("SELECT pg_terminate_backend(999999), pg_cancel_backend(NULL)").fetchone() == (False, None)
        assert notices == [("WARNING", "PID 999999 is not a PostgreSQL server process")]
        with pytest.raises(psycopg.errors.UndefinedObject):
            connection.execute("KILL 999999")


class SlowClient:
    """A client that sends a query and reads nothing of the answer."""

    def __init__(self, server, text):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", server.port))
        startup = b"\0\3\0\0user\0root\0database\0dev\0\0"
        self.socket.sendall(struct.pack("!i", len(startup) + 4) + startup)
        self.pid = None
        while True:
            kind, body = self._message()
            if kind == b"K":
                self.pid = struct.unpack("!i", body[:4])[0]
            if kind == b"Z":
                break
        query = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(query) + 4) + query)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _message(self):
        kind = self._exactly(1)
        return kind, self._exactly(struct.unpack("!i", self._exactly(4))[0] - 4)

    def messages(self):
        """What is left to read, up to the end of the statement or the connection."""
        with suppress(EOFError, ConnectionResetError):
            while True:
                kind, body = self._message()
                yield kind, body
                if kind == b"Z":
                    return


def rss(server):
    with open(f"/proc/{server.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_slow_client_holds_up_nobody(server, table):
    wide = f"SELECT a.id, repeat('x', 1000) FROM {table} a CROSS JOIN {table} b"
    with server.connect() as other:
        slow = [SlowClient(server, wide) for _ in range(4)]
        for client in slow:
            eventually(lambda: activity(server, client.pid)[1:3] == ("Client", "ClientWrite"))
        before = rss(server)
        for number in range(50):
            began = time.monotonic()
            assert other.execute(f"UPDATE {table} SET x = x + 1 WHERE id = 3").rowcount == 1
            assert other.execute(f"SELECT x FROM {table} WHERE id = 3").fetchone() == (number + 1,)
            assert time.monotonic() - began < 5
        # Each answer has a gigabyte; what waits for its reader are a few batches.
        assert rss(server) - before < 150 << 20, f"{before >> 20} MiB, then {rss(server) >> 20} MiB"
        # It can be ended, and canceled: then it finds the error behind what it had not read.
        server.query("SELECT pg_terminate_backend(%s)", (slow[0].pid,))
        eventually(lambda: activity(server, slow[0].pid) is None)
        server.query("SELECT pg_cancel_backend(%s)", (slow[1].pid,))
        errors = [body for kind, body in slow[1].messages() if kind == b"E"]
        assert len(errors) == 1 and b"57014" in errors[0]
        for client in slow:
            client.socket.close()
        eventually(lambda: all(activity(server, client.pid) is None for client in slow))


def test_statement_timeout_bounds_the_sending_too(server, table):
    client = SlowClient(server, f"SET statement_timeout = '300ms'; SELECT a.id, repeat('x', 1000) FROM {table} a CROSS JOIN {table} b")
    time.sleep(1.0)  # reading nothing
    errors = [body for kind, body in client.messages() if kind == b"E"]
    assert len(errors) == 1 and b"57014" in errors[0] and b"statement timeout" in errors[0]


def test_an_idle_reader_costs_the_keys_not_the_updates(own_server):
    own_server.start(checkpoint_ms=500)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, x BIGINT);\nINSERT INTO t SELECT g, 0 FROM generate_series(1, 2000) AS s(g);\n"
                   "CREATE MATERIALIZED VIEW v AS SELECT id % 100 AS k, sum(x) AS s, count(*) AS c FROM t GROUP BY id % 100;")
    memory = lambda: int(own_server.value("SELECT sum(memory_bytes) FROM tidemark.jobs WHERE name IN ('public.t', 'public.v')"))
    with own_server.connect() as writer, own_server.connect(autocommit=False) as reader:
        assert reader.execute("SELECT sum(s) FROM v").fetchone()[0] == 0
        sizes = []
        for round in range(1, 61):
            writer.execute("UPDATE t SET x = x + 1")
            assert writer.execute("SELECT sum(s), count(*) FROM v").fetchone() == (2000 * round, 100)
            if round in (20, 60):
                writer.execute("FLUSH")
                sizes.append(memory())
        # 20 rounds or 60, it is the same keys
        assert sizes[1] < sizes[0] * 1.5, sizes
        assert reader.execute("SELECT sum(s), (SELECT sum(x) FROM t), (SELECT x FROM t WHERE id = 7) FROM v").fetchone() == (0, 0, 0)
        reader.commit()
        assert reader.execute("SELECT sum(s) FROM v").fetchone()[0] == 2000 * 60


def test_a_reader_that_stays_too_long_is_told(own_server):
    own_server.start(snapshot_age_max_ms=500)
    own_server.run("CREATE TABLE t (id INT PRIMARY KEY, x BIGINT);\nINSERT INTO t VALUES (1, 0);\nFLUSH;")
    with own_server.connect() as writer, own_server.connect(autocommit=False) as reader:
        assert reader.execute("SELECT x FROM t").fetchone() == (0,)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            writer.execute("UPDATE t SET x = x + 1")
        with pytest.raises(psycopg.Error) as refused:
            reader.execute("SELECT x FROM t")
        assert refused.value.sqlstate == "72000"
        reader.rollback()
        assert reader.execute("SELECT x FROM t").fetchone()[0] > 0


def test_more_clients_than_there_is_room_for_are_told(own_server):
    own_server.start(max_connections=3)
    held = [own_server.connect() for _ in range(3)]
    with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
        own_server.connect()
    # A cancel request is no client.
    thread, outcome = background(lambda: held[0].execute("SELECT count(*) FROM generate_series(1, 100000000000)"))
    eventually(lambda: held[1].execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid_of(held[0]),)).fetchone() == ("active",))
    held[0].cancel()
    assert isinstance(failed(outcome, thread), psycopg.errors.QueryCanceled)
    held.pop().close()
    eventually(lambda: own_server.connect().close() or True)
    for connection in held:
        connection.close()


def test_who_comes_while_the_node_opens_is_told(own_server):
    """The store is away: the node waits for it, and says so to those who connect meanwhile."""
    own_server.environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    own_server.start(wait=False, checkpoint_url="s3://away/opens")
    eventually(lambda: "starting" in own_server.ready_text(), 40)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="the database system is starting up"):
            own_server.connect()
        assert time.monotonic() - began < 5
    assert own_server.running and not own_server.ready()


def test_execute_assigns_its_values_to_the_types_of_the_parameters(server, unique):
    """The types that PREPARE declares or finds, as in PostgreSQL: what fits is converted, what does not is refused."""
    table = unique("assigned")
    server.run(f"CREATE TABLE {table} (k REAL PRIMARY KEY, v INT);\nINSERT INTO {table} VALUES (0.1, 1);")
    with server.connect() as client:
        client.execute(f"PREPARE a(REAL) AS SELECT v FROM {table} WHERE k = $1; PREPARE b AS SELECT v FROM {table} WHERE k = $1; PREPARE d(INT) AS SELECT $1;"
                       f"PREPARE h(SMALLINT) AS UPDATE {table} SET v = $1; PREPARE i(DATE) AS SELECT $1; PREPARE l(BOOL) AS SELECT $1; PREPARE q(JSONB) AS SELECT $1 -> 'a'")
        answered = {"a(0.1)": 1, "b(0.1)": 1, "d(1.6)": 2, "d('7')": 7, "d(NULL)": None, "d(1 + 1)": 2, "l('yes')": True, "q('{\"a\": 1}')": 1,
                    "i('2026-01-02 03:04'::TIMESTAMP)": datetime.date(2026, 1, 2)}
        for call, answer in answered.items():
            assert client.execute(f"EXECUTE {call}").fetchone() == (answer,), call
        refused = {"d('x')": "22P02", "d(3000000000)": "22003", "h(70000)": "22003", "d(true)": "42804", "l(1)": "42804", "q('{}'::TEXT)": "42804", "d((SELECT 1))": "0A000"}
        for call, state in refused.items():
            with pytest.raises(psycopg.Error) as error:
                client.execute(f"EXECUTE {call}")
            assert error.value.sqlstate == state, call
        for text, state in {"PREPARE x AS SELECT nope": "42703", "PREPARE x(nosuch) AS SELECT 1": "42704"}.items():
            with pytest.raises(psycopg.Error) as error:
                client.execute(text)
            assert error.value.sqlstate == state, text
