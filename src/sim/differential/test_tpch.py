"""TPC-H over NUMERIC columns: all queries ad hoc and as views, while the tables change, and after a `kill -9`."""

import pytest

from . import tpch
from .judging import World

ROUNDS = 3


@pytest.fixture
def world():
    made = World(command="python -m differential")
    yield made
    made.stop()


def rows(answer):
    assert answer.ok, answer.text()
    return sorted(answer.rows, key=lambda row: [(cell is None, cell or b"") for cell in row])


@pytest.mark.timeout(180)
def test_answers_are_postgresqls(world):
    world.use("tpch", fresh=True)
    for statement in tpch.statements(7):
        for answer in world.both(statement):
            assert answer.ok, f"{statement[:100]}: {answer.text()}"
    queries = tpch.queries()
    assert len(queries) == 22
    for number, query in enumerate(queries, 1):
        made = world.ask_tidemark(f"CREATE MATERIALIZED VIEW q{number} AS {query}")
        assert made.ok, f"query {number}: {made.text()}"
    filled = 0
    for round_ in range(ROUNDS):
        for number, query in enumerate(queries, 1):
            expected, adhoc = map(rows, world.both(query))
            view = rows(world.ask_tidemark(f"SELECT * FROM q{number}"))
            assert adhoc == expected, f"query {number} ad hoc, round {round_}"
            assert view == expected, f"query {number} as a view, round {round_}"
            filled += any(cell is not None for row in expected for cell in row)
        for statement in tpch.changes(round_):
            for answer in world.both(statement):
                assert answer.ok, f"{statement}: {answer.text()}"
        if round_ == 1:
            assert world.target.restart() and world.tidemark.connect()
        assert world.flush().ok
    assert filled > ROUNDS * 18, "most queries have rows"
