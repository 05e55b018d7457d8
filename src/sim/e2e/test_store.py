"""The checkpoint store: whose it is, what happens while it is away, and what is lost when a part of it is (nothing, without a word).

Most of it on a real S3 server (docker/s3.sh) as well as on the local disk. The seed of a run is printed; E2E_SEED=n repeats it, E2E_ROUNDS=n kills more often.
"""

import os
import random
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager, suppress

import psycopg
import pytest
from harness import Poller, Tidemark, eventually
from test_crash import load_until, states
from workload import World

SEED = int(os.environ.get("E2E_SEED", 20262))
ROUNDS = int(os.environ.get("E2E_ROUNDS", 4))


@pytest.fixture(params=["file", "s3"])
def store(request, folder, unique):
    """A store of this test's own: `url`, `files` (the folder where its objects lie), `environment` for its servers, `folders` (all that the store keeps of them: the S3 server has
    their etags beside them)."""

    class Store:
        pass

    made = Store()
    if request.param == "s3":
        s3, name = request.getfixturevalue("s3"), unique("store").replace("_", "-")
        made.url, made.files, made.environment = s3.url(name), s3.files / name, s3.environment
        made.folders = [made.files, s3.folder / "meta" / "tidemark" / name]
    else:
        made.files = folder / unique("store")
        made.url, made.environment, made.folders = f"file://{made.files}", {}, [made.files]
    return made


@pytest.fixture
def another(folder, unique):
    """Makes further servers; killed at the end."""
    made = []

    def make():
        made.append(Tidemark(folder / unique("another")))
        return made[-1]

    yield make
    for server in made:
        server.kill()


def objects(store, folder=""):
    """The names of the store's objects below `folder`, sorted."""
    found = (path for path in (store.files / folder).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(store.files)) for path in found)


def copy_data(source, target):
    """What `cp -a` makes of a data folder."""
    shutil.rmtree(target.data, ignore_errors=True)
    shutil.copytree(source.data, target.data)


