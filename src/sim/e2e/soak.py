"""The soak: a constant number of keys, steady work, and nothing may grow.

`make soak MINUTES=n` starts a server of its own with a checkpoint each second and, for n minutes, lets

    8 sessions   update single rows of a table of 100,000, 600 updates a second in all
    1 session    reads a view by key and the sum that no update changes
    1 session    creates and drops views, sinks and tables
    1 session    opens a transaction, reads, stays idle for ten seconds, and must then read the same

Each five seconds it writes a line: resident memory, size of the data folder, the slowest and the median update. At the end it prints the curve and fails if the second half of the run grew:
the straight line through its samples may rise by no more than RSS_SLOPE_MAX of memory and DISK_SLOPE_MAX of disk a minute, and nothing may have failed. The first half is not judged: caches,
the allocator and the first compactions fill up then. Runs under ten minutes are judged by a bound that is as much wider as they are shorter, since the noise does not shrink with them.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
from harness import Tidemark

KEYS = 100_000
WRITERS = 8
UPDATES_PER_SECOND = 600
SAMPLE_SECONDS = 5
RSS_SLOPE_MAX = 2 << 20
DISK_SLOPE_MAX = 2 << 20


def rss(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disk(folder):
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # collected meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def slope(samples, field):
    """Growth a minute of the straight line through the samples (least squares)."""
    times = [sample["seconds"] / 60 for sample in samples]
    values = [sample[field] for sample in samples]
    middle, mean = statistics.mean(times), statistics.mean(values)
    spread = sum((t - middle) ** 2 for t in times)
    return sum((t - middle) * (v - mean) for t, v in zip(times, values)) / spread if spread else 0.0


class Soak:
    def __init__(self, server, idle):
        self.server, self.idle = server, idle
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.latencies, self.failures = [], []
        self.updates = self.changes = self.readings = 0

    def guard(self, work):
        def run():
            try:
                with self.server.connect() as connection:
                    work(connection)
            except BaseException as error:
                if not self.done.is_set():
                    self.failures.append(f"{getattr(work, '__name__', 'work')}: {error!r}")
                    self.done.set()

        return threading.Thread(target=run, daemon=True)

    def write(self, connection):
        pause, due, dice = WRITERS / UPDATES_PER_SECOND, time.monotonic(), random.Random()
        while not self.done.is_set():
            began = time.monotonic()
            # money moves between two accounts of one row: the sum stays
            connection.execute("UPDATE accounts SET a = a + %s, b = b - %s WHERE id = %s", (step := dice.randrange(-9, 10), step, dice.randrange(KEYS)))
            with self.lock:
                self.latencies.append(time.monotonic() - began)
                self.updates += 1
            due = max(due + pause, time.monotonic() - 1)
            self.done.wait(max(0.0, due - time.monotonic()))

    def read(self, connection):
        while not self.done.is_set():
            assert connection.execute("SELECT sum(total), sum(c) FROM groups").fetchone() == (0, KEYS)
            assert connection.execute("SELECT a + b FROM accounts WHERE id = %s", (random.randrange(KEYS),)).fetchone() == (0,)
            self.readings += 1
            self.done.wait(0.5)

    def change(self, connection):
        number = 0
        while not self.done.is_set():
            number += 1
            connection.execute(f"CREATE MATERIALIZED VIEW extra_{number} AS SELECT id % 7 AS k, max(a) AS m FROM accounts GROUP BY id % 7")
            connection.execute(f"CREATE SINK extra_sink_{number} FROM extra_{number} WITH (connector = 'blackhole')")
            connection.execute(f"CREATE TABLE extra_table_{number} (id INT PRIMARY KEY, t VARCHAR)")
            connection.execute(f"INSERT INTO extra_table_{number} SELECT g, 'some text' FROM generate_series(1, 1000) AS s(g)")
            self.done.wait(2)
            connection.execute(f"DROP SINK extra_sink_{number}")
            connection.execute(f"DROP MATERIALIZED VIEW extra_{number}")
            connection.execute(f"DROP TABLE extra_table_{number}")
            self.changes += 1
            self.done.wait(3)

    def stay(self, connection):
        while self.idle and not self.done.is_set():
            with connection.transaction():
                before = connection.execute("SELECT sum(a), count(*) FROM accounts").fetchone()
                self.done.wait(10)
                if not self.done.is_set():
                    assert connection.execute("SELECT sum(a), count(*) FROM accounts").fetchone() == before
            self.done.wait(20)

    def sample(self, began):
        with self.lock:
            latencies, self.latencies = sorted(self.latencies), []
        pid = self.server.process.pid
        return {
            "seconds": round(time.monotonic() - began),
            "rss": rss(pid),
            "disk": disk(self.server.data),
            "updates": len(latencies),
            "median_ms": round(1000 * latencies[len(latencies) // 2], 1) if latencies else None,
            "max_ms": round(1000 * latencies[-1], 1) if latencies else None,
        }

    def run(self, minutes, show):
        threads = [self.guard(work) for work in [self.write] * WRITERS + [self.read, self.change, self.stay]]
        for thread in threads:
            thread.start()
        began, samples = time.monotonic(), []
        while not self.done.wait(SAMPLE_SECONDS) and time.monotonic() - began < minutes * 60:
            samples.append(self.sample(began))
            show(samples[-1])
        self.done.set()
        for thread in threads:
            thread.join(30)
        return samples


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


def curve(samples, field):
    """Twenty lines: a bar for each."""
    top = max(sample[field] for sample in samples) or 1
    for sample in samples[:: max(1, len(samples) // 20)]:
        print(f"  {sample['seconds']:5} s  {mib(sample[field]):>12}  {'#' * round(50 * sample[field] / top)}")


def judge(samples, minutes):
    half = samples[len(samples) // 2 :]
    wider = max(1.0, 10 / minutes)
    grown = []
    for field, most in (("rss", RSS_SLOPE_MAX), ("disk", DISK_SLOPE_MAX)):
        rate = slope(half, field)
        print(f"{field}: {mib(samples[0][field])} at first, {mib(samples[-1][field])} at last; {mib(rate)} a minute in the second half, at most {mib(most * wider)}")
        curve(samples, field)
        if rate > most * wider:
            grown.append(f"{field} grew by {mib(rate)} a minute")
    return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--no-idle", action="store_true", help="without the transaction that stays idle")
    parser.add_argument("--no-ddl", action="store_true", help="without views, sinks and tables that come and go")
    parser.add_argument("--json", type=Path, help="where the samples go, one JSON object a line")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    server = Tidemark(folder)
    try:
        server.start(checkpoint_ms=1000)
        server.run(f"CREATE TABLE accounts (id INT PRIMARY KEY, a BIGINT, b BIGINT, note VARCHAR);\nINSERT INTO accounts SELECT g, 0, 0, 'account ' || g FROM generate_series(0, {KEYS - 1}) AS s(g);\n"
                   "CREATE MATERIALIZED VIEW groups AS SELECT id % 1000 AS k, sum(a + b) AS total, count(*) AS c FROM accounts GROUP BY id % 1000;")
        soak = Soak(server, not arguments.no_idle)
        if arguments.no_ddl:
            soak.change = lambda connection: None
        samples = soak.run(arguments.minutes, lambda sample: print(json.dumps(sample), flush=True))
        if arguments.json:
            arguments.json.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        print(f"{soak.updates} updates, {soak.readings} readings, {soak.changes} rounds of DDL")
        problems = soak.failures + (judge(samples, arguments.minutes) if len(samples) > 3 else [])
        if not server.running:
            problems.append(f"the server ended:\n{server.log_tail()}")
        for problem in problems:
            print(f"FAILED: {problem}")
        return 1 if problems else 0
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
