"""What earlier releases left on disk is read by this one: their logs, manifests and checkpoint files, and nothing of it is lost."""

import pytest
from harness import eventually
from releases import ANSWERS, FOLDER, unpack

RELEASES = sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz"))


def answers(server):
    return {text: server.psql("-c", f"SET timezone = 'UTC'; {text}").splitlines() for text in ANSWERS}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_folder_of_an_earlier_release_is_read(own_server, release, workers):
    unpack(release, own_server.folder)
    own_server.start(workers=workers)
    eventually(lambda: own_server.value("SELECT count(*) FROM tidemark.jobs WHERE state <> 'running'") == 0)
    assert answers(own_server) == ANSWERS
    # What this release makes of it, it reads again.
    own_server.run("INSERT INTO sales.orders (id, customer) VALUES (7, 'ann'); FLUSH; DELETE FROM sales.orders WHERE id = 7")
    own_server.kill()
    own_server.start(workers=2)
    eventually(lambda: own_server.value("SELECT count(*) FROM tidemark.jobs WHERE state <> 'running'") == 0)
    assert answers(own_server) == ANSWERS


def test_there_are_releases():
    assert RELEASES