def test_random_kills_on_s3(kafka, own_server, unique, s3):
    """As on the local disk: `kill -9` at random moments under load, with a comparison of every row and every sink after each."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    world = World(kafka, own_server, unique, SEED)
    own_server.environment = s3.environment
    settings = {"checkpoint_url": s3.url(unique("kills").replace("_", "-")), "checkpoint_ms": 200}
    world.produce(300)
    own_server.start(**settings)
    world.create()
    with Poller(own_server, "SELECT orders FROM order_count", world.count_never_falls):
        for number in range(ROUNDS):
            stop = threading.Event()
            loading = load_until(world, stop)
            time.sleep(chance.uniform(0.05, 1.5))
            own_server.kill()
            if chance.random() < 0.5:
                own_server.start(workers=chance.choice([1, 2, 3]), wait=False, **settings)
                time.sleep(chance.uniform(0.01, 0.6))
                own_server.kill()
            own_server.start(workers=chance.choice([1, 2, 3]), **settings)
            stop.set()
            loading.join(30)
            print(f"round {number}: {world.order} orders")
            world.verify()


def test_store_away(own_server, s3, unique):
    """The S3 server is away at start and in the middle: the server stays, says so, takes writes, and goes on by itself with nothing lost, through a crash as well."""
    own_server.environment = s3.environment
    settings = {"checkpoint_url": s3.url(unique("away").replace("_", "-")), "checkpoint_ms": 200}
    own_server.start(**settings)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;\nINSERT INTO t VALUES (0);\nFLUSH;")
    s3.stop()
    for number in range(1, 11):
        own_server.query("INSERT INTO t VALUES (%s)", (number,))
    assert own_server.query("SELECT c FROM v") == [(11,)]
    eventually(lambda: "queries are answered, but waiting for the checkpoint store" in own_server.ready_text(), 40)
    failing = own_server.query("SHOW CHECKPOINTS")[-1]
    assert failing[0] is None and failing[5] and "checkpoint store" in failing[6], failing
    told = own_server.log_path.read_text().count("the checkpoint store fails")
    assert told == 1, f"said {told} times:\n{own_server.log_tail()}"

    # It dies, and starts without a store: it waits.
    own_server.kill()
    own_server.start(wait=False, **settings)
    eventually(lambda: "starting: waiting for the checkpoint store" in own_server.ready_text(), 40)
    assert own_server.running and not own_server.ready()
    s3.start()
    own_server.wait_ready(60)
    assert own_server.query("SELECT c FROM v") == [(11,)]

    # Again in the middle, and this time it comes back while the server lives.
    s3.stop()
    own_server.query("INSERT INTO t VALUES (11)")
    eventually(lambda: not own_server.ready(), 40)
    s3.start()
    own_server.wait_ready(60)
    own_server.query("FLUSH")
    assert all(row[0] is not None for row in own_server.query("SHOW CHECKPOINTS"))
    own_server.kill()
    own_server.start(**settings)
    assert own_server.query("SELECT c FROM v") == [(12,)]


def test_resume_without_store(kafka, own_server, s3, unique):
    """A job is resumed while the S3 server is away: it stays as it is, with the reason, and the others go on."""
    own_server.environment = s3.environment
    topic = kafka.create_topic(unique("resumed"), 1)
    own_server.start(checkpoint_url=s3.url(unique("resumed").replace("_", "-")), checkpoint_ms=200)
    own_server.run(f"CREATE TABLE k (id BIGINT PRIMARY KEY, x INT) WITH ({kafka.options(topic, on_error='fail')}) FORMAT UPSERT ENCODE JSON;\nCREATE TABLE t (id BIGINT PRIMARY KEY);")
    kafka.produce(topic, [({"id": 1}, {"id": 1, "x": 1})])
    eventually(lambda: own_server.query("SELECT id FROM k") == [(1,)])
    own_server.query("FLUSH")
    kafka.produce(topic, [({"id": 2}, {"id": 2, "x": "bad"})])
    eventually(lambda: states(own_server)["k"][0] == "stopped")
    s3.stop()
    assert "checkpoint store" in str(own_server.error("ALTER TABLE k RESUME"))
    own_server.query("INSERT INTO t VALUES (1)")
    assert own_server.query("SELECT id FROM t") == [(1,)]
    assert own_server.query("SELECT id FROM k") == [(1,)]
    assert "checkpoint store" in states(own_server)["k"][1]
    s3.start()
    own_server.wait_ready(60)
    # Restored, it meets the record again: before the statement returns, or after. Nothing else may be wrong.
    try:
        own_server.query("ALTER TABLE k RESUME")
    except psycopg.Error as error:
        assert 'column "x"' in str(error)
    eventually(lambda: states(own_server)["k"][0] == "stopped" and 'column "x"' in states(own_server)["k"][1])


def test_wrong_settings_are_named(own_server, s3, unique):
    """No credentials, wrong ones, no such bucket: the start fails at once and names what to set."""
    url = s3.url(unique("settings").replace("_", "-"))
    with_keys, hidden = dict(s3.environment), {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    own_server.environment = {**with_keys, **hidden}
    text = own_server.refused(checkpoint_url=url)
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set" in text and "AWS_ENDPOINT" in text, text
    own_server.environment = {**with_keys, "AWS_SECRET_ACCESS_KEY": "wrong"}
    text = own_server.refused(checkpoint_url=url)
    assert "access is refused" in text and "AWS_SECRET_ACCESS_KEY" in text, text
    own_server.environment = with_keys
    text = own_server.refused(checkpoint_url="s3://no-such-bucket/x")
    assert "there is no such bucket" in text, text


def test_one_owner(own_server, another, store):
    """Another cluster's store is refused, with a sentence, by a new folder and by one that has a cluster; the owner does not notice."""
    own_server.environment = store.environment
    own_server.start(checkpoint_url=store.url)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH;")
    second = another()
    second.environment = store.environment
    text = second.refused(checkpoint_url=store.url)
    assert "belongs to cluster" in text and "is new" in text and "--checkpoint-url" in text, text
    second.start()
    second.kill()
    text = second.refused(checkpoint_url=store.url)
    assert "belongs to cluster" in text and "is of cluster" in text, text
    own_server.run("INSERT INTO t VALUES (2);\nFLUSH;")
    own_server.kill()
    # Its own log with another store is refused as well.
    text = own_server.refused(checkpoint_url=f"{store.url}-else")
    assert "does not have manifests/" in text, text
    own_server.start(checkpoint_url=store.url)
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_one_server_per_folder(own_server, another):
    """Two servers on one data folder: the second one is refused and told who has it."""
    own_server.start()
    second = another()
    second.data = own_server.data
    text = second.refused()
    assert f"is in use by another server (process {own_server.process.pid})" in text, text


