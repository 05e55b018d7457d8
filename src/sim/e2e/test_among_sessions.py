"""What sessions do among themselves: advisory locks, notifications, settings that functions change; and that a session outlives what goes wrong in it."""

import time

import psycopg
import pytest
from harness import eventually
from test_sessions import background, failed, pid_of


def value(connection, sql, parameters=None):
    return connection.execute(sql, parameters).fetchone()[0]


def waits(server, pid):
    return server.query("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", (pid,)) == [(1,)]


@pytest.fixture
def key():
    """A key that no other test locks."""
    return time.time_ns() // 1000 % 10**9


def test_locks_keep_others_out_until_they_are_given_back_as_often_as_taken(server, key):
    with server.connect() as one, server.connect() as other:
        assert value(one, "SELECT pg_try_advisory_lock(%s)", (key,))
        assert value(one, "SELECT pg_try_advisory_lock(%s)", (key,))
        assert not value(other, "SELECT pg_try_advisory_lock(%s)", (key,))
        assert not value(other, "SELECT pg_try_advisory_lock_shared(%s)", (key,))
        assert value(other, "SELECT pg_try_advisory_lock(%s, 1)", (key % 1000,))
        assert value(one, "SELECT pg_advisory_unlock(%s)", (key,))
        assert not value(other, "SELECT pg_try_advisory_lock(%s)", (key,))
        assert value(one, "SELECT pg_advisory_unlock(%s)", (key,))
        assert value(other, "SELECT pg_try_advisory_lock_shared(%s)", (key,))
        assert value(one, "SELECT pg_try_advisory_lock_shared(%s)", (key,))
        notices = []
        one.add_notice_handler(lambda n: notices.append((n.severity, n.message_primary)))
        assert not value(one, "SELECT pg_advisory_unlock(%s)", (key,))
        assert notices == [("WARNING", "you don't own a lock of type ExclusiveLock")]
        one.execute("SELECT pg_advisory_unlock_all()")
        assert not value(one, "SELECT pg_try_advisory_lock(%s)", (key,)), "the other shares it still"


def test_locks_of_a_transaction_end_with_it(server, key):
    with server.connect() as one, server.connect() as other:
        one.execute("BEGIN")
        one.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        one.execute("SAVEPOINT s")
        one.execute("SELECT pg_advisory_xact_lock(%s)", (key + 1,))
        assert not value(other, "SELECT pg_try_advisory_xact_lock(%s)", (key + 1,))
        one.execute("ROLLBACK TO s")
        assert value(other, "SELECT pg_try_advisory_xact_lock(%s)", (key + 1,))
        assert not value(one, "SELECT pg_advisory_unlock(%s)", (key,)), "it is not the session's"
        assert not value(other, "SELECT pg_try_advisory_xact_lock(%s)", (key,))
        one.execute("COMMIT")
        assert value(other, "SELECT pg_try_advisory_xact_lock(%s)", (key,))
        assert value(one, "SELECT pg_try_advisory_lock(%s)", (key,)), "alone, it ended with its statement"


def test_who_waits_is_seen_and_gets_the_lock_when_the_holder_leaves(server, key):
    with server.connect() as waiter:
        holder = server.connect()
        holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        thread, outcome = background(lambda: value(waiter, "SELECT pg_advisory_lock(%s)", (key,)))
        eventually(lambda: waits(server, pid_of(waiter)))
        assert server.query("SELECT pg_blocking_pids(%s)", (pid_of(waiter),)) == [([pid_of(holder)],)]
        holder.close()
        thread.join(10)
        assert outcome == [""]
        assert server.query("SELECT pid, mode FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", (key,)) == [(pid_of(waiter), "ExclusiveLock")]


def test_waits_end_by_timeouts_cancels_and_deadlocks(server, key):
    with server.connect() as holder, server.connect() as waiter, server.connect() as third:
        holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiter.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            waiter.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiter.execute("SET lock_timeout = 0")
        waiter.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiter.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiter.execute("SET statement_timeout = 0")
        thread, outcome = background(lambda: waiter.execute("SELECT pg_advisory_lock(%s)", (key,)))
        eventually(lambda: waits(server, pid_of(waiter)))
        waiter.cancel()
        assert failed(outcome, thread).sqlstate == "57014"
        eventually(lambda: not waits(server, pid_of(waiter)))
        third.execute("SELECT pg_advisory_lock(%s)", (key + 1,))
        thread, outcome = background(lambda: third.execute("SELECT pg_advisory_lock(%s)", (key,)))
        eventually(lambda: waits(server, pid_of(third)))
        with pytest.raises(psycopg.errors.DeadlockDetected):
            holder.execute("SELECT pg_advisory_lock(%s)", (key + 1,))
        holder.execute("SELECT pg_advisory_unlock(%s)", (key,))
        thread.join(10)
        assert isinstance(outcome[0], psycopg.Cursor)


