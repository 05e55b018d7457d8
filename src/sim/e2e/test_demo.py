"""The demo's two stories, by the demo's own SQL files through psql; the demo itself, as `make demo` runs it; and the cluster's, as `make cluster` does."""

import os
import re
import signal
import socket
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from confluent_kafka import Producer
from harness import BINARY, CACHE, ROOT, eventually, replay_upserts, take_ports

DEMO = ROOT / "docker" / "demo"


@pytest.fixture(scope="module")
def topics(kafka):
    for name, partitions in (("likes", 4), ("orders", 4), ("customers_cdc", 1), ("matches", 4)):
        kafka.create_topic(name, partitions)


def like(one, other, at="2026-01-01T00:00:00Z"):
    return {"liker": one, "liked": other}, {"at": at}


def unlike(one, other):
    return {"liker": one, "liked": other}, None


def test_matches(kafka, server, topics):
    kafka.produce("likes", [like("ada", "bob"), like("bob", "ada", "2026-01-01T00:00:05Z"), like("ada", "eve"), like("eve", "eve")])
    server.psql("-f", DEMO / "1-matches.sql", broker=kafka.broker)
    # CREATE returns when the view has caught up: what was in the topic is there at once
    assert server.psql("-c", "SELECT * FROM matches") == "ada|bob|2026-01-01 00:00:05+00\n"

    def pairs():
        return sorted((dict(key)["person_a"], dict(key)["person_b"]) for key in replay_upserts(kafka.read("matches")))

    eventually(lambda: pairs() == [("ada", "bob")])
    kafka.produce("likes", [like("eve", "ada"), unlike("bob", "ada"), unlike("nobody", "ada")])
    eventually(lambda: server.query("SELECT person_a, person_b FROM matches") == [("ada", "eve")])
    eventually(lambda: pairs() == [("ada", "eve")])
    kafka.produce("likes", [like("bob", "ada"), like("bob", "ada", "2026-01-01T00:00:09Z")])
    eventually(lambda: pairs() == [("ada", "bob"), ("ada", "eve")])
    # the same statements again change nothing
    server.psql("-f", DEMO / "1-matches.sql", broker=kafka.broker)
    records = kafka.read("matches")
    state = replay_upserts(records)
    assert sorted(dict(key)["person_b"] for key in state) == ["bob", "eve"]
    for key, value in state.items():
        assert dict(key).items() <= value.items() and "matched_at" in value


def test_enrichment(kafka, server, topics):
    customers = {1: ("Ada", "PT"), 2: ("Bob", "DE"), 3: ("Eve", "PT")}
    row = lambda number: {"id": number, "name": customers[number][0], "country": customers[number][1]}
    kafka.produce("customers_cdc", [({"id": number}, {"before": None, "after": row(number), "op": "c"}) for number in customers])
    base = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)
    orders = [{"id": n, "customer_id": n % 4, "amount": n + 0.25, "at": (base + timedelta(seconds=7 * n)).isoformat()} for n in range(40)]
    kafka.produce("orders", [({"id": order["id"]}, order) for order in orders])
    server.psql("-f", DEMO / "2-enrichment.sql", broker=kafka.broker)

    def expected():
        groups = {}
        for order in orders:
            if order["customer_id"] in customers:
                key = (datetime.fromisoformat(order["at"]).replace(second=0), customers[order["customer_id"]][1])
                count, total = groups.get(key, (0, 0))
                groups[key] = (count + 1, total + order["amount"])
        return sorted((*key, *value) for key, value in groups.items())

    reading = lambda: [(minute, country, count, float(total)) for minute, country, count, total in server.query("SELECT minute, country, orders, revenue FROM revenue ORDER BY 1, 2")]
    assert reading() == expected()
    before = row(2)
    customers[2] = ("Bob", "FR")
    kafka.produce("customers_cdc", [({"id": 2}, {"before": before, "after": row(2), "op": "u"})])
    eventually(lambda: reading() == expected())
    before = row(3)
    del customers[3]
    kafka.produce("customers_cdc", [({"id": 3}, {"before": before, "after": None, "op": "d"}), ({"id": 3}, None)])
    eventually(lambda: reading() == expected())
    customers[0] = ("Zoe", "JP")
    kafka.produce("customers_cdc", [({"id": 0}, {"schema": {}, "payload": {"before": None, "after": row(0), "op": "r"}})])
    eventually(lambda: reading() == expected())
    assert sorted(server.query("SELECT id, name, country FROM customers")) == [(0, "Zoe", "JP"), (1, "Ada", "PT"), (2, "Bob", "FR")]