def test_a_copied_folder_fences(own_server, another, store):
    """A copy of a live server's data folder on the same store: the later one has the store, the earlier one stops by itself and is refused at its next start; no file of
    the one is deleted by the other."""
    settings = {"checkpoint_url": store.url, "checkpoint_ms": 200}
    own_server.environment = store.environment
    own_server.start(**settings)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;\nINSERT INTO t VALUES (1), (2);\nFLUSH;")
    own_server.kill()
    second = another()
    copy_data(own_server, second)
    second.environment = store.environment
    own_server.start(**settings)
    # The copy is older than the store now.
    text = second.refused(**settings)
    assert "is a copy" in text and "docs/operations.md" in text, text
    own_server.run("INSERT INTO t VALUES (3);\nFLUSH;")
    copy_data(own_server, second)
    second.start(**settings)
    assert own_server.wait_exit() == 1
    assert "another server of this cluster has opened checkpoint store" in own_server.log_tail()
    left = set(objects(store, "tables"))
    second.run("INSERT INTO t VALUES (4), (5);\nFLUSH;\nINSERT INTO t VALUES (6);\nFLUSH;\nDELETE FROM t WHERE id = 6;\nFLUSH;")
    assert left <= set(objects(store, "tables")), "files of the first are gone"
    text = own_server.refused(**settings)
    assert "is a copy" in text, text
    second.kill()
    second.start(**settings)
    assert second.query("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,), (5,)]
    second.kill()
    # The user's deliberate word for the first: all that it has acknowledged is there.
    claim = objects(store, "generations")[-1]
    shutil.copy(store.files / claim, own_server.data / "CLAIM")
    own_server.start(**settings)
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    assert own_server.query("SELECT c FROM v") == [(3,)]


def test_an_old_copy_is_refused(own_server, store):
    """A folder put back from a backup, although its server went on without a restart."""
    settings = {"checkpoint_url": store.url, "checkpoint_ms": 200}
    own_server.environment = store.environment
    own_server.start(**settings)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH;")
    backup = own_server.folder / "backup"
    shutil.copytree(own_server.data, backup)
    own_server.run("INSERT INTO t VALUES (2);\nFLUSH;")
    own_server.kill()
    newest = own_server.folder / "newest"
    own_server.data.rename(newest)
    backup.rename(own_server.data)
    text = own_server.refused(**settings)
    assert "is an old copy: its log ends with epoch" in text, text
    shutil.rmtree(own_server.data)
    newest.rename(own_server.data)
    own_server.start(**settings)
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_a_lost_folder(own_server, store):
    """Without its data folder a cluster goes on from the store by an explicit word only, and says what that costs."""
    own_server.environment = store.environment
    own_server.start(checkpoint_url=store.url)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH;")
    own_server.kill()
    shutil.rmtree(own_server.data)
    text = own_server.refused(checkpoint_url=store.url)
    assert "--recover-from-checkpoint" in text, text
    own_server.start(checkpoint_url=store.url, recover_from_checkpoint="true")
    assert own_server.query("SELECT id FROM t") == [(1,)]
    assert "is lost" in own_server.log_tail()
    own_server.run("INSERT INTO t VALUES (2);")
    own_server.kill()
    own_server.start(checkpoint_url=store.url)
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    assert len(objects(store, "generations")) == 3


def test_every_file_of_the_store(own_server, store):
    """Each object is taken away while the server is down: never fewer rows without a word that names it; and with the object back everything is there again, of a job that is
    told to go on at the latest."""
    settings = {"checkpoint_url": store.url, "checkpoint_ms": 600_000, "workers": 2}
    own_server.environment = store.environment
    own_server.start(**settings)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;\n"
                   "INSERT INTO t SELECT n FROM generate_series(1, 100) AS g(n);\nFLUSH;\nINSERT INTO t SELECT n FROM generate_series(101, 200) AS g(n);\nFLUSH;")
    own_server.kill()
    answers = {"SELECT count(*), sum(id) FROM t": [(200, 20_100)], "SELECT c FROM v": [(200,)]}

    def look(name):
        """Right answers, or words that name the object; says whether all answers are right."""
        said = " ".join(str(error) for _, error in states(own_server).values() if error)
        right = True
        for text, rows in answers.items():
            try:
                found = own_server.query(text)
            except psycopg.Error as error:
                found, said = None, f"{said} {error}"
            right &= found == rows
            assert found == rows or name in said, f"without {name}: {text} gives {found}, and nothing names it: {said}"
        return right

    def resumed(name):
        for job, (state, _) in states(own_server).items():
            if state != "running":
                with suppress(psycopg.Error):
                    own_server.query(f"ALTER {'TABLE' if job == 't' else 'MATERIALIZED VIEW'} {job} RESUME")
        return look(name)

    names, repaired = objects(store), []
    pristine = own_server.folder / "pristine"
    kept = {pristine / "data": own_server.data, **{pristine / str(number): folder for number, folder in enumerate(store.folders)}}
    for copy, folder in kept.items():
        shutil.copytree(folder, copy, dirs_exist_ok=True)

    def restore(name=None):
        """The object as it was, or everything."""
        for copy, folder in kept.items():
            if name is None:
                shutil.rmtree(folder)
                shutil.copytree(copy, folder)
            elif (copy / name).is_dir():
                shutil.copytree(copy / name, folder / name, dirs_exist_ok=True)
            elif folder != own_server.data:
                shutil.copy(copy / name, folder / name)

    for name in names:
        for folder in store.folders:
            (shutil.rmtree if (folder / name).is_dir() else os.remove)(folder / name)
        own_server.start(wait=False, **settings)
        eventually(lambda: not own_server.running or own_server.ready(), 30)
        if own_server.running:
            look(name)
        else:
            assert name in own_server.log_tail(), f"without {name}:\n{own_server.log_tail()}"
        own_server.kill()
        restore(name)
        own_server.start(**settings)
        if resumed(name) or resumed(name):
            repaired.append(name)
        own_server.kill()
        restore()
    print(f"repaired by putting it back: {repaired}")
    assert all(name in repaired for name in names if not name.startswith("tables/")), (names, repaired)


