"""A statement that takes long to plan, of which hundreds of calls within each other are one, holds up nobody: others are answered while it is planned, and it ends when it is told to, with all that it held."""

import time

import psycopg
import pytest
from harness import in_threads
from test_sessions import background, failed, pid_of

# Planned for tens of seconds.
SLOW = "SELECT a, " + "greatest(" * 900 + "b" + ", 1)" * 900 + " AS b FROM p"

STATEMENTS = {
    "select": SLOW,
    "insert": f"INSERT INTO p {SLOW}",
    "update": f"UPDATE p SET b = 1 WHERE a IN (SELECT a FROM ({SLOW}) AS s)",
    "delete": f"DELETE FROM p WHERE a IN (SELECT a FROM ({SLOW}) AS s)",
    "create": f"CREATE TABLE q AS {SLOW}",
    "explain": f"EXPLAIN {SLOW}",
    "explain verbose": f"EXPLAIN VERBOSE {SLOW}",
}

SOON = 5.0


@pytest.fixture
def planner(own_server):
    own_server.start()
    own_server.run("CREATE TABLE p (a INT PRIMARY KEY, b INT);\nINSERT INTO p VALUES (1, 1);")
    return own_server


def soon(work):
    began = time.monotonic()
    outcome = work()
    assert time.monotonic() - began < SOON
    return outcome


def is_canceled(connection, statement, **options):
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(statement, **options)


@pytest.mark.parametrize("what", STATEMENTS)
def test_what_is_planned_long_ends_when_it_is_told_to(planner, what):
    with planner.connect() as connection:
        connection.execute("SET statement_timeout = '300ms'")
        soon(lambda: is_canceled(connection, STATEMENTS[what]))
        # By Parse, Describe and Bind.
        soon(lambda: is_canceled(connection, STATEMENTS[what], prepare=True))
        connection.execute("SET statement_timeout = 0")
        thread, outcome = background(lambda: connection.execute(STATEMENTS[what]))
        time.sleep(0.5)
        soon(connection.cancel)
        assert isinstance(soon(lambda: failed(outcome, thread)), psycopg.errors.QueryCanceled)
        assert soon(lambda: connection.execute("SELECT b FROM p").fetchall()) == [(1,)]


# Planned for tens of seconds, most of them within one rule.
NESTED = {
    "calls": "SELECT " + "abs(" * 900 + "a" + ")" * 900 + " FROM p",
    "calls of two": SLOW,
    "coalesce": "SELECT " + "coalesce(" * 400 + "a" + " + 1, 1)" * 400 + " FROM p",
    "numerics": "SELECT " + "round(" * 900 + "a::numeric" + ", 2)" * 900 + " FROM p",
    "texts": "SELECT " + "substring(" * 900 + "a::text" + " from 1 for 3)" * 900 + " FROM p",
}


@pytest.mark.parametrize("what", NESTED)
def test_planning_ends_with_its_statement(planner, what):
    """Nobody pays for a plan that nobody waits for."""
    with planner.connect() as connection:
        connection.execute("SET statement_timeout = '300ms'")
        soon(lambda: is_canceled(connection, NESTED[what]))
        soon(lambda: is_canceled(connection, f"CREATE MATERIALIZED VIEW v AS {NESTED[what]}"))
        began = time.monotonic()
        while "tidemark_plannings 0" not in planner.metrics():
            assert time.monotonic() - began < SOON, "the plan is still being made"
            time.sleep(0.01)


def test_hundreds_of_joins_are_planned_soon(planner):
    joins = " ".join(f"JOIN p AS t{i} ON t{i}.a = t{i - 1}.a" for i in range(1, 200))
    with planner.connect() as connection:
        assert soon(lambda: connection.execute(f"SELECT t0.a, t199.b FROM p AS t0 {joins}").fetchall()) == [(1, 1)]


def test_others_are_answered_while_a_statement_is_planned(planner):
    held = [planner.connect() for _ in range(3)]
    running = [background(lambda connection=connection: connection.execute(SLOW)) for connection in held]
    time.sleep(0.5)

    def client(number):
        def work():
            with planner.connect() as connection:
                assert connection.execute("SELECT count(*) FROM p WHERE a = 1").fetchone() == (1,)
                connection.execute("INSERT INTO p VALUES (%s, 0)", (100 + number,))

        soon(work)

    in_threads(10, client)
    assert all(thread.is_alive() for thread, _ in running), "they were to be planned meanwhile"
    for connection in held:
        connection.cancel()
    for thread, outcome in running:
        assert isinstance(failed(outcome, thread), psycopg.errors.QueryCanceled)


@pytest.mark.parametrize("end", ["rollback", "terminate"])
def test_what_was_given_up_locks_nothing(planner, end):
    """The block has written what the statement reads: that is read under the block's lock, which ends with the block and not with the planning."""
    with planner.connect(autocommit=False) as holder, planner.connect() as other:
        holder.execute("SET statement_timeout = '300ms'")
        holder.commit()
        holder.execute("UPDATE p SET b = 2 WHERE a = 1")
        if end == "rollback":
            is_canceled(holder, SLOW)
            holder.rollback()
        else:
            holder.execute("SET statement_timeout = 0")
            thread, outcome = background(lambda: holder.execute(SLOW))
            time.sleep(0.5)
            assert other.execute("SELECT pg_terminate_backend(%s)", (pid_of(holder),)).fetchone() == (True,)
            failed(outcome, thread)
        other.execute("SET lock_timeout = '5s'")
        assert soon(lambda: other.execute("UPDATE p SET b = b + 10 WHERE a = 1").rowcount) == 1
        assert other.execute("SELECT b FROM p").fetchone() == (11,)
