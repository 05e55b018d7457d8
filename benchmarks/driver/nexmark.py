"""Nexmark into a blackhole or a topic: the sources, the queries, and how long all N events take until they are visible.

Seconds run from CREATE SINK until every event has been read and a FLUSH has returned: everything is computed, visible and in a committed checkpoint.
"""

import re
import time
from pathlib import Path

from . import perf
from .server import ROOT, Server

QUERIES = ROOT / "benchmarks" / "nexmark" / "queries"
COLUMNS = {
    "person": [("id", "BIGINT"), ("name", "VARCHAR"), ("email_address", "VARCHAR"), ("credit_card", "VARCHAR"), ("city", "VARCHAR"), ("state", "VARCHAR"),
               ("date_time", "TIMESTAMP"), ("extra", "VARCHAR")],
    "auction": [("id", "BIGINT"), ("item_name", "VARCHAR"), ("description", "VARCHAR"), ("initial_bid", "BIGINT"), ("reserve", "BIGINT"), ("date_time", "TIMESTAMP"),
                ("expires", "TIMESTAMP"), ("seller", "BIGINT"), ("category", "BIGINT"), ("extra", "VARCHAR")],
    "bid": [("auction", "BIGINT"), ("bidder", "BIGINT"), ("price", "BIGINT"), ("channel", "VARCHAR"), ("url", "VARCHAR"), ("date_time", "TIMESTAMP"), ("extra", "VARCHAR")],
}
# Of every 50 events: which are of a kind.
WITHIN = {"person": range(0, 1), "auction": range(1, 4), "bid": range(4, 50)}
# What a query reads, where it is not bid alone.
READS = {"q3": {"auction", "person"}, "q4": {"auction", "bid"}, "q6": {"auction", "bid"}, "q8": {"person", "auction"}, "q9": {"auction", "bid"}, "q20": {"auction", "bid"}}


def rows_of(kind, events):
    """How many of the first `events` events are of this kind."""
    return events // 50 * len(WITHIN[kind]) + sum(1 for i in range(events % 50) if i in WITHIN[kind])


def reads(query):
    return READS.get(query, {"bid"})


def queries(names="all"):
    """Names and texts, in the order of their numbers."""
    known = sorted((p.stem for p in QUERIES.glob("q*.sql")), key=lambda q: int(q[1:]))
    wanted = known if names == "all" else names.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"no query {', '.join(unknown)}; there are {', '.join(known)}")
    return [(name, text_of(name)) for name in wanted]


def text_of(name):
    return re.sub(r"(?m)^\s*--.*\n?", "", (QUERIES / f"{name}.sql").read_text()).strip().rstrip(";")


def create_sources(server, events, splits=4, broker=None, prefix=None):
    """The three sources, generated or from topics."""
    for kind, columns in COLUMNS.items():
        if broker is None:
            server.query(f"CREATE SOURCE {kind} WITH (connector = 'nexmark', nexmark.table.type = '{kind.capitalize()}', nexmark.event.num = '{events}', "
                         f"nexmark.split.num = '{splits}') FORMAT PLAIN ENCODE NATIVE")
        else:
            listed = ", ".join(f"{name} {sql}" for name, sql in columns)
            server.query(f"CREATE SOURCE {kind} ({listed}) WITH ({broker.options(f'{prefix}_{kind}')}) FORMAT PLAIN ENCODE JSON")


def wait_read(server, wanted, events):
    """Until the sources have read all their rows, and what they gave is visible."""
    totals = {kind: rows_of(kind, events) for kind in wanted}
    server.wait(lambda: (jobs := server.jobs()) and all(int(jobs.get(kind, {"Rows": 0})["Rows"]) >= total for kind, total in totals.items()))
    server.query("FLUSH")
    jobs = server.jobs()
    for kind, total in totals.items():
        assert int(jobs[kind]["Rows"]) == total, f"{kind} gave {jobs[kind]['Rows']} rows instead of {total}"


def figures(server, seconds, cpu_before, name, args, source, sink):
    """The line of a measurement."""
    return {
        "engine": "tidemark", "query": name, "events": args.events, "seconds": round(seconds, 3), "events_per_second": round(args.events / seconds),
        "peak_rss_mb": server.peak_rss_mb(), "checkpoint_bytes": server.checkpoint_bytes(), "state_bytes": int(server.jobs()["result"]["Memory"]), "workers": args.workers, "sink": sink, "source": source,
        "cpu_seconds": round(server.cpu_seconds() - cpu_before, 2),
    }


def measure(name, text, args, broker=None, prefix=None, make=Server):
    """One query on a fresh server into a blackhole, or at least once into a topic of its own."""
    topic = broker.create(f"out_{name}") if args.sink == "kafka" else None
    with make(args.workers) as server:
        create_sources(server, args.events, broker=broker if args.source == "kafka" else None, prefix=prefix)
        with perf.recording(server, args.perf, name):
            cpu, began = server.cpu_seconds(), time.monotonic()
            if topic is None:
                server.query(f"CREATE SINK result AS {text} WITH (connector = 'blackhole')")
            else:
                server.query(f"CREATE SINK result AS {text} WITH ({broker.options(topic)}, delivery = 'at_least_once') FORMAT PLAIN ENCODE JSON")
            wait_read(server, reads(name), args.events)
            if topic is not None:
                wait_delivered(server)
            seconds = time.monotonic() - began
        line = figures(server, seconds, cpu, name, args, args.source, args.sink)
    if topic is not None:
        broker.delete(topic)
    return line


def wait_delivered(server, sink="result"):
    """Until a sink's epochs are all delivered."""
    server.wait(lambda: int(server.jobs()[sink]["Undelivered"]) == 0)