@contextmanager
def small_disk(path, megabytes):
    """A file system of its own."""
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tidemark-test", path], capture_output=True, text=True)
    assert done.returncode == 0, f"a small disk is needed for this test, and mounting needs root: {done.stderr}"
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_full_disk(own_server):
    """A full disk: writes wait or are refused with 53100, reads go on; with space again everything goes on, and nothing that was acknowledged is lost."""
    with small_disk(own_server.data, 24):
        own_server.start(checkpoint_ms=300)
        own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY, text VARCHAR);\nCREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM t;")
        ballast = own_server.data / "ballast"
        with open(ballast, "wb") as file:
            file.write(b"x" * (18 << 20))
        acknowledged, refused, filler = 0, None, "y" * 20_000
        waiting = own_server.connect()
        end = time.monotonic() + 60
        while refused is None and time.monotonic() < end:
            text = filler + str(acknowledged)
            done = threading.Event()

            def insert(number=acknowledged, text=text, done=done):
                nonlocal refused
                try:
                    waiting.execute("INSERT INTO t SELECT %s::bigint * 20 + n, %s || n::varchar FROM generate_series(0, 19) AS g(n)", (number, text))
                    done.set()
                except psycopg.Error as error:
                    refused = error

            thread = threading.Thread(target=insert, daemon=True)
            thread.start()
            thread.join(3)
            if done.is_set():
                acknowledged += 1
            else:
                break
        # The one that was under way waits; a new one is told why.
        error = eventually(lambda: own_server.error("INSERT INTO t VALUES (-1, 'z')"), 20)
        assert error.sqlstate == "53100", error
        assert own_server.value("SELECT count(*) FROM t") == acknowledged * 20
        ballast.unlink()
        eventually(lambda: own_server.query("INSERT INTO t VALUES (-2, 'z')") == [], 30)
        thread.join(30)
        assert done.is_set() or refused is not None
        acknowledged += done.is_set() and not thread.is_alive()
        rows = own_server.value("SELECT count(*) FROM t")
        assert rows == acknowledged * 20 + 1, (rows, acknowledged)
        own_server.query("FLUSH")
        own_server.kill()
        own_server.start(checkpoint_ms=300)
        assert own_server.value("SELECT count(*) FROM t") == rows and own_server.query("SELECT c FROM v") == [(rows,)]
        own_server.kill()
