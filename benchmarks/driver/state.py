"""What a stored row costs: an aggregate and a join over K distinct keys, from a generator into a blackhole.

    state-aggregate   3 K rows with random keys of K: count and sum by key, one stored row for each key that came
    state-join        K rows with each key once, joined with K rows of random keys: 2 K stored rows

`bytes_per_stored_row` is the job's memory as SHOW JOBS tells it, `rss_bytes_per_stored_row` what the process grew by. Compare `cpu_us_per_row` of 1 M and 10 M keys.
"""

import math
import time

from . import perf
from .server import Server

SOURCE = "CREATE SOURCE {name} (k BIGINT, v BIGINT) WITH (connector = 'datagen', datagen.rows.total = '{rows}', datagen.seed = '{seed}', {keys}, fields.v.kind = 'random', fields.v.min = '0', fields.v.max = '1000000')"
RANDOM = "fields.k.kind = 'random', fields.k.min = '1', fields.k.max = '{keys}'"
SEQUENCE = "fields.k.kind = 'sequence', fields.k.start = '1', fields.k.end = '{keys}'"


def aggregate(keys):
    """Sources with their rows, the query, and how many rows it stores."""
    sources = {"s": (3 * keys, SOURCE.format(name="s", rows=3 * keys, seed=1, keys=RANDOM.format(keys=keys)))}
    return sources, "SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k", round(keys * (1 - math.exp(-3)))


def join(keys):
    sources = {
        "l": (keys, SOURCE.format(name="l", rows=keys, seed=1, keys=SEQUENCE.format(keys=keys))),
        "r": (keys, SOURCE.format(name="r", rows=keys, seed=2, keys=RANDOM.format(keys=keys))),
    }
    return sources, "SELECT l.k, l.v AS a, r.v AS b FROM l JOIN r ON l.k = r.k", 2 * keys


def measure(name, keys, args):
    """One line."""
    sources, text, stored = {"aggregate": aggregate, "join": join}[name](keys)
    rows = sum(count for count, _ in sources.values())
    with Server(args.workers) as server:
        for _, statement in sources.values():
            server.query(statement)
        rss, cpu, began = server.rss_mb(), server.cpu_seconds(), time.monotonic()
        with perf.recording(server, args.perf, f"state-{name}-{keys}"):
            server.query(f"CREATE SINK result AS {text} WITH (connector = 'blackhole')")
            server.wait(lambda: (jobs := server.jobs()) and all(int(jobs[source]["Rows"]) >= count for source, (count, _) in sources.items()))
            server.query("FLUSH")
        seconds, cpu = time.monotonic() - began, server.cpu_seconds() - cpu
        memory, grown = int(server.jobs()["result"]["Memory"]), (server.rss_mb() - rss) * 1024 * 1024
        return {
            "engine": "tidemark", "query": f"state-{name}", "keys": keys, "events": rows, "seconds": round(seconds, 3), "events_per_second": round(rows / seconds),
            "peak_rss_mb": server.peak_rss_mb(), "checkpoint_bytes": server.checkpoint_bytes(), "workers": args.workers, "sink": "blackhole", "source": "generator",
            "cpu_seconds": round(cpu, 2), "cpu_us_per_row": round(1e6 * cpu / rows, 3), "stored_rows": stored, "bytes_per_stored_row": round(memory / stored, 1),
            "rss_bytes_per_stored_row": round(grown / stored, 1),
        }