class Demo:
    """docker/demo/run.sh with a cache folder and ports of its own, so that a demo that somebody looks at goes on."""

    script, name, limit = "run.sh", "demo", 120

    def __init__(self, cache):
        cache.mkdir()
        for entry in CACHE.iterdir():
            if entry.name == "venv" or entry.name.startswith("versitygw-") or entry.name.startswith("kafka-") and (entry / "complete").exists():
                (cache / entry.name).symlink_to(entry)
        self.cache, self.kafka_port = cache, take_ports(2)
        self.environment = {**os.environ, "TIDEMARK_CACHE": str(cache), "TIDEMARK_BINARY": str(BINARY), "KAFKA_HEAP": "512m", **self.settings()}

    def settings(self):
        self.sql_port = take_ports(3)
        return {"DEMO_SECONDS": "5", "DEMO_KAFKA_PORT": str(self.kafka_port), "DEMO_SQL_PORT": str(self.sql_port)}

    def begin(self, *words):
        """A process group of its own, so that Ctrl-C can be sent to all of it, as a terminal does. The output goes to a file: the demo leaves processes behind."""
        with open(self.cache / "output", "wb") as output:
            return subprocess.Popen([DEMO / self.script, *words], env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)

    def run(self, *words):
        """Exit code and output."""
        return self.begin(*words).wait(self.limit), self.output()

    def output(self):
        return (self.cache / "output").read_text()

    def processes(self):
        """Command lines that name its folder."""
        lines = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if f"{self.cache}/{self.name}" in line]

    def psql(self, text):
        words = ["psql", "-h", "127.0.0.1", "-p", str(self.sql_port), "-d", "dev", "-U", "root", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", text]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        return done.stdout


class ClusterDemo(Demo):
    """docker/demo/cluster.sh in the same way."""

    script, name, limit = "cluster.sh", "cluster", 300

    def settings(self):
        self.s3_port, self.sql_port = take_ports(1), take_ports(23)
        return {"CLUSTER_SECONDS": "2", "CLUSTER_KAFKA_PORT": str(self.kafka_port), "CLUSTER_S3_PORT": str(self.s3_port), "CLUSTER_SQL_PORT": str(self.sql_port)}


@pytest.fixture
def demo(folder, unique):
    demo = Demo(folder / unique("demo"))
    yield demo
    demo.run("stop")


def try_all_that_it_says(demo, output, at_least):
    suggestions = output.split("and try:\n")[1].split("or kill ")[0].splitlines()
    suggestions = [line.split("  -- ")[0].strip() for line in suggestions if line.strip()]
    assert len(suggestions) >= at_least
    for suggestion in suggestions:
        demo.psql(suggestion)


def test_demo_from_start_to_end(demo):
    code, output = demo.run()
    assert code == 0, output
    assert "ms after the like was written" in output and "none arrived twice; topic and view agree" in output
    assert output.count("after it was written, in one step") == 3, output
    try_all_that_it_says(demo, output, 5)
    likes = int(demo.psql("SELECT sum(likes) FROM popular"))
    code, output = demo.run("crash")
    assert code == 0, output
    assert int(demo.psql("SELECT count(*) FROM matches")) > 0
    eventually(lambda: int(demo.psql("SELECT sum(likes) FROM popular")) != likes)
    assert len(demo.processes()) == 3
    code, output = demo.run("stop")
    assert code == 0, output
    assert not demo.processes() and not (demo.cache / "demo").exists()


def test_demo_cleans_up_after_ctrl_c(demo):
    process = demo.begin()
    eventually(lambda: "ms after the like was written" in demo.output(), 60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert not demo.processes() and not (demo.cache / "demo").exists()


def test_demo_refuses_a_busy_port(demo):
    with socket.socket() as other:
        other.bind(("127.0.0.1", demo.sql_port + 1))
        other.listen()
        code, output = demo.run()
    assert code == 1 and f"port {demo.sql_port + 1} (Tidemark) is taken by another program" in output
    assert not demo.processes()


@pytest.fixture
def cluster(folder, unique):
    cluster = ClusterDemo(folder / unique("cluster"))
    yield cluster
    cluster.run("stop")


def test_cluster_from_start_to_end(cluster):
    code, output = cluster.run()
    assert code == 0, output
    told = [line for line in output.splitlines() if line.startswith("==> Node ")]
    killed, started = [line.split()[2] for line in told[::2]], [line.split()[2] for line in told[1::2]]
    assert sorted(killed) == ["1", "2", "3"] and started == killed and "it leads" in told[0], output
    assert output.count("the cluster is whole again") == 3
    counted = {name.strip(): int(value) for name, value in re.findall(r"^    ([a-z].*?) {2,}(\d+)$", output, re.M)}
    matches = counted["matches among them"]
    assert matches > 50 and counted["records in topic matches"] == matches and counted["matches that did not arrive"] == 0
    assert [counted[f"rows of view matches, asked at node {number}"] for number in (1, 2, 3)] == [matches] * 3
    assert "every match arrived exactly once" in output
    try_all_that_it_says(cluster, output, 5)
    # By hand, too; and it sees what is not right.
    code, output = cluster.run("kill", "2")
    assert code == 0 and len(cluster.processes()) == 5, output
    code, output = cluster.run("revive", "2")
    assert code == 0, output
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{cluster.kafka_port}"})
    producer.produce("matches", b'{"matched_at":"2026-01-01T00:00:00Z"}', b'{"person_a":"nobody","person_b":"none"}')
    producer.flush()
    code, output = cluster.run("check")
    assert code == 1 and "not every match arrived exactly once" in output and re.search(r"records that are no match +1   wrong", output), output
    code, output = cluster.run("stop")
    assert code == 0, output
    assert not cluster.processes() and not (cluster.cache / "cluster").exists()
