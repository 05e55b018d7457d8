"""Rounds by hand: a cluster under load, a fault in each round, and the comparison of all rows with what they must be.

`python rounds.py --rounds 200 --nodes 3 --seed 7` prints one line for each round and ends with exit code 1 at the first one that fails; it tells the seed then and keeps the folder. `test_cluster_faults.py`
has a few of the same rounds. The dice of a round are thrown by the seed; what the machine does at the same time is not, so that a seed gives the same faults and not the same run.

Load, while a fault is there:

    orders     a Kafka topic of six partitions, written all the time; a view sums it up by key, another joins that with a table
    ledger     a table; two sessions at any node insert a row and count it up in the table `names`, in one transaction
    extra      a view over both, which a session creates and drops all the time
    readers    ask every node that answers, all the time
    sinks      the source, the join view (upsert) and the table go to topics

What must hold, at every reading: a write that was acknowledged is there, both tables are of one moment in one statement, and what was read of a view never goes back. And at the end of a round: all rows are those
of a recomputation; each record that a sink owes is there once. A write without an answer may be there or not, but as a whole, and not any more once it was seen to be missing.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from cluster import Cluster, Net, NetKafka, NetS3, patient, why_no_net
from harness import eventually, replay_upserts

KEYS = 40
WRITERS = 2
SCRIPT = """
CREATE TABLE names (k BIGINT PRIMARY KEY, name VARCHAR, n BIGINT);
CREATE TABLE ledger (id BIGINT PRIMARY KEY, k BIGINT, v BIGINT);
INSERT INTO names SELECT g, 'name ' || g, 0 FROM generate_series(0, 39) g;
CREATE SOURCE orders (id BIGINT, k BIGINT, v BIGINT) WITH ({orders}) FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW sums AS SELECT k, count(*) AS c, sum(v)::BIGINT AS v, max(v) AS m FROM orders GROUP BY k;
CREATE MATERIALIZED VIEW named AS SELECT s.k, n.name, n.n, s.c, s.v FROM sums s JOIN names n ON n.k = s.k;
CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS c, sum(v)::BIGINT AS v FROM ledger GROUP BY k;
CREATE MATERIALIZED VIEW broken AS SELECT n.k FROM names n JOIN per_k p ON p.k = n.k WHERE n.n <> p.c;
CREATE SINK orders_sink FROM orders WITH ({orders_out}, type = 'append-only') FORMAT PLAIN ENCODE JSON;
CREATE SINK ledger_sink FROM ledger WITH ({ledger_out}, primary_key = 'id') FORMAT UPSERT ENCODE JSON;
CREATE SINK named_sink FROM named WITH ({named_out}, primary_key = 'k') FORMAT UPSERT ENCODE JSON
"""
EXTRA = "CREATE MATERIALIZED VIEW extra AS SELECT s.k % 7 AS g, count(*) AS c, sum(s.c)::BIGINT AS read, sum(p.c)::BIGINT AS written FROM sums s JOIN per_k p ON p.k = s.k GROUP BY s.k % 7"


class Load:
    """The work that goes on while nodes fail, and what its rows must be."""

    def __init__(self, cluster, kafka, tag):
        self.cluster, self.kafka = cluster, kafka
        self.topic = {name: f"{tag}-{name}" for name in ("orders", "orders_out", "ledger_out", "named_out")}
        for name, topic in self.topic.items():
            kafka.create_topic(topic, 6 if name == "orders" else 2)
        self.lock, self.over = threading.Lock(), threading.Event()
        self.sent, self.sums = 0, {}
        # Rows of the ledger by id: acknowledged; without an answer; seen to be missing, or never committed.
        self.acknowledged, self.doubtful, self.void = {}, {}, {}
        self.recent, self.next_id, self.readings, self.answered = [], 0, 0, 0.0
        self.highest = [0, 0]
        self.longest_silence, self.failures, self.codes = 0.0, [], Counter()

    def create(self):
        options = {name: self.kafka.options(topic) for name, topic in self.topic.items()}
        for statement in SCRIPT.format(**options).split(";\n"):
            # What ended without an answer may be there.
            with suppress(psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                self.cluster.run(statement.strip())

    @contextmanager
    def going_on(self):
        """Load, as long as the block runs. Raises what a reader has found."""
        self.over.clear()
        self.longest_silence, self.answered = 0.0, time.monotonic()
        works = [lambda number=number: self.write(number) for number in range(WRITERS)] + [self.produce, self.read, self.change]
        threads = [threading.Thread(target=self.guard, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.over.set()
            ended = time.monotonic()
            for thread in threads:
                thread.join(60)
        self.longest_silence = max(self.longest_silence, ended - self.answered)
        self.raise_failures()
        assert not any(thread.is_alive() for thread in threads), "a client hangs"

    def raise_failures(self):
        if self.failures:
            raise self.failures[0]

    def guard(self, work):
        try:
            work()
        except BaseException as error:
            self.failures.append(error)

    def produce(self):
        while not self.over.wait(0.05):
            records = [{"id": n, "k": n * 7 % KEYS, "v": n % 1000} for n in range(self.sent, self.sent + 10)]
            self.kafka.produce(self.topic["orders"], [(None, record) for record in records])
            for record in records:
                c, v, m = self.sums.get(record["k"], (0, 0, 0))
                self.sums[record["k"]] = (c + 1, v + record["v"], max(m, record["v"]))
            self.sent += len(records)

    def sessions(self, dice, step):
        """Calls `step` with a connection to a node, and once more with the same one while it does not fail."""
        connection = node = None
        while not self.over.is_set():
            try:
                if connection is None:
                    node = dice.choice(list(self.cluster.nodes.values()))
                    connection = node.connect(autocommit=False)
                with patient(connection, 15):
                    step(connection)
            except psycopg.Error as error:
                self.codes[error.sqlstate or type(error).__name__] += 1
                if connection is not None:
                    connection.close()
                connection = None
                self.over.wait(0.05)
        if connection is not None:
            connection.close()

    def write(self, number):
        dice = random.Random()

        def step(connection):
            with self.lock:
                self.next_id += 1
                at = self.next_id
            # Sessions have keys of their own: none waits for another.
            row = (dice.randrange(number, KEYS, WRITERS), at % 97)
            commits = False
            try:
                connection.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (at, *row))
                connection.execute("UPDATE names SET n = n + 1 WHERE k = %s", row[:1])
                commits = True
                connection.commit()
            except psycopg.Error:
                (self.doubtful if commits else self.void)[at] = row
                raise
            with self.lock:
                self.acknowledged[at] = row
                self.recent = (self.recent + [at])[-20:]

        self.sessions(dice, step)

    def change(self):
        dice = random.Random()

        def step(connection):
            connection.autocommit = True
            connection.execute("DROP MATERIALIZED VIEW IF EXISTS extra")
            try:
                connection.execute(EXTRA)
            except psycopg.errors.DuplicateTable:
                raise AssertionError("a view is there that was dropped") from None
            self.over.wait(dice.uniform(0, 2))

        self.sessions(dice, step)

    def read(self):
        """Nodes in turn; each keeps its connection while it answers."""
        connections, numbers = {}, []
        while not self.over.wait(0.01):
            numbers = numbers or [number for number, node in self.cluster.nodes.items() if node.running]
            if not numbers:
                continue
            number = numbers.pop()
            node = self.cluster.nodes.get(number)
            try:
                if node is None:
                    continue
                if number not in connections:
                    connections[number] = node.connect(connect_timeout=2)
                with patient(connections[number], 4):
                    self.look(connections[number], number)
                self.longest_silence = max(self.longest_silence, time.monotonic() - self.answered)
                self.answered = time.monotonic()
                self.readings += 1
            except psycopg.Error as error:
                self.codes[error.sqlstate or type(error).__name__] += 1
                with suppress(KeyError):
                    connections.pop(number).close()
        for connection in connections.values():
            connection.close()

    def look(self, connection, number):
        with self.lock:
            recent = self.recent
        if recent:
            there = {row[0] for row in connection.execute(f"SELECT id FROM ledger WHERE id IN ({', '.join(map(str, recent))})")}
            assert there == set(recent), f"node {number} does not show what was acknowledged before it was asked: {sorted(set(recent) - there)}"
        rows = connection.execute("SELECT (SELECT count(*) FROM broken), (SELECT sum(n) FROM names), (SELECT sum(c) FROM per_k), (SELECT sum(c) FROM sums)").fetchone()
        broken, counted, written, read = (int(value or 0) for value in rows)
        assert broken == 0 and counted == written, f"node {number} shows a half of a transaction: {rows}"
        assert written >= self.highest[0] and read >= self.highest[1], f"node {number} shows what is older than {self.highest}: {rows}"
        self.highest = [written, read]

    def compare(self, timeout=60.0):
        """Waits until all rows are as they must be; nobody works. A stuck cluster ends here, too."""
        def is_right():
            rows = {row[0]: row[1:] for row in self.cluster.run("SELECT id, k, v FROM ledger")}
            lost = {at: row for at, row in self.acknowledged.items() if rows.get(at) != row}
            if lost:
                self.failures.append(AssertionError(f"lost or changed, though acknowledged: {dict(sorted(lost.items())[:20])}"))
            back = [at for at in self.void if at in rows]
            if back:
                self.failures.append(AssertionError(f"there, though never committed or seen to be missing: {sorted(back)[:20]}"))
            self.raise_failures()
            for at, row in self.doubtful.items():
                (self.acknowledged if at in rows else self.void)[at] = row
            self.doubtful.clear()
            assert rows == self.acknowledged
            per_k = {}
            for k, v in rows.values():
                c, total = per_k.get(k, (0, 0))
                per_k[k] = (c + 1, total + v)
            counts = {k: per_k.get(k, (0,))[0] for k in range(KEYS)}
            self.same("SELECT k, name, n FROM names", [(k, f"name {k}", n) for k, n in counts.items()])
            self.same("SELECT k, c, v FROM per_k", [(k, *row) for k, row in per_k.items()])
            self.same("SELECT k, c, v, m FROM sums", [(k, *row) for k, row in self.sums.items()])
            self.named = [(k, f"name {k}", counts[k], c, v) for k, (c, v, _) in self.sums.items()]
            self.same("SELECT k, name, n, c, v FROM named", self.named)
            self.same("SELECT * FROM broken", [])
            if self.cluster.run("SELECT count(*) FROM pg_matviews WHERE matviewname = 'extra'") == [(1,)]:
                both = [(k % 7, self.sums[k][0], per_k[k][0]) for k in per_k.keys() & self.sums.keys()]
                groups = {g: [row for row in both if row[0] == g] for g, _, _ in both}
                self.same("SELECT g, c, read, written FROM extra", [(g, len(rows), sum(row[1] for row in rows), sum(row[2] for row in rows)) for g, rows in groups.items()])
            return True

        eventually(is_right, timeout, 0.2)

    def same(self, query, expected):
        rows, expected = sorted(self.cluster.run(query)), sorted(expected)
        assert rows == expected, f"{query}: {[row for row in rows if row not in expected][:5]} and not {[row for row in expected if row not in rows][:5]}"

    def compare_sinks(self, timeout=60.0):
        """After `compare`: each record that the sinks owe is there, once."""
        def once(topic, field, expected):
            found = Counter(record.value[field] for record in self.kafka.read(self.topic[topic]))
            doubled = [at for at, count in found.items() if count > 1]
            if doubled or found.keys() - expected:
                self.failures.append(AssertionError(f"{topic}: doubled {sorted(doubled)[:20]}, owed by nobody {sorted(found.keys() - expected)[:20]}"))
            self.raise_failures()
            missing = expected - found.keys()
            assert not missing, f"{topic}: {len(missing)} of {len(expected)} are missing, {sorted(missing)[:20]}"

        def is_right():
            once("orders_out", "id", set(range(self.sent)))
            once("ledger_out", "id", set(self.acknowledged))
            said = replay_upserts(self.kafka.read(self.topic["named_out"]))
            assert sorted(tuple(value[name] for name in ("k", "name", "n", "c", "v")) for value in said.values()) == sorted(self.named)
            return True

        eventually(is_right, timeout, 0.3)


class Faults:
    """What can happen to one node, or on the way to it. Each lasts as long as its dice say, and is over when it returns."""

    def __init__(self, cluster, dice):
        self.cluster, self.dice, self.net = cluster, dice, cluster.net

    def kinds(self):
        local = ["kill", "stop", "sleep"]
        return local + ["kill", "isolate", "isolate", "cut", "deaf", "mute", "one", "alone", "slow", "flap"] if self.net else local

    def do(self, kind, number, seconds):
        getattr(self, kind)(number, seconds)

    def others(self, number):
        return [self.net.of(other) for other in self.cluster.nodes if other != number]

    def kill(self, number, seconds):
        self.cluster.nodes[number].kill()
        time.sleep(seconds / 3)
        self.cluster.start(number)

    def stop(self, number, seconds):
        """SIGTERM: it leaves, and comes back."""
        code = self.cluster.nodes[number].stop(60)
        assert code == 0, f"node {number} ended with {code} on SIGTERM"
        time.sleep(seconds / 3)
        self.cluster.start(number)

    def sleep(self, number, seconds):
        node = self.cluster.nodes[number]
        node.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        node.process.send_signal(signal.SIGCONT)

    def isolate(self, number, seconds):
        """From everything: nodes, clients, Kafka and the store."""
        self.net.down(number)
        time.sleep(seconds)
        self.net.up(number)

    def flap(self, number, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.isolate(number, self.dice.uniform(0.1, 0.8))
            time.sleep(self.dice.uniform(0.1, 0.8))

    def slow(self, number, seconds):
        self.net.slow(number)
        time.sleep(seconds)
        self.net.fast(number)

    def cut(self, number, seconds):
        """From the other nodes, in both directions; clients, Kafka and the store are there."""
        self.lose([(number, address) for address in self.others(number)] + self.from_others(number), seconds)

    def deaf(self, number, seconds):
        self.lose(self.from_others(number), seconds)

    def mute(self, number, seconds):
        self.lose([(number, address) for address in self.others(number)], seconds)

    def one(self, number, seconds):
        """Two nodes do not reach each other; all others reach both."""
        other = self.dice.choice([other for other in self.cluster.nodes if other != number])
        self.lose([(number, self.net.of(other)), (other, self.net.of(number))], seconds)

    def alone(self, number, seconds):
        """From clients, Kafka and the store; the other nodes are there."""
        self.lose([(number, self.net.host)], seconds)

    def from_others(self, number):
        return [(other, self.net.of(number)) for other in self.cluster.nodes if other != number]

    def lose(self, ways, seconds):
        for sender, address in ways:
            self.net.lose(sender, address)
        time.sleep(seconds)
        for sender, address in ways:
            self.net.find(sender, address)


class Rounds:
    """A cluster under load, and one round after the other."""

    def __init__(self, cluster, load, seed):
        self.cluster, self.load, self.dice = cluster, load, random.Random(seed)
        self.faults, self.read = Faults(cluster, self.dice), {}
        self.kinds = Counter()

    def one(self, say=lambda line: None, kinds=None):
        """A round: some faults, of which the next may come before the cluster has got over the last; the leader at every second throw, and of five nodes sometimes two."""
        began, dice = time.monotonic(), self.dice
        faults, readings, written = [], self.load.readings, len(self.load.acknowledged)
        try:
            with self.load.going_on():
                for _ in range(dice.choice((1, 1, 2, 3))):
                    time.sleep(dice.uniform(0.2, 1.0))
                    self.fault(faults, kinds)
                self.cluster.settled(len(self.cluster.nodes), 60)
                at = len(self.load.acknowledged)
                eventually(lambda: len(self.load.acknowledged) > at or self.load.failures, 60)
            silence = self.load.longest_silence
            self.load.compare()
            self.check_processes()
        except BaseException as error:
            say(f"{'; '.join(faults)}: FAILED: {error!r}")
            raise
        say(f"{'; '.join(faults)}: {len(self.load.acknowledged) - written} written, {self.load.readings - readings} readings, silent {silence:.1f} s at most, {time.monotonic() - began:.1f} s")

    def fault(self, faults, kinds):
        """One of some kinds, or two at the same time; begins and ends it, and adds to `faults` what it was."""
        dice, numbers = self.dice, sorted(self.cluster.nodes)
        leads, seconds, count = dice.random() < 0.5, dice.uniform(1.0, 5.0), 2 if len(numbers) >= 5 and dice.random() < 0.5 else 1
        kinds = [dice.choice(kinds or self.faults.kinds()) for _ in range(count)]
        leader = next((number for number, role, _ in self.cluster.members(60) if role == "leader"), numbers[0])
        victims = [leader] * leads + dice.sample([number for number in numbers if number != leader], count - leads)
        faults.append(", ".join(f"{kind} {number}{' (leads)' if number == leader else ''}" for kind, number in zip(kinds, victims)) + f" for {seconds:.1f} s")
        self.kinds.update(kinds)
        errors = []

        def run(kind, number):
            try:
                self.faults.do(kind, number, seconds)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=pair) for pair in zip(kinds, victims)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def check_processes(self):
        """None has ended that nobody ended, and none has panicked."""
        for number, node in self.cluster.nodes.items():
            assert node.running, f"node {number} ended with {node.process.returncode}:\n{node.log_tail()}"
            with open(node.log_path, "rb") as log:
                log.seek(self.read.get(number, 0))
                lines = log.read().decode(errors="replace").splitlines()
                self.read[number] = log.tell()
            panics = ["\n".join(lines[at : at + 2]) for at, line in enumerate(lines) if "panicked" in line]
            assert not panics, f"node {number}: {panics}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--checkpoint-ms", type=int, default=300)
    parser.add_argument("--kinds", help="only these faults, separated by commas")
    parser.add_argument("--minutes", type=float, default=1e9, help="no round begins after that")
    arguments = parser.parse_args()
    assert why_no_net() is None, why_no_net()
    folder = Path(tempfile.mkdtemp(prefix="rounds-"))
    end, failed, done = time.monotonic() + arguments.minutes * 60, True, 0
    net = Net()
    kafka, s3 = NetKafka(folder / "kafka", net), NetS3(folder / "s3", net)
    cluster = Cluster(folder / "cluster", range(1, arguments.nodes + 1), net, s3.start(), checkpoint_ms=arguments.checkpoint_ms)
    try:
        kafka.start()
        cluster.start().settled(arguments.nodes, 60)
        load = Load(cluster, kafka, "rounds")
        load.create()
        rounds = Rounds(cluster, load, arguments.seed)
        print(f"seed {arguments.seed}, {arguments.nodes} nodes, {folder}", flush=True)
        kinds = arguments.kinds and arguments.kinds.split(",")
        while done < arguments.rounds and time.monotonic() < end:
            rounds.one(lambda line: print(f"{done + 1:4} {line}", flush=True), kinds)
            done += 1
            if done % 10 == 0:
                load.compare_sinks()
        load.compare_sinks()
        failed = False
    finally:
        print(f"{done} rounds {'and then a FAILURE' if failed else 'are right'}: seed {arguments.seed}, {dict(rounds.kinds) if done else {}}, errors that clients saw: {dict(load.codes) if done else {}}")
        cluster.kill_all()
        kafka.stop()
        s3.stop()
        net.close()
        print(f"kept: {folder}") if failed or os.environ.get("E2E_KEEP") else shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
