"""Fixtures: one broker for the whole run, one server for the tests that only ask, and servers of their own for the tests that kill."""

import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from harness import CACHE, S3, Kafka, Tidemark

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def folder():
    """The run's folder; removed at the end unless E2E_KEEP is set."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="e2e-", dir=CACHE))
    yield path
    if os.environ.get("E2E_KEEP"):
        print(f"\nkept: {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(folder):
    """The broker. Tests share it, with topics of their own."""
    broker = Kafka(folder / "kafka").start()
    yield broker
    broker.wipe()


@pytest.fixture(scope="session")
def s3_server(folder):
    """The S3 server."""
    server = S3(folder / "s3").start()
    yield server
    server.wipe()


@pytest.fixture
def s3(s3_server):
    """The S3 server, running, whatever the test before did to it. Tests share it, with prefixes of their own."""
    s3_server.start()
    return s3_server


@pytest.fixture(scope="session")
def shared_server(folder):
    """Holds the server of the tests that do not stop it, and how many tests had failed when it was last handed out."""
    holder = {"server": None, "failed": 0}
    yield holder
    if holder["server"] is not None:
        holder["server"].kill()


@pytest.fixture
def server(shared_server, folder, request):
    """The server that tests share; they name their relations with `unique`. After a failure the next test gets a new one, so that one fault is reported once."""
    held = shared_server["server"]
    if held is None or not held.running or request.session.testsfailed > shared_server["failed"]:
        if held is not None:
            held.kill()
        held = shared_server["server"] = Tidemark(folder / f"shared_{next(_numbers)}").start()
    shared_server["failed"] = request.session.testsfailed
    return held


@pytest.fixture
def unique():
    """Makes names that no other test uses: unique("likes") -> likes_7."""
    number = next(_numbers)
    return lambda name: f"{name}_{number}"


@pytest.fixture
def own_server(folder, unique, request):
    """A server of this test's own, not started yet; killed at the end."""
    server = Tidemark(folder / unique("server"))
    yield server
    server.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the end of its server's log."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for name in ("own_server", "server"):
            if name in item.funcargs:
                report.sections.append((f"log of {name}", item.funcargs[name].log_tail()))
                break
