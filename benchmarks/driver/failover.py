"""How long nobody can read when a node of a cluster goes or comes: the longest gap between two answers that clients of the other nodes see.

    failover-kill-follower   kill -9 of a node that does not lead
    failover-kill-leader     kill -9 of the one that leads
    failover-stop-follower   SIGTERM: a rolling restart, one node of it
    failover-stop-leader     the same of the one that leads
    failover-freeze-follower SIGSTOP: nothing tells the others but silence
    failover-drain           ALTER CLUSTER DRAIN NODE; clients of all nodes, as when one comes back from that
    failover-come            a node comes back, or RESUME: the longest of them all

The state is one aggregate with K keys, spread over the nodes. Clients read keys that lie on all nodes, each client through a node of its own, and connect again when they are thrown out.
"""

import signal
import threading
import time

import psycopg

from .cluster import Nodes

EVENTS = ("kill-follower", "stop-follower", "freeze-follower", "kill-leader", "stop-leader", "drain")
# So many that each node has some of them.
KEYS = ", ".join(map(str, range(1, 25)))


class Reader:
    """A client of one node that asks again and again; `gap`: the longest time between two answers, in seconds."""

    def __init__(self, server):
        self.server, self.gap, self.answers, self.ended = server, 0.0, 0, threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        connection, last = None, None
        while not self.ended.is_set():
            try:
                connection = connection or self.server.connect(connect_timeout=2, options="-c statement_timeout=2000")
                connection.execute(f"SELECT n FROM result WHERE k IN ({KEYS})").fetchall()
                now = time.monotonic()
                self.gap, last, self.answers = max(self.gap, now - (last or now)), now, self.answers + 1
            except psycopg.Error:
                connection = None
            time.sleep(0.002)
        self.gap = max(self.gap, time.monotonic() - (last or 0))

    def end(self):
        self.ended.set()
        self.thread.join()


class Cluster(Nodes):
    """Nodes that can be asked about each other, whoever of them is there."""

    def nodes(self):
        """By number."""
        return dict(enumerate([self, *self.others], 1))

    def ask(self, statement):
        error = TimeoutError("no node answers")
        for node in self.nodes().values():
            try:
                with node.connect(connect_timeout=2) as connection:
                    rows = connection.execute(statement)
                    return rows.fetchall() if rows.description else []
            except psycopg.Error as e:
                error = e
        raise error

    def until(self, check, timeout=120):
        end = time.monotonic() + timeout
        while True:
            try:
                if found := check():
                    return found
            except psycopg.Error:
                pass
            if time.monotonic() > end:
                raise TimeoutError("the cluster does not come to rest")
            time.sleep(0.02)

    def until_whole(self):
        self.until(lambda: [int(row[9]) > 0 for row in self.ask("SHOW CLUSTER")] == [True] * len(self.nodes()))

    def pick(self, leads):
        rows = self.ask("SHOW CLUSTER")
        return next(int(row[0]) for row in rows if (row[1] == "leader") == leads)


def gap_of(cluster, away, change, settled):
    """The longest gap at nodes other than `away`, from just before `change` until `settled` is true."""
    readers = [Reader(node) for number, node in cluster.nodes().items() if number != away]
    cluster.until(lambda: all(reader.answers for reader in readers))
    time.sleep(0.5)
    for reader in readers:
        reader.gap = 0.0
    change()
    before = [reader.answers for reader in readers]
    cluster.until(settled)
    cluster.until(lambda: all(reader.answers > so_far + 20 for reader, so_far in zip(readers, before)))
    for reader in readers:
        reader.end()
    return max(reader.gap for reader in readers)


def fill(cluster, keys):
    cluster.query(f"CREATE SOURCE s (k BIGINT, v BIGINT) WITH (connector = 'datagen', datagen.rows.total = '{keys}', datagen.seed = '1', fields.k.kind = 'sequence', "
                  f"fields.k.start = '1', fields.k.end = '{keys}', fields.v.kind = 'random', fields.v.min = '0', fields.v.max = '1000000')")
    cluster.query("CREATE MATERIALIZED VIEW result AS SELECT k, count(*) AS n, sum(v) AS total, max(v) AS most FROM s GROUP BY k")
    cluster.until(lambda: cluster.ask(f"SELECT n FROM result WHERE k = {keys}"), 1800)
    cluster.ask("FLUSH")


def measure(keys, args):
    """One line per event, and one for the return of the nodes."""
    with Cluster(args.nodes, args.workers // args.nodes) as cluster:
        fill(cluster, keys)
        memory = sum(int(row[0]) for row in cluster.ask("SELECT memory_bytes FROM tidemark.jobs"))
        came = 0.0
        for event in args.events.split(","):
            cluster.until_whole()
            # A node that has just come has no part of what was stored before it; the crew rests a while.
            time.sleep(3)
            number = cluster.pick(leads=event.endswith("leader"))
            node = cluster.nodes()[number]
            others = len(cluster.nodes()) - 1

            def works(number=number, others=others):
                rows = {int(row[0]): int(row[9]) for row in cluster.ask("SHOW CLUSTER")}
                return sum(count > 0 for of, count in rows.items() if of != number) == others and not rows[number]

            if event == "drain":
                gap = gap_of(cluster, None, lambda: cluster.ask(f"ALTER CLUSTER DRAIN NODE {number}"), works)
                came = max(came, gap_of(cluster, None, lambda: cluster.ask(f"ALTER CLUSTER RESUME NODE {number}"), lambda: cluster.until_whole() or True))
            else:
                sign = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "freeze": signal.SIGSTOP}[event.split("-")[0]]
                gap = gap_of(cluster, number, lambda: node.process.send_signal(sign), works)
                if sign == signal.SIGSTOP:
                    node.process.send_signal(signal.SIGKILL)
                node.kill()
                came = max(came, gap_of(cluster, number, lambda: node.start(wait=False, **cluster.settings_of(number)), lambda: cluster.until_whole() or True))
            yield {"engine": "tidemark", "query": f"failover-{event}", "nodes": args.nodes, "workers": args.workers, "keys": keys, "state_mb": memory >> 20, "gap_ms": round(1000 * gap)}
        yield {"engine": "tidemark", "query": "failover-come", "nodes": args.nodes, "workers": args.workers, "keys": keys, "state_mb": memory >> 20, "gap_ms": round(1000 * came)}
