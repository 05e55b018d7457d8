"""Reads and writes of single rows, beside PostgreSQL 15 in the same run: pgbench asks both, one after the other, over the same table of K rows.

    lookup     SELECT one row by its key
    lookup-in  SELECT five rows by their keys
    lookup-any SELECT the rows of an array of five keys
    view       SELECT one row of a view (PostgreSQL: a table with the view's rows) by its key
    prefix     SELECT five rows by the first column of a key of two
    index      SELECT one row through CREATE INDEX
    total      SELECT count(*) and a sum over a view of 1,000 rows (PostgreSQL: a table), of one client; p99 is what is to be looked at
    groups     the same by groups, of some of the rows
    some       the same of rows below a number that differs each time
    insert     INSERT of a row with a new key
    update     UPDATE of a row by its key

Reads run in the simple protocol and with prepared statements. PostgreSQL has its default settings: every commit is on disk before it is acknowledged, as Tidemark's are.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from .server import ROOT, Server

sys.path.insert(0, str(ROOT / "src" / "sim"))
from differential.postgres import Postgres  # noqa: E402

TABLE = "CREATE TABLE accounts (aid INT PRIMARY KEY, bid INT, balance INT, filler TEXT)"
ROWS = "INSERT INTO accounts SELECT i, i % 100, 0, 'this is a filler of forty characters, so' FROM generate_series({first}, {last}) AS g(i)"
VIEW = "CREATE MATERIALIZED VIEW totals AS SELECT aid, sum(balance) AS total FROM accounts GROUP BY aid"
VIEW_THERE = ("CREATE TABLE totals AS SELECT aid, sum(balance) AS total FROM accounts GROUP BY aid", "ALTER TABLE totals ADD PRIMARY KEY (aid)")
PARTS = ("CREATE TABLE parts (aid INT, part INT, amount INT, PRIMARY KEY (aid, part))",
         "INSERT INTO parts SELECT aid / 5 + 1, aid % 5, aid FROM accounts WHERE aid <= {keys} / 2",
         "CREATE INDEX parts_amount ON parts (amount)")
SMALL = "CREATE MATERIALIZED VIEW small AS SELECT aid % 1000 AS k, aid % 10 AS g, sum(aid) AS x FROM accounts GROUP BY aid % 1000, aid % 10"
SMALL_THERE = ("CREATE TABLE small AS SELECT aid % 1000 AS k, aid % 10 AS g, sum(aid) AS x FROM accounts GROUP BY aid % 1000, aid % 10", "ALTER TABLE small ADD PRIMARY KEY (k, g)")
ROWS_AT_ONCE = 100_000

SCRIPTS = {
    "lookup": "\\set aid random(1, {keys})\nSELECT balance FROM accounts WHERE aid = :aid;\n",
    "lookup-in": "".join(f"\\set a{i} random(1, {{keys}})\n" for i in range(5)) + "SELECT aid, balance FROM accounts WHERE aid IN (:a0, :a1, :a2, :a3, :a4);\n",
    "lookup-any": "".join(f"\\set a{i} random(1, {{keys}})\n" for i in range(5)) + "SELECT aid, balance FROM accounts WHERE aid = ANY (ARRAY[:a0, :a1, :a2, :a3, :a4]::int[]);\n",
    "view": "\\set aid random(1, {keys})\nSELECT total FROM totals WHERE aid = :aid;\n",
    "prefix": "\\set aid random(1, {keys} / 10)\nSELECT part, amount FROM parts WHERE aid = :aid;\n",
    "index": "\\set n random(1, {keys} / 2)\nSELECT aid, part FROM parts WHERE amount = :n;\n",
    "total": "SELECT count(*), sum(x) FROM small;\n",
    "groups": "SELECT g, count(*), sum(x) FROM small WHERE k < 500 GROUP BY g;\n",
    "some": "\\set k random(1, 1000)\nSELECT count(*), sum(x) FROM small WHERE k < :k;\n",
    "insert": "\\set aid random(1000000000, 2000000000)\nINSERT INTO accounts (aid, bid, balance, filler) VALUES (:aid, 1, 0, 'new'){conflict};\n",
    "update": "\\set aid random(1, {keys})\nUPDATE accounts SET balance = balance + 1 WHERE aid = :aid;\n",
}
MODES = {name: ("prepared",) if name in ("insert", "update") else ("simple", "prepared") for name in SCRIPTS}
SMALL_QUERIES = ("total", "groups", "some")


def fill(port, database, keys, view):
    with psycopg.connect(host="127.0.0.1", port=port, dbname=database, user="root", autocommit=True) as connection:
        connection.execute(TABLE)
        for first in range(1, keys + 1, ROWS_AT_ONCE):
            connection.execute(ROWS.format(first=first, last=min(first + ROWS_AT_ONCE - 1, keys)))
        for statement in (*PARTS, *view):
            connection.execute(statement.format(keys=keys))


def ask(port, database, script, mode, args, clients):
    """(statements a second, p99 in ms) of pgbench."""
    with tempfile.TemporaryDirectory(prefix="pgbench-") as folder:
        Path(folder, "script.sql").write_text(script)
        done = subprocess.run(["pgbench", "-n", "-M", mode, "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(args.seconds), "-f", "script.sql", "-l", "--log-prefix=log",
                               "-h", "127.0.0.1", "-p", str(port), "-U", "root", database], cwd=folder, capture_output=True, text=True)
        rate = re.search(r"tps = ([\d.]+)", done.stdout)
        if done.returncode != 0 or rate is None:
            raise RuntimeError(f"pgbench: {done.stderr.strip()[-500:]}")
        # client, transaction, microseconds, ..
        taken = sorted(int(line.split()[2]) for log in Path(folder).glob("log.*") for line in log.read_text().splitlines())
        return float(rate[1]), taken[len(taken) * 99 // 100] / 1000


def measure(name, mode, args, tidemark, postgres):
    """One line: both, one after the other."""
    clients = 1 if name in SMALL_QUERIES else args.clients
    line = {"query": f"{name}-{mode}", "keys": args.keys, "clients": clients, "seconds": args.seconds}
    for engine, port, database, conflict in (("postgres", postgres.port, "postgres", " ON CONFLICT DO NOTHING"), ("tidemark", tidemark.port, "dev", "")):
        sys.stderr.write(f"{line['query']}: {engine}\n")
        rate, p99 = ask(port, database, SCRIPTS[name].format(keys=args.keys, conflict=conflict), mode, args, clients)
        line |= {f"{engine}_per_second": round(rate), f"{engine}_p99_ms": round(p99, 2)}
    line["ratio"] = round(line["tidemark_per_second"] / line["postgres_per_second"], 2)
    return line


class Both:
    """Both servers with the same rows, as a context manager."""

    def __init__(self, args):
        self.args, self.tidemark, self.postgres = args, Server(args.workers), Postgres({})

    def __enter__(self):
        self.tidemark.__enter__()
        self.postgres.start()
        sys.stderr.write(f"filling two tables of {self.args.keys} rows\n")
        fill(self.tidemark.port, "dev", self.args.keys, (VIEW, SMALL, "FLUSH"))
        fill(self.postgres.port, "postgres", self.args.keys, (*VIEW_THERE, *SMALL_THERE, "VACUUM ANALYZE"))
        return self

    def __exit__(self, *error):
        self.postgres.stop()
        self.tidemark.__exit__(*error)
