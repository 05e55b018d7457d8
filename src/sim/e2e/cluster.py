"""Nodes of one cluster, as real processes: on loopback addresses, or each in a network namespace of its own, where links can fail.

    Cluster    nodes with folders of their own, one checkpoint store and one secret: start, run, settled, members, leader
    Net        a bridge with a namespace for each node (10.77.S.N): link down, packets lost in one direction, a slow line; needs root and `ip`
    NetKafka   a broker that the namespaces reach, at the bridge's own address
    NetS3      an S3 server that they reach: it listens on loopback only, so that a process beside it passes connections on

Several runs may go on beside each other: each takes the first S from 0 to 9 that nobody has, and removes what a run that crashed left there. What a node has printed stays in its folder.

Packets are lost in one direction by a wrong hardware address in the sender's table: the sender notices nothing, as with a broken switch. A kernel need not have netem or a packet filter for that.
"""

import asyncio
import atexit
import base64
import fcntl
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

import harness
from harness import S3, Kafka, Tidemark, eventually

NOWHERE = "02:00:00:00:ff:ff"
SLOTS = 10
# What a node with a clock of its own is started with: the clock on the wall is ahead by what the file says, in seconds, from the moment on that it says so; the clock that only goes forward is left alone.
# Waits until a time on the wall, as librdkafka has them, go by that clock, also when it jumps. (libfaketime does not know `cnd_timedwait`: librdkafka stands still with it.)
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
__attribute__((constructor)) static void begin(void) {
  void *shown = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("TEST_CLOCK"), O_RDONLY), 0);
  if (shown == MAP_FAILED) abort();
  ahead = shown;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, clock, at);
  if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
  return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
  return 0;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
  static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
  if (!wait) *(void **)&wait = dlsym(RTLD_NEXT, "cnd_timedwait");
  for (;;) {
    struct timespec now, end;
    clock_gettime(CLOCK_REALTIME, &now);
    long rest = (until->tv_sec - now.tv_sec) * 1000000000 + until->tv_nsec - now.tv_nsec;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &end);
    end.tv_nsec += rest < 0 ? 0 : rest < 100000000 ? rest : 100000000;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    int woken = wait(condition, mutex, &end);
    if (woken != thrd_timedout || rest <= 100000000) return woken;
  }
}
"""


def ip(*words, check=True):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"ip {' '.join(map(str, words))}: {done.stderr.strip()}"
    return done.stdout


def why_no_net():
    """Why this machine has no namespaces for nodes; None if it has them."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (Debian: iproute2)"
    name = f"tidemark-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    ip("netns", "del", name, check=False)
    return None if tried.returncode == 0 else f"no network namespaces: {tried.stderr.strip()}"


