"""What the end-to-end tests stand on: a real Kafka broker and a real Tidemark process, each started, killed and restarted like a user's.

    Kafka      one broker (docker/kafka.sh) with ports and folder of its own: create_topic, produce, read (committed records only)
    S3         one S3 server (docker/s3.sh) with port and folder of its own: start, stop, the files behind its objects
    Tidemark   one server process with data folder and ports of its own: start, kill (as `kill -9`), stop (SIGTERM), query
    command    runs `tidemark` for what needs no server: backup, restore
    eventually waits until a check holds; the only way in which these tests wait for results
    Poller     repeats a reading on a thread of its own, through crashes and restarts

Records are JSON. A record that is read is a `Record`; rows come back as tuples.
"""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("TIDEMARK_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemark")
BINARY = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release" / "tidemark"


_next_ports = None
_ports_lock = threading.Lock()


def take_ports(count):
    """The first of `count` consecutive free TCP ports, never the same twice in this process; below the range that the kernel gives to outgoing connections."""
    global _next_ports
    with _ports_lock:
        base = max(_next_ports or 0, 20000 + os.getpid() % 800 * 10)
        while True:
            try:
                for port in range(base, base + count):
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind(("127.0.0.1", port))
                _next_ports = base + count
                return base
            except OSError:
                base += count


def eventually(check, timeout=20.0, every=0.05):
    """Calls `check` until it returns something true, and returns that. An AssertionError or a database error counts as "not yet"; the last one is raised at the end."""
    end = time.monotonic() + timeout
    while True:
        last = None
        try:
            value = check()
            if value:
                return value
        except (AssertionError, psycopg.Error) as error:
            last = error
        if time.monotonic() > end:
            if last is not None:
                raise last
            raise AssertionError(f"still not true after {timeout} s")
        time.sleep(every)


def in_threads(count, work, timeout=60.0):
    """Calls `work(0)` to `work(count - 1)` at the same time; raises the first error. Gives up on threads that hang (a server that stands still must not stop the tests)."""
    errors = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), f"no answer within {timeout} s"


def to_json(value):
    """A record's bytes: None stays None (a deletion), bytes stay as they are, everything else becomes compact JSON."""
    if value is None or isinstance(value, bytes):
        return value
    return json.dumps(value, separators=(",", ":")).encode()


def _from_json(data):
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data


@dataclass(frozen=True)
class Record:
    """One committed record, key and value decoded from JSON where they are JSON."""

    partition: int
    offset: int
    key: Any
    value: Any
    timestamp_ms: int


