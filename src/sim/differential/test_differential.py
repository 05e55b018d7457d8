"""The judge in the test run: the same cases each time, in about a hundred seconds.

A kind of difference that open.txt does not know fails with its smallest statement and both answers; an entry of open.txt whose example does not differ any more fails too: it is
to be taken out.
"""

import time

import pytest

from . import kinds
from .expressions import dice
from .judge_expressions import ExpressionJudge
from .judge_queries import QueryJudge
from .judging import World
from .postgres import Postgres

SECONDS_MAX = 70
SEED, BATCHES = "test", 16


@pytest.fixture(scope="module")
def world():
    made = World(command="python -m differential")
    yield made
    made.stop()


@pytest.mark.timeout(60)
def test_two_postgresqls_agree():
    """What the judge calls a difference is none of its own making: a second PostgreSQL in place of Tidemark differs in nothing."""
    second = Postgres()
    try:
        second.start().connect().ask("CREATE DATABASE dev")
        world = World(f"127.0.0.1:{second.port}")
        try:
            judge = ExpressionJudge(world, SEED, edge=False)
            for number in range(5):
                judge.constants(number, 30)
                judge.parameters(number, 8)
                judge.sets(number, 3)
            judge = QueryJudge(world, SEED)
            judge.begin(0)
            judge.adhoc(dice(SEED, "adhoc"), 50)
            assert not world.findings.kinds, world.findings.report(0, "")
        finally:
            world.stop()
    finally:
        second.stop()


@pytest.mark.timeout(180)
def test_open_differences_differ_still(world):
    # more than once: some differ by the order in which rows come
    mended = [key for key, statements in kinds.read_open().items()
              if kinds.NOT_ALONE not in key and not any(world.run(statements)[0] for _ in range(3))]
    assert not mended, "these do not differ any more: take their lines out of open.txt\n" + "\n".join(mended)


@pytest.mark.timeout(180)
def test_no_new_difference(world):
    begun = time.monotonic()
    world.stopped = lambda: time.monotonic() - begun > SECONDS_MAX
    world.families = kinds.open_families()
    judges = [make(world, SEED) for make in (ExpressionJudge, QueryJudge)]
    for number in range(BATCHES):
        for judge in judges:
            judge.batch(number)
    new = world.findings.new()
    shown = [f"[{kind.difference}] {kind.key}\n    {kinds.SEPARATOR.join(kind.statements)}\n    PostgreSQL: {kind.postgres}\n    Tidemark:   {kind.tidemark}\n"
             f"    repeat: {kind.repeat}" for kind in new[:20]]
    assert not new, f"{len(new)} new kinds of differences\n" + "\n".join(shown)