class Net:
    """A bridge, and a namespace for each node, joined by a pair of links. Takes nothing with it that others have: names and addresses are those of its slot."""

    def __init__(self):
        for self.slot in range(SLOTS):
            self._lock = open(Path(tempfile.gettempdir()) / f"tidemark-net-{self.slot}.lock", "w")
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            self._lock.close()
        else:
            raise RuntimeError(f"{SLOTS} runs have networks already")
        self.bridge, self.host = f"tidemark{self.slot}", self.address(1)
        self._clear()
        atexit.register(self.close)
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{self.host}/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def address(self, last):
        return f"10.77.{self.slot}.{last}"

    def of(self, number):
        """The address of a node."""
        return self.address(number + 10)

    def namespace(self, number):
        return f"tidemark-{self.slot}-{number}"

    def link(self, number):
        """The end of a node's link that is at the bridge."""
        return f"tdmk{self.slot}-{number}"

    def add(self, number):
        name, link = self.namespace(number), self.link(number)
        ip("netns", "add", name)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", link, "master", self.bridge, "up")
        ip("-n", name, "addr", "add", f"{self.of(number)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")

    def remove(self, number):
        for pid in ip("netns", "pids", self.namespace(number), check=False).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("link", "del", self.link(number), check=False)
        ip("netns", "del", self.namespace(number), check=False)

    def down(self, number):
        """Nothing comes to the node or from it."""
        ip("link", "set", self.link(number), "down")

    def up(self, number):
        ip("link", "set", self.link(number), "up")

    def lose(self, sender, address):
        """What the node sends to an address is lost from now on."""
        ip("-n", self.namespace(sender), "neigh", "replace", address, "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def find(self, sender, address):
        """It arrives again."""
        ip("-n", self.namespace(sender), "neigh", "del", address, "dev", "eth0", check=False)

    def slow(self, number, rate="400kbit", wait="400ms"):
        """A thin line, both ways: what does not fit waits, and is lost when it has waited too long."""
        for words in self._ends(number):
            subprocess.run(["tc", *words[0], "qdisc", "replace", "dev", words[1], "root", "tbf", "rate", rate, "burst", "6kb", "latency", wait], check=True, capture_output=True)

    def fast(self, number):
        for words in self._ends(number):
            subprocess.run(["tc", *words[0], "qdisc", "del", "dev", words[1], "root"], capture_output=True)

    def _ends(self, number):
        return (((), self.link(number)), (("-n", self.namespace(number)), "eth0"))

    def _clear(self):
        for line in ip("netns", "list", check=False).splitlines():
            name = line.split()[0]
            if name.startswith(f"tidemark-{self.slot}-"):
                self.remove(name.rsplit("-", 1)[1])
        ip("link", "del", self.bridge, check=False)

    def close(self):
        """Ends what runs in the namespaces, and removes them."""
        atexit.unregister(self.close)
        if not self._lock.closed:
            self._clear()
            self._lock.close()


class NetKafka(Kafka):
    """The broker listens on the bridge, too, and that is where it says it is."""

    def __init__(self, folder, net):
        super().__init__(folder)
        self.broker = f"{net.host}:{self.port}"

    def _script(self, *words):
        settings = f"log.cleaner.backoff.ms=200 listeners=PLAINTEXT://{self.broker},CONTROLLER://127.0.0.1:{self.port + 1} advertised.listeners=PLAINTEXT://{self.broker}"
        with open(self.folder.parent / "kafka.sh.log", "a+b") as log:
            words = [harness.ROOT / "docker" / "kafka.sh", *words, "--port", str(self.port), "--dir", str(self.folder)]
            done = subprocess.run(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "KAFKA_HEAP": "768m", "KAFKA_SETTINGS": settings})
            if done.returncode != 0:
                log.seek(0)
                raise RuntimeError(f"kafka.sh {words[1]}: {log.read().decode()[-2000:]}")


class NetS3(S3):
    """An S3 server, and the process that passes connections on to it."""

    def __init__(self, folder, net):
        super().__init__(folder)
        self.net, self._passes = net, None

    def start(self):
        super().start()
        self.environment["AWS_ENDPOINT"] = f"http://{self.net.host}:{self.port}"
        if self._passes is None:
            self._passes = subprocess.Popen([sys.executable, __file__, self.net.host, str(self.port)], stdin=subprocess.DEVNULL)
        return self

    def stop(self):
        if self._passes is not None:
            self._passes.kill()
            self._passes.wait()
            self._passes = None
        super().stop()

    def wipe(self):
        self.stop()
        super().wipe()


async def pass_on(host, port):
    """Connections to this port of an address go to the same port on loopback."""
    async def copy(reader, writer):
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(serve, host, port)
    await server.serve_forever()


@contextmanager
def patient(connection, seconds):
    """Breaks the connection if what is done with it takes longer: the statement ends in an OperationalError then."""
    def give_up():
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield connection
    finally:
        timer.cancel()


