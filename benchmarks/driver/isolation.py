"""INSERT of single rows while a view beside it has an epoch of many seconds, and without that view: what one person's view costs another's writes.

The view joins a table of one key with itself. An INSERT of a row more there makes one epoch of about `--heavy` seconds (the rows are fitted to the machine first), one after
the other as long as pgbench writes to another table. Reads of that other table's view are asked for meanwhile, too.
"""

import threading
import time

from .serve import ask
from .server import Server

TABLES = (
    "CREATE TABLE hot (id BIGINT PRIMARY KEY, k INT, v INT)",
    "CREATE TABLE accounts (aid BIGINT PRIMARY KEY, bid INT, balance INT, filler TEXT)",
    "CREATE MATERIALIZED VIEW totals AS SELECT bid, sum(balance) AS total FROM accounts GROUP BY bid",
)
PAIRS = "CREATE MATERIALIZED VIEW pairs AS SELECT count(*) AS n, max(a.v + b.v) AS m FROM hot a JOIN hot b USING (k)"
INSERT = "\\set aid random(1, 2000000000000)\n\\set bid random(0, 99)\nINSERT INTO accounts (aid, bid, balance, filler) VALUES (:aid, :bid, 1, 'new');\n"
LOOKUP = "\\set bid random(0, 99)\nSELECT total FROM totals WHERE bid = :bid;\n"
FIRST_ROWS = 2_000


def pairs_a_second(server):
    """How many pairs the view makes a second, of one epoch of FIRST_ROWS rows."""
    rows = f"INSERT INTO hot SELECT i, 1, i FROM generate_series(1, {FIRST_ROWS}) AS g(i)"
    server.query(rows)
    began = time.monotonic()
    server.query(PAIRS)
    took = time.monotonic() - began
    server.query("DROP MATERIALIZED VIEW pairs")
    server.query("DELETE FROM hot")
    return FIRST_ROWS**2 / took


def heavy(server, rows, done, epochs):
    """Writes and takes away `rows` rows of one key, again and again: each is an epoch of `rows` squared pairs."""
    with server.connect() as connection:
        connection.execute(PAIRS)
        while not done.is_set():
            began = time.monotonic()
            connection.execute(f"INSERT INTO hot SELECT i, 1, i FROM generate_series(1, {rows}) AS g(i)")
            connection.execute("SELECT n FROM pairs").fetchone()
            epochs.append(time.monotonic() - began)
            connection.execute("DELETE FROM hot")


def measure(args):
    """One line: INSERT and lookup alone, then beside the view."""
    line = {"engine": "tidemark", "query": "isolation", "clients": args.clients, "seconds": args.seconds, "workers": args.workers}
    with Server(args.workers) as server:
        for statement in TABLES:
            server.query(statement)
        rows = int((args.heavy * pairs_a_second(server)) ** 0.5)

        def both(prefix):
            for name, script in (("insert", INSERT), ("lookup", LOOKUP)):
                rate, p99 = ask(server.port, "dev", script, "prepared", args, args.clients)
                line.update({f"{prefix}{name}_per_second": round(rate), f"{prefix}{name}_p99_ms": round(p99, 2)})

        both("alone_")
        done, epochs = threading.Event(), []
        thread = threading.Thread(target=heavy, args=(server, rows, done, epochs), daemon=True)
        thread.start()
        server.wait(lambda: "pairs" in server.jobs() and server.jobs()["pairs"]["State"] == "running")
        time.sleep(1)
        both("beside_")
        done.set()
        line |= {"heavy_rows": rows, "heavy_epochs": len(epochs), "heavy_epoch_seconds": round(max(epochs), 1) if epochs else None, "peak_rss_mb": server.peak_rss_mb()}
    return line