def test_many_who_wait_do_not_keep_others_from_running(server, key):
    with server.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiters = [server.connect() for _ in range(24)]
        threads = [background(lambda c=c: c.execute("SELECT pg_advisory_xact_lock(%s)", (key,))) for c in waiters]
        for connection in waiters:
            eventually(lambda c=connection: waits(server, pid_of(c)))
        assert value(holder, "SELECT count(*) FROM generate_series(1, 100000)") == 100000
        holder.execute("SELECT pg_advisory_unlock(%s)", (key,))
        for thread, outcome in threads:
            thread.join(10)
            assert isinstance(outcome[0], psycopg.Cursor)
        for connection in waiters:
            connection.close()


def heard(connection, seconds=0.5):
    return [(n.channel, n.payload, n.pid) for n in connection.notifies(timeout=seconds)]


def test_notifications_are_told_after_commit_once_and_to_listeners_alone(server, unique):
    channel = unique("channel")
    with server.connect() as listener, server.connect() as speaker, server.connect() as deaf:
        listener.execute(f"LISTEN {channel}")
        deaf.execute(f"LISTEN {channel}_other")
        speaker.execute("BEGIN")
        for word in ("a", "b", "a"):
            speaker.execute(f"NOTIFY {channel}, '{word}'")
        speaker.execute("SAVEPOINT s")
        speaker.execute("SELECT pg_notify(%s, 'lost')", (channel,))
        speaker.execute("ROLLBACK TO s")
        assert heard(listener) == []
        speaker.execute("COMMIT")
        assert heard(listener) == [(channel, "a", pid_of(speaker)), (channel, "b", pid_of(speaker))]
        speaker.execute("BEGIN")
        speaker.execute(f"NOTIFY {channel}")
        speaker.execute("ROLLBACK")
        assert heard(listener) == []
        listener.execute(f"NOTIFY {channel}, 'to myself'")
        assert heard(listener) == [(channel, "to myself", pid_of(listener))]
        listener.execute("BEGIN")
        speaker.execute("SELECT pg_notify(%s, 'later')", (channel,))
        listener.execute("SELECT 1")
        assert heard(listener) == [], "not within a transaction"
        listener.execute("COMMIT")
        assert heard(listener) == [(channel, "later", pid_of(speaker))]
        listener.execute(f"UNLISTEN {channel}")
        speaker.execute(f"NOTIFY {channel}, 'unheard'")
        assert heard(listener) == []
        assert heard(deaf, 0.1) == []
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            speaker.execute("SELECT pg_notify('', 'x')")


def test_set_config_is_of_the_session_the_transaction_or_nothing(server):
    with server.connect() as one:
        assert value(one, "SELECT set_config('app.x', 'a', false)") == "a"
        assert value(one, "SELECT current_setting('app.x')") == "a"
        assert one.execute("SELECT set_config('app.x', 'b', true), current_setting('app.x')").fetchone() == ("b", "b")
        assert value(one, "SHOW app.x") == "a", "alone, it was local to its statement"
        one.execute("BEGIN")
        one.execute("SELECT set_config('app.x', 'c', true)")
        one.execute("SET LOCAL application_name = 'local'")
        assert value(one, "SELECT current_setting('app.x')") == "c"
        one.execute("COMMIT")
        assert value(one, "SHOW app.x") == "a"
        assert value(one, "SHOW application_name") != "local"
        with pytest.raises(psycopg.errors.DivisionByZero):
            one.execute("SELECT set_config('app.x', 'd', false), 1 / (length(current_setting('app.x')) - 1)")
        assert value(one, "SHOW app.x") == "a", "the statement failed"
        with pytest.raises(psycopg.errors.UndefinedObject):
            one.execute("SELECT set_config('nonsense', 'd', false)")
        one.execute("SELECT set_config('search_path', 'elsewhere', false)")
        with pytest.raises(psycopg.errors.InvalidSchemaName):
            one.execute("CREATE TABLE t (a INT)")


def test_transactions_have_numbers(server):
    with server.connect(autocommit=False) as one, server.connect() as other:
        first = value(one, "SELECT txid_current()")
        assert value(one, "SELECT pg_current_xact_id()") == first
        assert value(other, "SELECT txid_current()") > first
        one.commit()
        assert value(one, "SELECT txid_current()") > first + 1