class Kafka:
    """One Kafka broker of the tests' own."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port = take_ports(2)
        self.broker = f"127.0.0.1:{self.port}"
        self._producer = None

    def _script(self, *words):
        # kafka.sh leaves a process behind: its output goes to a file, or waiting for the end of a pipe would wait for the broker
        with open(self.folder.parent / "kafka.sh.log", "a+b") as log:
            done = subprocess.run([ROOT / "docker" / "kafka.sh", *words, "--port", str(self.port), "--dir", str(self.folder)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                  env={**os.environ, "KAFKA_HEAP": "768m", "KAFKA_SETTINGS": "log.cleaner.backoff.ms=200"})
            if done.returncode != 0:
                log.seek(0)
                raise RuntimeError(f"kafka.sh {' '.join(words)}: {log.read().decode()[-2000:]}")

    def start(self):
        self._script("start")
        self.admin = AdminClient({"bootstrap.servers": self.broker, "log_level": 0})
        return self

    def stop(self):
        self._script("stop")

    def wipe(self):
        self._script("wipe")

    def create_topic(self, name, partitions=1, **settings):
        """Creates a topic and returns its name. Settings are written with underscores: `cleanup_policy="compact"`."""
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        self.admin.create_topics([NewTopic(name, partitions, config=config)])[name].result()
        # A moment passes until the broker leads the new partitions. A client that asked too early may remember for long that it did not: each question has its own.
        def is_led():
            admin = AdminClient({"bootstrap.servers": self.broker, "log_level": 0})
            asked = admin.list_offsets({TopicPartition(name, partition): OffsetSpec.latest() for partition in range(partitions)}, request_timeout=2)
            return all(future.exception() is None for future in asked.values())

        eventually(is_led)
        return name

    def alter_topic(self, name, **settings):
        """Changes settings of a topic; written as in `create_topic`."""
        entries = [ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result()

    def delete_records(self, topic, before):
        """Takes records away as retention does: in each partition of `before` those below that offset."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, offset) for partition, offset in before.items()]).values():
            future.result()

    def topics(self):
        return set(self.admin.list_topics(timeout=10).topics)

    def producer(self):
        """The shared producer: default partitioner, so that equal keys go to the same partition."""
        if self._producer is None:
            self._producer = Producer({"bootstrap.servers": self.broker, "log_level": 0, "linger.ms": 2, "acks": "all", "enable.idempotence": True})
        return self._producer

    def produce(self, topic, records, partition=None):
        """Writes records `(key, value)` and returns how many, when the broker has them all."""
        producer, errors, count = self.producer(), [], 0
        where = {} if partition is None else {"partition": partition}
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, to_json(value), to_json(key), on_delivery=lambda error, _: error and errors.append(error), **where)
                    break
                except BufferError:
                    producer.poll(0.05)
            count += 1
        producer.flush()
        assert not errors, errors[0]
        return count

    def read(self, topic, timeout=20.0):
        """All committed records that `topic` has now, partition by partition in the order of their offsets."""
        consumer = Consumer({"bootstrap.servers": self.broker, "log_level": 0, "group.id": "e2e", "isolation.level": "read_committed", "enable.auto.commit": False,
                             "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20})
        try:
            partitions = list(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            open_partitions, records, end = set(partitions), [], time.monotonic() + timeout
            while open_partitions:
                assert time.monotonic() < end, f"reading {topic} takes longer than {timeout} s"
                for message in consumer.consume(5000, 0.1):
                    if message.error() is None:
                        records.append(Record(message.partition(), message.offset(), _from_json(message.key()), _from_json(message.value()), message.timestamp()[1]))
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        open_partitions.discard(message.partition())
                    else:
                        raise RuntimeError(message.error())
            return sorted(records, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close()

    def options(self, topic, **more):
        """The inside of `WITH (...)` for this broker and topic; further options with dots written as `__`."""
        options = {"connector": "kafka", "topic": topic, "properties.bootstrap.server": self.broker, **{key.replace("__", "."): value for key, value in more.items()}}
        return ", ".join(f"{key} = '{value}'" for key, value in options.items())


class S3:
    """One S3 server of the tests' own. `files` is the folder in which its objects lie as files."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port = take_ports(1)
        self.files = self.folder / "data" / "tidemark"
        self.environment = {}

    def _script(self, *words):
        # the server stays behind: its output must not be a pipe that we wait for
        with open(self.folder.parent / "s3.sh.log", "a+b") as log:
            words = [ROOT / "docker" / "s3.sh", *words, "--port", str(self.port), "--dir", str(self.folder)]
            done = subprocess.run(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                log.seek(0)
                raise RuntimeError(f"s3.sh {words[1]}: {log.read().decode()[-2000:]}")

    def start(self):
        self._script("start")
        printed = subprocess.run([ROOT / "docker" / "s3.sh", "env", "--port", str(self.port)], check=True, capture_output=True, text=True).stdout
        self.environment = dict(line.split("=", 1) for line in printed.splitlines())
        return self

    def stop(self):
        self._script("stop")

    def wipe(self):
        self._script("wipe")

    def url(self, prefix):
        """A checkpoint URL for one server."""
        return f"s3://tidemark/{prefix}"


def replay_upserts(records):
    """What an upsert topic says at its end: key (as sorted items) -> value. Fails when a record says again what its key had before: that is a change written twice."""
    state = {}
    for record in records:
        key = tuple(sorted(record.key.items()))
        assert state.get(key) != record.value, f"partition {record.partition} offset {record.offset} repeats {key}: {record.value}"
        if record.value is None:
            del state[key]
        else:
            state[key] = record.value
    return state


def replay_debezium(records):
    """What a Debezium topic says at its end: key -> row. Fails when a record's `before` is not what its key had: a change lost or written twice."""
    state = {}
    for record in records:
        if record.value is None:
            continue  # the tombstone that may follow a deletion
        key = tuple(sorted(record.key.get("payload", record.key).items()))
        event = record.value.get("payload", record.value)
        assert event["before"] == state.get(key), f"partition {record.partition} offset {record.offset}: before is {event['before']}, but {key} had {state.get(key)}"
        if event["after"] is None:
            del state[key]
        else:
            assert event["after"] != event["before"], f"partition {record.partition} offset {record.offset} changes nothing: {event}"
            state[key] = event["after"]
    return state


def command(*words, environment=None, timeout=60, **settings):
    """Runs `tidemark` with these words until it ends: `returncode`, `stdout`, `stderr`. `settings` become TIDEMARK_* variables."""
    environment = {**os.environ, **(environment or {}), **{f"TIDEMARK_{key.upper()}": str(value) for key, value in settings.items()}}
    return subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, timeout=timeout)


class Tidemark:
    """One Tidemark process, its data folder and its ports, which it keeps through restarts."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log_path = self.folder / "tidemark.log"
        self.port = take_ports(3)
        self.http = f"http://127.0.0.1:{self.port + 1}"
        self.process = None
        self._connection = None
        # Of every start: environment variables beside the settings (the credentials of an S3 store).
        self.environment = {}

    def start(self, workers=2, failpoint=None, wait=True, host="127.0.0.1", http_host="127.0.0.1", arguments=(), **settings):
        """Starts the process; `settings` become TIDEMARK_* variables (`checkpoint_ms=200`), `failpoint` is `name` or `name:n`. Waits until /ready says yes."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        assert BINARY.exists(), f"{BINARY} does not exist: run `cargo build --release` first"
        environment = {**os.environ, **self.environment, **{f"TIDEMARK_{key.upper()}": str(value) for key, value in settings.items()}}
        environment.pop("TIDEMARK_FAILPOINT", None)
        if failpoint:
            environment["TIDEMARK_FAILPOINT"] = failpoint
        with open(self.log_path, "ab") as log:
            log.write(f"--- start workers={workers} failpoint={failpoint} {settings}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [BINARY, "start", "--data-dir", self.data, "--workers", str(workers), "--sql", f"{host}:{self.port}", "--http", f"{http_host}:{self.port + 1}",
                 "--rpc", f"127.0.0.1:{self.port + 2}", *arguments],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, cwd=self.folder)
        if wait:
            self.wait_ready()
        return self

    def ready(self):
        with suppress(urllib.error.URLError, OSError):
            return urllib.request.urlopen(f"{self.http}/ready", timeout=2).status == 200
        return False

    def ready_text(self):
        """What /ready answers, whatever its status."""
        try:
            return urllib.request.urlopen(f"{self.http}/ready", timeout=2).read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (urllib.error.URLError, OSError):
            return ""

    def refused(self, timeout=30.0, **settings):
        """Starts it, and returns what it says when it ends by itself without having become ready."""
        begun = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.start(wait=False, **settings)
        code = self.wait_exit(timeout)
        text = self.log_path.read_bytes()[begun:].decode(errors="replace")
        assert code == 1, f"exit code {code}: {text}"
        return text

    def wait_ready(self, timeout=30.0):
        def check():
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log_tail()}"
            return self.ready()

        eventually(check, timeout, 0.02)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """As `kill -9`."""
        self._forget_connection()
        if self.running:
            self.process.send_signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self, timeout=20.0):
        """SIGTERM; returns the exit code."""
        self._forget_connection()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def wait_exit(self, timeout=30.0):
        """Waits until the process ends by itself (a fail-point) and returns its exit code: negative for a signal."""
        self._forget_connection()
        return self.process.wait(timeout)

    def _forget_connection(self):
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    def connect(self, **options):
        """A psycopg connection of its own; autocommit unless said otherwise."""
        return psycopg.connect(host="127.0.0.1", port=self.port, dbname="dev", **{"connect_timeout": 10, "user": "root", "autocommit": True, **options})

    def query(self, text, parameters=None):
        """Rows of a query, as tuples, on this object's own connection (not for several threads at once). A statement without result gives no rows."""
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
        cursor = self._connection.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []

    def value(self, text, parameters=None):
        """The only value of a query's only row."""
        ((value,),) = self.query(text, parameters)
        return value

    def run(self, script):
        """Statements separated by `;` at the end of a line, one after the other."""
        for statement in script.split(";\n"):
            if statement.strip():
                self.query(statement.strip().rstrip(";"))

    def start_statement_and_kill(self, text, pause):
        """Begins a statement on a connection of its own, and kills the server while it runs."""

        def run():
            with suppress(psycopg.Error), self.connect() as connection:
                connection.execute(text)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        time.sleep(pause)
        self.kill()
        thread.join(20)

    def error(self, text):
        """The error that `text` must end in: a psycopg.Error with `.sqlstate` and `.diag`."""
        try:
            self.query(text)
        except psycopg.Error as error:
            return error
        raise AssertionError(f"no error: {text}")

    def notices(self, text):
        """The rows of a query, and the NOTICEs that came with them."""
        notices = []
        with self.connect() as connection:
            connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
            cursor = connection.execute(text)
            return (cursor.fetchall() if cursor.description else []), notices

    def psql(self, *arguments, check=True, **variables):
        """What psql prints (unaligned, tuples only). `variables` become `-v name=value`."""
        words = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-d", "dev", "-U", "root", "-XqAt", "-v", "ON_ERROR_STOP=1"]
        for name, value in variables.items():
            words += ["-v", f"{name}={value}"]
        done = subprocess.run(words + [str(argument) for argument in arguments], capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def metrics(self):
        """/metrics as it is."""
        return urllib.request.urlopen(f"{self.http}/metrics", timeout=5).read().decode()

    def log_tail(self, lines=40):
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


class Poller:
    """Repeats a query on a thread with a connection of its own and hands every result to `check`; carries on after the server was away. The first failure of `check` is kept in `failure`."""

    def __init__(self, server, query, check, every=0.01):
        self.server, self.text, self.check, self.every = server, query, check, every
        self.readings, self.failure = 0, None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        connection = None
        while not self._end.is_set():
            try:
                if connection is None:
                    connection = self.server.connect()
                rows = connection.execute(self.text).fetchall()
            except psycopg.Error:
                with suppress(Exception):
                    connection.close()
                connection = None
                time.sleep(0.02)
                continue
            try:
                self.check(rows)
                self.readings += 1
            except AssertionError as error:
                self.failure = error
                return
            self._end.wait(self.every)
        with suppress(Exception):
            connection.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self._end.set()
        self._thread.join(15)
        if kind is None and self.failure is not None:
            raise self.failure
