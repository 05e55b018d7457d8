"""The same query on one process and on several nodes of this machine with as many workers together: what the way between nodes costs."""

import base64
import os
import time
from pathlib import Path

from . import nexmark
from .server import Server


class Nodes(Server):
    """Several nodes that work together. Statements go to the first of them, which may pass them on; figures are those of all."""

    def __init__(self, nodes, workers):
        super().__init__(workers)
        self.others = [Server(workers) for _ in range(nodes - 1)]

    def __enter__(self):
        for name in ("cluster.secret", "secret.key"):
            (Path(self.folder) / name).write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
        for number, node in enumerate([self, *self.others], 1):
            node.start(wait=False, **self.settings_of(number))
        end = time.monotonic() + 60
        while not self._works():
            if time.monotonic() > end:
                raise TimeoutError("the nodes do not work together")
            time.sleep(0.1)
        return self

    def settings_of(self, number):
        """With which the node of that number starts."""
        nodes = [self, *self.others]
        secret, key = (Path(self.folder) / name for name in ("cluster.secret", "secret.key"))
        return {"workers": nodes[number - 1].workers, "node_id": number, "join": ",".join(f"127.0.0.1:{node.port + 2}" for node in nodes),
                "checkpoint_url": f"file://{self.data}/checkpoints", "cluster_secret_file": secret, "secret_key_file": key}

    def _works(self):
        """Whether all nodes do a part of the work, and nothing is about to begin anew."""
        try:
            with self.connect() as connection:
                works = [int(row[9]) > 0 for row in connection.execute("SHOW CLUSTER").fetchall()]
                return works == [True] * (1 + len(self.others))
        except Exception:  # they find each other
            return False

    def __exit__(self, *error):
        for node in self.others:
            node.__exit__(*error)
        super().__exit__(*error)

    def peak_rss_mb(self):
        return super().peak_rss_mb() + sum(node.peak_rss_mb() for node in self.others)

    def cpu_seconds(self):
        return super().cpu_seconds() + sum(node.cpu_seconds() for node in self.others)


def measure(name, text, args, nodes, broker=None, prefix=None):
    """One query on so many nodes with args.workers workers together."""
    make = (lambda workers: Server(workers)) if nodes == 1 else (lambda workers: Nodes(nodes, workers // nodes))
    return {**nexmark.measure(name, text, args, broker, prefix, make), "nodes": nodes}
