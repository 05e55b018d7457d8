"""The command line: `nexmark`, `kafka-to-kafka`, `latency`, `state`, `serve`, `isolation`, `cluster`, `failover`, `fill`. Prints one JSON line a measurement; one that fails prints its error and the others go on."""

import argparse
import json
import os
import sys
import traceback

import psycopg

from . import check, cluster, exactly_once, failover, isolation, latency, nexmark, serve, state
from .topics import Broker, fill_nexmark


def number(text):
    """`4000000`, `4M`, `200k`."""
    scale = {"k": 1_000, "m": 1_000_000}.get(text[-1].lower(), 1)
    return int(float(text[:-1] if scale > 1 else text) * scale)


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, description, events=None, broker=True):
        sub = commands.add_parser(name, help=description, description=description)
        sub.add_argument("--workers", type=int, default=os.cpu_count(), help="worker threads (default: one a core)")
        sub.add_argument("--perf", action="store_true", help="profile the server with Linux perf")
        if events:
            sub.add_argument("--events", type=number, default=number(events), help=f"Nexmark events of all three kinds (default {events})")
        if broker:
            sub.add_argument("--broker", help="HOST:PORT of a running Kafka (default: the benchmarks' own, started when needed)")
        return sub

    sub = command("nexmark", "Nexmark queries from the generator or Kafka", "4M")
    sub.add_argument("--queries", default="all", help="names separated by commas (default: all)")
    sub.add_argument("--source", choices=["generator", "kafka"], default="generator")
    sub.add_argument("--sink", choices=["blackhole", "kafka"], default="blackhole", help="kafka: at least once; see kafka-to-kafka for exactly once")
    sub.add_argument("--prefix", help="prefix of topics that are filled already, as by `run.sh flink fill`")
    sub.add_argument("--check", action="store_true", help="compare answers with DuckDB instead of measuring (use few --events)")
    sub = command("cluster", "Nexmark queries on one process and on several nodes with as many workers together", "4M")
    sub.add_argument("--queries", default="q0,q3,q4,q5,q8")
    sub.add_argument("--source", choices=["generator", "kafka"], default="generator")
    sub.add_argument("--nodes", type=int, default=3)
    sub.add_argument("--prefix", help="prefix of topics that are filled already, as by `run.sh flink fill`")
    sub.set_defaults(sink="blackhole", workers=3)
    sub = command("failover", "how long nobody can read when a node of a cluster goes or comes", broker=False)
    sub.add_argument("--keys", default="1k,6M", help="of the aggregate that the nodes keep, one after the other")
    sub.add_argument("--nodes", type=int, default=3)
    sub.add_argument("--events", default=",".join(failover.EVENTS))
    sub.set_defaults(workers=3)
    sub = command("kafka-to-kafka", "Kafka to Kafka, exactly once", "4M")
    sub.add_argument("--queries", default="q0,q2,q20,matches")
    sub = command("latency", "latency of views and sinks under load")
    sub.add_argument("--rate", type=number, help="bids a second (default: half of what the server takes)")
    sub.add_argument("--seconds", type=int, default=60)
    sub = command("state", "cost of a stored row", broker=False)
    sub.add_argument("--keys", default="1M,10M")
    sub.add_argument("--queries", default="aggregate,join")
    sub = command("serve", "reads and writes of single rows, beside PostgreSQL 15", broker=False)
    sub.add_argument("--keys", type=number, default=number("1M"))
    sub.add_argument("--queries", default=",".join(serve.SCRIPTS))
    sub.add_argument("--clients", type=int, default=8)
    sub.add_argument("--seconds", type=int, default=10, help="of each statement, mode and server")
    sub = command("isolation", "writes and reads beside a view whose epochs take long", broker=False)
    sub.add_argument("--heavy", type=float, default=10.0, help="seconds of processor time of an epoch of that view")
    sub.add_argument("--clients", type=int, default=8)
    sub.add_argument("--seconds", type=int, default=30, help="of each statement")
    sub = command("fill", "fills the Nexmark topics", "4M")
    sub.add_argument("--prefix")
    return parser.parse_args()


def measurements(args):
    """(name, what to call) of every measurement."""
    if args.command == "state":
        for name in args.queries.split(","):
            for keys in map(number, args.keys.split(",")):
                yield f"state-{name}", lambda name=name, keys=keys: state.measure(name, keys, args)
        return
    if args.command == "serve":
        with serve.Both(args) as both:
            for name in args.queries.split(","):
                for mode in serve.MODES[name]:
                    yield f"{name}-{mode}", lambda name=name, mode=mode: serve.measure(name, mode, args, both.tidemark, both.postgres)
        return
    if args.command == "failover":
        for keys in map(number, args.keys.split(",")):
            yield f"failover-{keys}", lambda keys=keys: failover.measure(keys, args)
        return
    if args.command == "isolation":
        yield "isolation", lambda: isolation.measure(args)
        return
    if args.command == "nexmark":
        broker = Broker(args.broker) if "kafka" in (args.source, args.sink) else None
        prefix = None
        if args.source == "kafka":
            prefix = args.prefix or fill_nexmark(broker, args.events)
        run = check.check if args.check else nexmark.measure
        for name, text in nexmark.queries(args.queries):
            yield name, lambda name=name, text=text: run(name, text, args, broker, prefix)
        return
    if args.command == "cluster":
        if args.workers % args.nodes:
            raise SystemExit("--workers is a multiple of --nodes: each node has as many")
        broker = Broker(args.broker) if args.source == "kafka" else None
        prefix = (args.prefix or fill_nexmark(broker, args.events)) if broker else None
        for name, text in nexmark.queries(args.queries):
            for nodes in (1, args.nodes):
                yield f"{name}-{nodes}", lambda name=name, text=text, nodes=nodes: cluster.measure(name, text, args, nodes, broker, prefix)
        return
    broker = Broker(args.broker)
    if args.command == "fill":
        yield "fill", lambda: {"prefix": fill_nexmark(broker, args.events, args.prefix), "events": args.events}
    elif args.command == "latency":
        yield "latency", lambda: latency.measure(args, broker)
    else:
        for name in args.queries.split(","):
            yield name, lambda name=name: exactly_once.measure(name, args, broker)


def main():
    args, failed = arguments(), False
    for name, run in measurements(args):
        try:
            lines = run()
            for line in [lines] if isinstance(lines, dict) else lines:
                failed |= "error" in line or not line.get("ok", True)
                print(json.dumps(line), flush=True)
        except Exception as error:  # one measurement's failure is its result; the others are still wanted
            if not isinstance(error, psycopg.Error):
                traceback.print_exc()
            failed = True
            print(json.dumps({"engine": "tidemark", "query": name, "error": str(error).strip()}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
