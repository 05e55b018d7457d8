"""The differential judge: random SQL is put to Tidemark and to a PostgreSQL 15 of its own, and the answers must be the same.

    postgres.py     the PostgreSQL to compare with
    session.py      one connection to either: a statement in, an Answer out, also where the server dies or hangs
    values.py       the types, their edge values, and how literals of them are spelled
    functions.py    which operators, functions and forms of expression there are
    expressions.py  random expressions as trees
    queries.py      random queries as trees; schemas.py: the tables below them, and random DML
    compare.py      what counts as the same answer
    intended.py     the differences that are meant, as the manual lists them; floats.py, evaluation.py: those of sums of floats, and of what is computed and fails
    statement.py    parts of a statement: literals, calls, arguments
    shrink.py       a smaller statement that differs in the same way
    kinds.py        differences that are alike are one kind; the report
    judging.py      what both judges share; judge_expressions.py and judge_queries.py: generate, ask, compare, shrink

`make differential SECONDS=n` runs it for n seconds, `python -m differential --help` (in src/sim) has the options. Everything follows from the seed: case n of seed s is the same
in every run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))  # the harness that starts servers is the end-to-end tests'