class Node(Tidemark):
    """A process of the cluster. It has a namespace if its cluster has a network, and a clock of its own if `set_clock` is called before it starts."""

    def __init__(self, folder, number, net=None):
        super().__init__(folder)
        self.number, self.net = number, net
        self.address = net.of(number) if net else "127.0.0.1"
        self.http = f"http://{self.address}:{self.port + 1}"
        self.rpc = f"{self.address}:{self.port + 2}"
        self.shows = self.folder / "clock"

    def set_clock(self, seconds):
        """The clock on its wall is so many seconds ahead from now on, or behind. The clock that only goes forward is left alone."""
        if "LD_PRELOAD" not in self.environment:
            library = self.folder / "clock.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, "-x", "c", "-"], input=CLOCK.encode(), check=True)
            self.environment.update(LD_PRELOAD=str(library), TEST_CLOCK=str(self.shows))
        # Written in place: the process looks at it.
        with open(self.shows, "r+b" if self.shows.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def start(self, workers=1, failpoint=None, wait=True, arguments=(), **settings):
        """As that of a server alone, but it does not listen on loopback only if it has an address of its own."""
        if self.net is None:
            return super().start(workers, failpoint, wait, arguments=arguments, **settings)
        assert not self.running, "it runs already"
        listens = {"data_dir": self.data, "workers": workers, "sql": f"{self.address}:{self.port}", "http": f"{self.address}:{self.port + 1}", "rpc": self.rpc, "insecure": "true"}
        environment = {**os.environ, **self.environment, **{f"TIDEMARK_{name.upper()}": str(value) for name, value in {**listens, **settings}.items()}}
        with open(self.log_path, "ab") as log:
            log.write(f"--- start {settings}\n".encode())
            log.flush()
            # `ip netns exec` becomes the program: signals go to it.
            words = ["ip", "netns", "exec", self.net.namespace(self.number), harness.BINARY, "start", *arguments]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder)
        if wait:
            self.wait_ready()
        return self

    def connect(self, **options):
        """Gives up early when the other end does not answer: links fail here."""
        patience = {"connect_timeout": 4, "tcp_user_timeout": 5000, "keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3}
        return psycopg.connect(host=self.address, port=self.port, dbname="dev", **{"user": "root", "autocommit": True, **patience, **options})

    def ask(self, text, parameters=None, patience=20.0):
        """What a statement returns, over a connection of its own."""
        with self.connect() as connection, patient(connection, patience):
            cursor = connection.execute(text, parameters)
            return cursor.fetchall() if cursor.description else [()]


class Cluster:
    """Nodes with folders of their own, one checkpoint store and one secret. `net`: each in a namespace; `s3`: the store, otherwise a folder."""

    def __init__(self, folder, numbers=(1, 2, 3), net=None, s3=None, **settings):
        self.folder, self.net, self.s3, self.settings = Path(folder), net, s3, settings
        self.folder.mkdir(parents=True, exist_ok=True)
        self.secret = self.folder / "cluster.secret"
        self.secret.write_text("a secret that only these nodes have\n")
        self.key = self.folder / "secret.key"
        self.key.write_text(base64.b64encode(random.randbytes(32)).decode() + "\n")
        self.nodes = {}
        for number in numbers:
            self.add(number)

    def add(self, number):
        node = self.nodes[number] = Node(self.folder / f"node{number}", number, self.net)
        if self.net:
            self.net.add(number)
        if self.s3:
            node.environment.update(self.s3.environment)
        return node

    def start(self, *numbers, secret=None, **changed):
        join = ",".join(node.rpc for node in self.nodes.values())
        store = self.s3.url(self.folder.name) if self.s3 else f"file://{self.folder}/store"
        for number in numbers or self.nodes:
            settings = {"node_id": number, "join": join, "checkpoint_url": store, "checkpoint_ms": 300, "cluster_secret_file": secret or self.secret,
                        "secret_key_file": self.key, "memory_limit": "4GB", **self.settings, **changed}
            self.nodes[number].start(workers=1, wait=False, **settings)
        return self

    def forget(self, number):
        """Ends a node for good: no row of `nodes` is its any more."""
        node = self.nodes.pop(number)
        node.kill()
        if self.net:
            self.net.remove(number)

    def kill_all(self):
        for node in self.nodes.values():
            if node.running:
                node.process.send_signal(signal.SIGCONT)
            node.kill()
            if self.net:
                self.net.remove(node.number)

    def alive(self):
        return [node for node in self.nodes.values() if node.running]

    def run(self, text, number=None, timeout=30.0):
        """Runs a statement at a node, or at any that lives, again and again until it is done. Only for what may be done twice."""
        return eventually(lambda: [(self.nodes[number] if number else random.choice(self.alive())).ask(text)], timeout)[0]

    def refusal(self, text):
        """The code of the error that a statement ends with at any node that lives."""
        try:
            random.choice(self.alive()).ask(text)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    def members(self, timeout=30.0):
        """Number, role and state of each node."""
        return sorted((int(row[0]), row[1], row[2]) for row in self.run("SHOW CLUSTER", timeout=timeout))

    def vnodes(self):
        """How many vnodes each node has."""
        return {int(row[0]): int(row[8]) for row in self.run("SHOW CLUSTER")}

    def settled(self, voters, timeout=30.0):
        """Waits until there is a leader, so many members vote, and all that run do a part of the work."""
        def is_settled():
            rows = self.run("SHOW CLUSTER")
            works = [int(row[9]) > 0 for row in rows if self.nodes[int(row[0])].running]
            voting = sum(row[1] in ("leader", "voter") for row in rows)
            assert voting == voters and all(works) and len(works) == len(self.alive()), rows
            return True

        return eventually(is_settled, timeout)

    def leader(self):
        (leader,) = [number for number, role, _ in self.members() if role == "leader"]
        return leader

    def followers(self):
        leader = self.leader()
        return [number for number in self.nodes if number != leader]


if __name__ == "__main__":
    asyncio.run(pass_on(sys.argv[1], int(sys.argv[2])))
