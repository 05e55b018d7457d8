"""The moving parts of the cluster on one machine (cluster.sh):

  topics   creates topics `likes` and `matches`; their records are those of demo.py, but no like is ever taken back: every match is one record, for good
  likes    produces likes for ever
  whole    waits until the cluster is whole: three nodes that are reached, have a vote and do a part of the work
  story    shows matches as they arrive, while each node is killed and started again
  check    counts what is in both topics, and in the view at each node: has every match arrived, once, and nothing else?
"""

import argparse
import random
import string
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from demo import PEOPLE, TOPICS, Events, Matches, bold, create_topics, decode, dim, green, heading, red, seconds_of

NODES = (1, 2, 3)
SCRIPT = Path(__file__).with_name("cluster.sh")
# Seconds that the others may take to go on without a node, all of them to be whole again, and what is missing to arrive.
GO_ON_MAX, WHOLE_MAX, ARRIVE_MAX = 30, 60, 60


def step(text):
    print(f"{dim('==>')} {bold(text)}", flush=True)


def say(text):
    print(f"    {text}", flush=True)


def clock():
    return dim(datetime.now().strftime("%H:%M:%S"))


def records(broker, topic):
    """Keys and values of all committed records that a topic has now."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "cluster", "isolation.level": "read_committed", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(TOPICS[topic])])
    unread = set(range(TOPICS[topic]))
    while unread:
        for message in consumer.consume(5000, 0.1):
            if message.error() is None:
                yield decode(message.key()), decode(message.value())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
    consumer.close()


def read_likes(broker):
    """Who likes whom, and since when."""
    return {(key["liker"], key["liked"]): value["at"] for key, value in records(broker, "likes")}


class Likes(Events):
    """Likes among more people than the demo has, none of which is taken back; they go on from what the topic has."""

    people = [f"{name} {letter}." for name in PEOPLE for letter in string.ascii_uppercase]
    taken_back = 0

    def __init__(self, broker):
        super().__init__(broker)
        self.likes = read_likes(broker)
        self.random = random.Random()

    def run(self, rate):
        while True:
            self.like()
            self.producer.poll(0)
            time.sleep(self.random.uniform(0.5, 1.5) / rate)


class Node(NamedTuple):
    """What is shown here of a row of SHOW CLUSTER."""

    number: int
    role: str
    state: str
    vnodes: int
    workers: int


class Cluster:
    """The nodes as they see themselves: SHOW CLUSTER, asked at any that answers, again and again on a thread of its own. cluster.sh kills and starts them."""

    def __init__(self, folder, ports):
        self.folder, self.ports = Path(folder), ports
        self.nodes = []
        self.alive = set(NODES)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        ports = list(self.ports)
        while True:
            random.shuffle(ports)
            try:
                with connect(ports, options="-c statement_timeout=3000") as connection:
                    rows = connection.execute("SHOW CLUSTER").fetchall()
                self.nodes = [Node(int(row[0]), row[1], row[2], int(row[8]), int(row[9])) for row in rows]
            except psycopg.Error:
                self.nodes = []
            time.sleep(0.2)

    def leader(self):
        return next((node.number for node in self.nodes if node.role == "leader"), None)

    def working(self):
        return {node.number: node.vnodes for node in self.nodes if node.state == "running" and node.workers}

    def is_whole(self):
        votes = sorted(node.role for node in self.nodes)
        return votes == ["leader", "voter", "voter"] and set(self.working()) == set(NODES)

    def goes_on_without(self, number):
        return self.leader() not in (None, number) and set(self.working()) == set(NODES) - {number}

    def shares(self):
        """Who has how much of the work."""
        return ", ".join(f"node {number} has {vnodes}" for number, vnodes in sorted(self.working().items())) + " of 256 parts of the work"

    def kill(self, number):
        self.alive.discard(number)
        self._script("kill", number)

    def revive(self, number):
        self._script("revive", number)
        self.alive.add(number)

    def _script(self, *words):
        done = subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(done.stderr.strip())

    def check_alive(self):
        """Nobody may die whom nobody has killed."""
        for number in sorted(self.alive):
            # One that starts anew, in the same process, is none for a moment.
            if not any(self._runs(number) or time.sleep(0.1) for _ in range(50)):
                log = (self.folder / f"node{number}.log").read_text(errors="replace").splitlines()
                raise Wrong("\n".join([*log[-20:], f"node {number} has ended, and nobody killed it; the end of its log is above"]))

    def _runs(self, number):
        with suppress(OSError):
            process = (self.folder / f"node{number}.pid").read_text().strip()
            return str(self.folder).encode() in Path("/proc", process, "cmdline").read_bytes()


class Wrong(Exception):
    """What must not be, in words."""


def connect(ports, **options):
    hosts = ",".join(["127.0.0.1"] * len(ports))
    return psycopg.connect(host=hosts, port=",".join(map(str, ports)), dbname="dev", user="root", autocommit=True, connect_timeout=5, **options)


def wait_until_whole(cluster, seconds):
    began = time.monotonic()
    while not cluster.is_whole():
        cluster.check_alive()
        if time.monotonic() > began + seconds:
            raise Wrong(f"the cluster is not whole after {seconds} s: {cluster.nodes or 'no node answers'}")
        time.sleep(0.1)
    say(f"the cluster is whole: node {cluster.leader()} leads; {cluster.shares()}")


class Story:
    """Matches, a line for each second, while things happen to the cluster."""

    def __init__(self, broker, cluster):
        self.matches, self.cluster = Matches(broker), cluster
        self.total, self.last_arrival, self.silence = 0, time.monotonic(), 0.0

    def show(self, until, at_most, what):
        """Prints until the condition holds and matches arrive; raises if that is not so in time. Returns the seconds that it took."""
        began = time.monotonic()
        while True:
            count = self._second()
            self.cluster.check_alive()
            passed = time.monotonic() - began
            if count and until(passed):
                return passed
            if passed > at_most:
                raise Wrong(f"{what}: not after {at_most} s; {self.cluster.nodes or 'no node answers'}")

    def show_for(self, seconds):
        self.show(lambda passed: passed >= seconds, seconds + GO_ON_MAX, "matches arrive")

    def longest_silence(self):
        """Since it was last asked."""
        silence, self.silence = max(self.silence, time.monotonic() - self.last_arrival), 0.0
        return silence

    def _second(self):
        """Prints what arrives within a second; returns how many matches that are."""
        end, latencies, names = time.monotonic() + 1, [], None
        while (left := end - time.monotonic()) > 0:
            change = self.matches.poll(left)
            if change is None:
                continue
            now = time.monotonic()
            self.silence, self.last_arrival = max(self.silence, now - self.last_arrival), now
            (one, other), matched_at, latency = change
            if matched_at is None:
                raise Wrong(f"the match of {one} & {other} was taken back, and no like was")
            latencies.append(latency)
            names = f"{one} & {other}"
        self.total += len(latencies)
        line = f"    {clock()}  {len(latencies):3} {'match  ' if len(latencies) == 1 else 'matches'}"
        if latencies:
            line += f"  at most {max(latencies):4.0f} ms after the like was written; the last: {names}"
        print(line, flush=True)
        if self.matches.twice:
            raise Wrong(f"arrived twice: {self.matches.twice}")
        return len(latencies)


def tell(broker, cluster, seconds):
    heading("Three nodes, each killed in turn", "topic likes -> self join -> view matches -> topic matches, read here as a consumer sees it")
    story = Story(broker, cluster)
    story.show(lambda _: cluster.is_whole(), WHOLE_MAX, "matches arrive from a whole cluster")
    story.show_for(seconds)
    # The one that leads is the first.
    for number in sorted(NODES, key=lambda number: (number != cluster.leader(), number)):
        others = [other for other in NODES if other != number]
        leads = cluster.leader() == number
        print()
        step(f"Node {number} is killed (kill -9){'; it leads, and another one has to' if leads else ''}")
        story.longest_silence()
        cluster.kill(number)
        story.show(lambda _: cluster.goes_on_without(number), GO_ON_MAX, f"nodes {others[0]} and {others[1]} go on without node {number}")
        say(f"nodes {others[0]} and {others[1]} go on: node {cluster.leader()} leads; {cluster.shares()}")
        story.show_for(seconds)
        say(f"without node {number} the longest silence was {story.longest_silence():.1f} s")
        print()
        step(f"Node {number} is started again, with the folder that it had")
        cluster.revive(number)
        took = story.show(lambda _: cluster.is_whole(), WHOLE_MAX, "the cluster is whole again")
        say(f"the cluster is whole again after {took:.0f} s: node {cluster.leader()} leads; {cluster.shares()}")
        story.show_for(seconds)
        say(f"the longest silence was {story.longest_silence():.1f} s")
    print(f"\n    {story.total} matches live, {green('none arrived twice')}\n", flush=True)


def pairs(likes):
    """The matches among likes: the pair, and when it became one."""
    return {(one, other): max(at, likes[other, one], key=seconds_of) for (one, other), at in likes.items() if one < other and (other, one) in likes}


def arrived(broker):
    """How often each match is in topic `matches`; None where a match was taken back, which none is."""
    return Counter((key["person_a"], key["person_b"], value and seconds_of(value["matched_at"])) for key, value in records(broker, "matches"))


def rows_at(port):
    """The matches that the view has, asked at one node."""
    for _ in range(20):
        with suppress(psycopg.Error), connect([port], options="-c statement_timeout=10000") as connection:
            rows = connection.execute("SELECT person_a, person_b, matched_at FROM matches").fetchall()
            return Counter((one, other, at.timestamp()) for one, other, at in rows)
        time.sleep(0.5)
    raise Wrong(f"the node at port {port} does not say what view matches has")


def count(broker, ports):
    likes = read_likes(broker)
    expected = Counter((one, other, seconds_of(at)) for (one, other), at in pairs(likes).items())
    began = time.monotonic()
    while (found := arrived(broker)) and expected - found and time.monotonic() < began + ARRIVE_MAX:
        time.sleep(0.3)
    missing, twice, other = expected - found, {match for match, times in found.items() if times > 1}, set(found) - set(expected)
    lines = [
        ("likes in topic likes", len(likes), True),
        ("matches among them", len(expected), len(expected) > 0),
        ("records in topic matches", found.total(), found.total() == len(expected)),
        ("matches that did not arrive", len(missing), not missing),
        ("matches that arrived more than once", len(twice), not twice),
        ("records that are no match", len(other), not other),
    ]
    for number, port in zip(NODES, ports):
        rows = rows_at(port)
        lines.append((f"rows of view matches, asked at node {number}", rows.total(), rows == expected))
    for name, value, fine in lines:
        say(f"{name:45}{value:8}" if fine else red(f"{name:45}{value:8}   wrong"))
    for name, some in (("did not arrive", missing), ("more than once", twice), ("no match", other)):
        for match in sorted(some, key=str)[:10]:
            say(red(f"{name}: {match}"))
    if not all(fine for _, _, fine in lines):
        raise Wrong("not every match arrived exactly once")
    say(green("every match arrived exactly once\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["topics", "likes", "whole", "story", "check"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--ports", required=True, help="the nodes' SQL ports, separated by commas")
    parser.add_argument("--folder", required=True, help="that of cluster.sh; it also marks the process as the cluster's")
    parser.add_argument("--seconds", type=int, default=5, help="how long is watched what comes of each step; how long is waited until the cluster is whole")
    parser.add_argument("--rate", type=float, default=30, help="likes a second")
    options = parser.parse_args()
    ports = [int(port) for port in options.ports.split(",")]
    try:
        match options.what:
            case "topics":
                create_topics(options.broker, ["likes", "matches"])
            case "likes":
                Likes(options.broker).run(options.rate)
            case "whole":
                wait_until_whole(Cluster(options.folder, ports), options.seconds)
            case "story":
                tell(options.broker, Cluster(options.folder, ports), options.seconds)
            case "check":
                count(options.broker, ports)
    except Wrong as wrong:
        sys.exit(red(wrong))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
