"""Backups of a database that is written to, and the ways to lose a cluster, rehearsed with the very commands of the manual (docs/cluster.md, docs/operations.md)."""

import os
import re
import shlex
import shutil
import subprocess
import threading
from contextlib import suppress

import psycopg
import pytest

from harness import BINARY, ROOT, Tidemark, command, eventually
from cluster import Cluster
from test_crash import states

MADE = re.compile(r"backup of epoch (\d+), (\d+ \w+) old: (\d+) files?, ([\d.]+ \w+) copied, ([\d.]+ \w+) there already, in (\S+)\n")
UNITS = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def size(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


def back_up(target, live, **more):
    """Makes a backup; returns its epoch, and the bytes copied and there already."""
    done = command("backup", target, "--checkpoint-url", live, **more)
    assert done.returncode == 0, done.stderr
    made = MADE.fullmatch(done.stdout)
    assert made and made[6] == target, done.stdout
    return int(made[1]), size(made[4]), size(made[5])


def refusal(*words, **more):
    """What a command that must fail says."""
    done = command(*words, **more)
    assert done.returncode == 1 and not done.stdout, (done.returncode, done.stdout, done.stderr)
    return done.stderr


class Writer:
    """Inserts 0, 1, 2 ... into `t`, one after the other; `acknowledged` is how many."""

    def __init__(self, server):
        self.server, self.acknowledged = server, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with self.server.connect() as connection:
            while not self._end.is_set():
                connection.execute("INSERT INTO t VALUES (%s, %s)", (self.acknowledged, self.acknowledged % 7))
                self.acknowledged += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(30)


SETUP = """CREATE TABLE filler (id BIGINT PRIMARY KEY, text VARCHAR);
INSERT INTO filler SELECT n, md5(n::varchar) FROM generate_series(1, 50000) AS g(n);
CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT);
CREATE MATERIALIZED VIEW per_k AS SELECT k, count(*) AS c, sum(id) AS s FROM t GROUP BY k"""


def check_restored(server, at_least, at_most):
    """The rows of `t` are the first ones that were written, as many as were acknowledged before a FLUSH at least; and views are what follows from the tables. Returns how many."""
    count = server.value("SELECT count(*) FROM t")
    assert at_least <= count <= at_most, (at_least, count, at_most)
    assert server.query("SELECT min(id), max(id) FROM t") == [(0, count - 1)]
    assert server.query("SELECT k, c, s FROM per_k ORDER BY k") == server.query("SELECT k, count(*), sum(id) FROM t GROUP BY k ORDER BY k")
    assert server.query("SELECT count(*), count(DISTINCT text) FROM filler") == [(50000, 50000)]
    return count


@pytest.fixture
def restored(folder, unique):
    """Restores a backup to a new place, and starts a server from it as the manual says; ended before the next one."""
    made = []

    def start(backup, environment=None):
        for server in made:
            server.kill()
        server = Tidemark(folder / unique(f"restored{len(made)}"))
        made.append(server)
        done = command("restore", backup, "--checkpoint-url", f"file://{server.folder}/store", environment=environment)
        assert done.returncode == 0, done.stderr
        # What it says is to be done next is what is done.
        assert f"tidemark start --data-dir EMPTY --checkpoint-url file://{server.folder}/store --recover-from-checkpoint" in done.stderr, done.stderr
        return server.start(arguments=["--checkpoint-url", f"file://{server.folder}/store", "--recover-from-checkpoint"])

    yield start
    for server in made:
        server.kill()


def test_a_backup_while_it_is_written(own_server, restored):
    """Backups of a running server, one after the other: each is as of its epoch, and copies only what is new."""
    live, target = f"file://{own_server.folder}/store", f"file://{own_server.folder}/backup"
    own_server.start(checkpoint_url=live, checkpoint_ms=100)
    own_server.run(SETUP)
    with Writer(own_server) as writer:
        eventually(lambda: writer.acknowledged > 100)
        flushed = writer.acknowledged
        own_server.query("FLUSH")
        first, copied, present = back_up(target, live)
        assert copied > 1 << 20 and present == 0, (copied, present)
        # Many in a row, while files are merged and deleted.
        for _ in range(8):
            epoch, copied, present = back_up(target, live)
            assert epoch >= first
        assert copied < present, (copied, present)
        server = restored(target)
        count = check_restored(server, flushed, writer.acknowledged + 1)
        # It is a database as any other, and the first one knows nothing of it.
        server.run("DELETE FROM t WHERE id >= 10;\nFLUSH")
        flushed = writer.acknowledged
        own_server.query("FLUSH")
        back_up(target, live)
    assert flushed > count > 10
    own_server.kill()
    # Of a server that is dead, all that it has in its store.
    epoch, copied, present = back_up(target, live)
    assert copied < present
    check_restored(restored(target), flushed, writer.acknowledged + 1)


def test_a_backup_that_is_cut_off(own_server, restored):
    """The process ends in front of the last step, and after it: the former backup is valid, and then the new one."""
    live, target = f"file://{own_server.folder}/store", f"file://{own_server.folder}/backup"
    own_server.start(checkpoint_url=live, checkpoint_ms=600_000)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH")
    back_up(target, live)
    for number, (point, rows) in enumerate([("backup.valid", [1]), ("backup.clean", [1, 2, 3])], 2):
        own_server.run(f"INSERT INTO t VALUES ({number});\nFLUSH")
        done = command("backup", target, "--checkpoint-url", live, failpoint=point)
        assert done.returncode < 0, done
        assert restored(target).query("SELECT id FROM t ORDER BY id") == [(row,) for row in rows]
    back_up(target, live)
    assert restored(target).query("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    backups = os.listdir(own_server.folder / "backup" / "backups")
    assert len(backups) == 1, backups


def test_what_is_refused(own_server, folder, unique):
    """Places are not mixed up, and damage is told by name."""
    live, target = f"file://{own_server.folder}/store", f"file://{own_server.folder}/backup"
    assert "there is no folder" in refusal("backup", target, "--checkpoint-url", live)
    own_server.start(checkpoint_url=live)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH")
    assert "is the checkpoint store of cluster" in refusal("backup", live, "--checkpoint-url", live)
    assert "there is no backup in" in refusal("restore", live, "--checkpoint-url", f"{live}-new")
    back_up(target, live)
    assert "is a backup itself" in refusal("backup", f"{live}-2", "--checkpoint-url", target)
    assert "is not empty" in refusal("restore", target, "--checkpoint-url", live)
    other = Tidemark(folder / unique("other"))
    text = other.refused(checkpoint_url=target, recover_from_checkpoint="true")
    assert "is a backup of cluster" in text and f"tidemark restore {target}" in text, text
    other.data = other.folder / "else"
    other.start(checkpoint_url=f"{live}-other")
    other.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nFLUSH")
    assert "has the backup of another cluster" in refusal("backup", target, "--checkpoint-url", f"{live}-other")
    other.kill()

    own_server.kill()
    # What the target has already is not looked for again in the store, and missed there all the same.
    tables = own_server.folder / "store" / "tables"
    tables.rename(own_server.folder / "aside")
    done = command("backup", target, "--checkpoint-url", live)
    assert done.returncode == 1 and MADE.fullmatch(done.stdout) and "is missing" in done.stderr and "not whole" in done.stderr, done
    (own_server.folder / "aside").rename(tables)
    back_up(target, live)
    for place, words in [("backup", ("restore", target, "--checkpoint-url", f"{live}-3")), ("store", ("backup", f"{target}-3", "--checkpoint-url", live))]:
        tables = own_server.folder / place / "tables"
        file = max((path for path in tables.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        text = refusal(*words)
        assert "is damaged" in text and file.name in text, text
        file.unlink()
        text = refusal(*words)
        assert "is missing" in text and file.name in text, text
        file.write_bytes(whole)
        assert command(*words).returncode == 0


def test_sources_and_sinks_after_a_restore(own_server, kafka, unique, restored):
    """A restored source is read on from where the backup has it. A sink that delivered nothing after the backup goes on; one that did stops and says so, and is right when it is created anew."""
    live, target = f"file://{own_server.folder}/store", f"file://{own_server.folder}/backup"
    topic = kafka.create_topic(unique("restored-in"), 2)
    busy, quiet, again = (kafka.create_topic(unique(f"restored-{name}"), 1) for name in ("busy", "quiet", "again"))
    own_server.start(checkpoint_url=live, checkpoint_ms=200)
    own_server.run(f"CREATE SOURCE s (n BIGINT) WITH ({kafka.options(topic)}) FORMAT PLAIN ENCODE JSON;\n"
                   "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(n) AS s FROM s;\nCREATE TABLE t (n BIGINT PRIMARY KEY) APPEND ONLY;\n"
                   f"CREATE SINK busy FROM s WITH ({kafka.options(busy, type='append-only')}) FORMAT PLAIN ENCODE JSON;\n"
                   f"CREATE SINK quiet FROM t WITH ({kafka.options(quiet, type='append-only')}) FORMAT PLAIN ENCODE JSON;\nINSERT INTO t VALUES (1)")

    def delivered(topic, numbers):
        return eventually(lambda: sorted(record.value["n"] for record in kafka.read(topic)) == list(numbers), 40)

    kafka.produce(topic, [(None, {"n": n}) for n in range(100)])
    delivered(busy, range(100))
    delivered(quiet, [1])
    own_server.query("FLUSH")
    back_up(target, live)
    kafka.produce(topic, [(None, {"n": n}) for n in range(100, 200)])
    delivered(busy, range(200))
    own_server.kill()

    server = restored(target)
    eventually(lambda: server.query("SELECT c, s FROM v") == [(200, sum(range(200)))], 40)
    server.query("INSERT INTO t VALUES (2)")
    delivered(quiet, [1, 2])
    state, error = eventually(lambda: states(server)["busy"][1] and states(server)["busy"], 40)
    assert state == "stopped" and "than were delivered" in error, (state, error)
    assert len(kafka.read(busy)) == 200
    server.run(f"DROP SINK busy;\nCREATE SINK busy FROM s WITH ({kafka.options(again, type='append-only')}) FORMAT PLAIN ENCODE JSON")
    kafka.produce(topic, [(None, {"n": n}) for n in range(200, 210)])
    eventually(lambda: set(range(200, 210)) <= {record.value["n"] for record in kafka.read(again)}, 40)


def manual(page, heading):
    """The commands below a heading of the manual, up to the next one; a command may go over several lines."""
    text = (ROOT / "docs" / page).read_text().split(f"\n{heading}\n", 1)[1]
    text = re.split(r"\n#+ ", text, maxsplit=1)[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


class Manual(Cluster):
    """Three nodes that are started, lost and brought back with the commands of the manual: its addresses and places become those of the test."""

    def __init__(self, folder, place, environment):
        super().__init__(folder)
        self.environment = environment
        self.places = {"s3://bucket/prefix": place("live"), "s3://bucket/new": place("new"), "s3://elsewhere/tidemark": place("backup")}

    def words(self, number, text):
        """The words of a command as it is given on a node."""
        node = self.nodes[number]
        for theirs, ours in self.places.items():
            text = text.replace(theirs, ours)
        for other, known in self.nodes.items():
            text = text.replace(f"10.0.0.{other}:4568", f"127.0.0.1:{known.port + 2}")
        hosts = re.search(r"host=\S+ port=\S+", text)
        if hosts:
            ports = ",".join(str(known.port) for known in self.nodes.values())
            text = text.replace(hosts[0], f"host={','.join(['127.0.0.1'] * len(self.nodes))} port={ports} connect_timeout=10")
        text = text.replace("0.0.0.0:4566", f"127.0.0.1:{node.port}").replace("/var/lib/tidemark", str(node.data))
        text = text.replace(" cluster.secret", f" {self.secret}").replace(" secret.key", f" {self.key}")
        return shlex.split(text)

    def do(self, text, number=1, check=True):
        """Gives a command on a node; a server goes on running."""
        words = self.words(number, text)
        environment = {**os.environ, **self.environment, "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
        if words[:2] == ["tidemark", "start"]:
            node = self.nodes[number]
            assert not node.running
            environment |= {"TIDEMARK_WORKERS": "1", "TIDEMARK_HTTP": f"127.0.0.1:{node.port + 1}", "TIDEMARK_CHECKPOINT_MS": "300", "TIDEMARK_MEMORY_LIMIT": "4GB"}
            with open(node.log_path, "ab") as log:
                node.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder)
            return None
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder, timeout=60)
        assert not check or done.returncode == 0, f"{text}: {done.stdout}{done.stderr}"
        return done

    def begin(self):
        """Starts the cluster for the first time, with tables and a view, and makes a backup. Returns what was acknowledged until then."""
        (start,) = [line for line in manual("cluster.md", "## Starting") if line.startswith("tidemark start")]
        for number in self.nodes:
            self.do(self.of(number, start), number)
        self.settled(3)
        self.run("CREATE SECRET kafka_password WITH (backend = 'meta') AS 'correct horse'")
        self.run("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT)")
        self.run("CREATE TABLE orders (id BIGINT PRIMARY KEY, account BIGINT, amount BIGINT)")
        self.run("CREATE MATERIALIZED VIEW spent AS SELECT a.id, a.balance, count(*) AS c, sum(o.amount) AS s FROM accounts a JOIN orders o ON o.account = a.id GROUP BY a.id, a.balance")
        self.run("INSERT INTO accounts SELECT n, 100 * n FROM generate_series(0, 49) AS g(n)")
        self.order(0, 1000)
        self.run("FLUSH")
        (backup,) = manual("operations.md", "## Backup")
        assert MADE.fullmatch(self.do(backup).stdout)
        return self.rows()

    @staticmethod
    def of(number, start):
        """The command that starts node 1 or 2, for another one."""
        start = re.sub(r"--node-id \d", f"--node-id {number}", start)
        return re.sub(r"--rpc 10\.0\.0\.\d", f"--rpc 10.0.0.{number}", start)

    def order(self, start, end):
        self.run(f"INSERT INTO orders SELECT n, n % 50, n % 13 FROM generate_series({start}, {end - 1}) AS g(n)")

    def rows(self):
        return {"accounts": self.run("SELECT * FROM accounts ORDER BY id"), "orders": self.run("SELECT * FROM orders ORDER BY id")}

    def lose(self, *numbers):
        """Ends all nodes, and takes the folders of some away."""
        self.kill_all()
        for number in numbers:
            shutil.rmtree(self.nodes[number].data)

    def is_whole(self):
        """The three nodes are a cluster: the view is what follows from the tables, writes count, and one of the nodes may go."""
        self.settled(3, 60)
        again = "SELECT a.id, a.balance, count(*), sum(o.amount) FROM accounts a JOIN orders o ON o.account = a.id GROUP BY a.id, a.balance ORDER BY a.id"
        assert self.run("SELECT * FROM spent ORDER BY id") == self.run(again)
        before = len(self.run("SELECT id FROM orders"))
        self.order(100_000, 100_100)
        self.run("FLUSH")
        self.nodes[self.leader()].kill()
        assert len(self.run("SELECT id FROM orders")) == before + 100
        assert self.run("SELECT * FROM spent ORDER BY id") == self.run(again)


@pytest.fixture
def lost(folder, unique):
    """Nodes with places on this machine."""
    path = folder / unique("lost")
    nodes = Manual(path, lambda name: f"file://{path}/{name}", {})
    yield nodes
    nodes.kill_all()


def test_the_majority_of_data_folders_is_gone(lost):
    before = lost.begin()
    lost.order(1000, 1100)
    lost.run("FLUSH")
    flushed = lost.rows()
    lost.order(1100, 1200)
    all_rows = lost.rows()
    lost.lose(1, 3)
    aside, alone, _, joins = manual("cluster.md", "### The majority of data folders is gone")
    lost.do(aside, 2)
    lost.do(alone, 1)
    # It answers alone.
    lost.nodes[1].wait_ready()
    found = lost.rows()
    assert found["accounts"] == before["accounts"]
    assert set(flushed["orders"]) <= set(found["orders"]) <= set(all_rows["orders"])
    for number in (2, 3):
        lost.do(lost.of(number, joins), number)
    lost.is_whole()
    # Each is started as ever from then on, the first one too.
    lost.kill_all()
    for number in lost.nodes:
        lost.do(lost.of(number, joins), number)
    lost.settled(3, 60)
    assert set(found["orders"]) < set(lost.rows()["orders"])


def test_the_store_is_gone(folder, unique, s3):
    path, prefix = folder / unique("lost"), unique("lost").replace("_", "-")
    lost = Manual(path, lambda name: s3.url(f"{prefix}/{name}"), s3.environment)
    try:
        lost.begin()
        lost.order(1000, 1500)
        lost.run("UPDATE accounts SET balance = balance + 1 WHERE id < 10")
        lost.run("DELETE FROM orders WHERE id < 20")
        lost.run("FLUSH")
        for base in (s3.files, s3.folder / "meta" / "tidemark"):
            with suppress(FileNotFoundError):
                shutil.rmtree(base / prefix / "live")
        # They go on, with checkpoints that nobody could start from, and a backup tells.
        lost.order(1500, 1600)
        lost.run("FLUSH")
        (backup,) = manual("operations.md", "## Backup")
        done = lost.do(backup, check=False)
        assert done.returncode == 1 and "The store is not whole" in done.stderr and "docs/cluster.md" in done.stderr, done
        rows = lost.rows()
        save, restore, aside, alone, load = manual("cluster.md", "### The store is gone")
        lost.do(save)
        lost.kill_all()
        lost.do(restore)
        for number in lost.nodes:
            lost.do(aside, number)
        lost.do(alone, 1)
        joins = manual("cluster.md", "### The majority of data folders is gone")[-1].replace("s3://bucket/prefix", "s3://bucket/new")
        for number in (2, 3):
            lost.do(lost.of(number, joins), number)
        lost.settled(3, 60)
        assert len(lost.rows()["orders"]) == 1000
        eventually(lambda: lost.do(load).returncode == 0)
        assert lost.rows() == rows
        lost.is_whole()
    finally:
        lost.kill_all()


def test_folders_and_store_are_gone(lost):
    before = lost.begin()
    lost.order(1000, 1500)
    lost.run("FLUSH")
    lost.lose(1, 2, 3)
    shutil.rmtree(lost.folder / "live")
    restore, first, second = manual("cluster.md", "### Both are gone")
    lost.do(restore)
    lost.do(first, 1)
    for number in (2, 3):
        lost.do(lost.of(number, second), number)
    lost.settled(3, 60)
    assert lost.rows() == before
    lost.is_whole()
