"""The log of a server that was killed: what was acknowledged is there, or the start is refused with file and offset, and putting the file back repairs it."""

import shutil


def refused(server, *words, **settings):
    """The server does not start, and says so with these words."""
    server.start(wait=False, **settings)
    assert server.wait_exit() == 1
    said = server.log_tail(3)
    for word in words:
        assert word in said, said
    return said


def segment(server):
    return sorted((server.data / "log").glob("*.log"))[-1]


def test_one_byte_is_missing(own_server):
    """One byte off the end of the log: the acknowledged row in it is missed, whether the server was killed or stopped."""
    own_server.start(checkpoint_ms=600_000)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (2);")
    for stop in (own_server.kill, own_server.stop):
        stop()
        file = segment(own_server)
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        refused(own_server, file.name, "ends at byte", "which was synced", "--recover-from-checkpoint")
        file.write_bytes(content)
        own_server.start(checkpoint_ms=600_000)
        assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_large_writes(own_server):
    """The rows of a large INSERT are an object beside the log; damage in it, or in what stands around it, is refused, and never answers with fewer rows."""
    own_server.start(checkpoint_ms=600_000)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR);\nINSERT INTO t VALUES (-1, 'a');\n"
                   "INSERT INTO t SELECT n, 'row number ' || n::varchar FROM generate_series(1, 300000) AS g(n);\nINSERT INTO t VALUES (-2, 'b');")
    own_server.kill()
    (large,) = (own_server.data / "log" / "objects").iterdir()
    for file in (large, segment(own_server)):
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        refused(own_server, file.name, "is damaged", "byte")
        file.unlink()
        refused(own_server, file.name, "is missing")
        file.write_bytes(content)
    own_server.start(checkpoint_ms=600_000)
    assert own_server.query("SELECT count(*), min(id), max(id) FROM t") == [(300002, -2, 300000)]
    own_server.query("FLUSH")
    assert not large.exists()
    own_server.kill()
    own_server.start()
    assert own_server.value("SELECT count(*) FROM t") == 300002


def test_lost_log(own_server):
    """Without its log the server does not start. Told to, it goes on from the last checkpoint, and what is written from then on is as safe as ever."""
    own_server.start()
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nINSERT INTO t VALUES (1);\nFLUSH;")
    own_server.kill()
    marks = own_server.data / "log.synced"
    content = marks.read_bytes()
    marks.unlink()
    refused(own_server, "log.synced is missing")
    shutil.rmtree(own_server.data / "log")
    refused(own_server, "checkpoint", "--recover-from-checkpoint")
    marks.write_bytes(content)
    refused(own_server, ".log is missing", "--recover-from-checkpoint")
    own_server.start(checkpoint_ms=600_000, recover_from_checkpoint="true")
    assert "is lost" in own_server.log_tail()
    own_server.query("INSERT INTO t VALUES (2)")
    own_server.kill()
    own_server.start()
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_accepted_damage(own_server):
    """Told to go on with a damaged log, the server keeps what can be read, and a copy of what cannot."""
    own_server.start(checkpoint_ms=600_000)
    own_server.run("CREATE TABLE t (id BIGINT PRIMARY KEY);\nFLUSH;\n" + ";\n".join(f"INSERT INTO t VALUES ({n})" for n in range(10)))
    own_server.kill()
    file = segment(own_server)
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    refused(own_server, file.name, "is damaged at byte")
    own_server.start(checkpoint_ms=600_000, recover_from_checkpoint="true")
    assert own_server.query("SELECT id FROM t ORDER BY id") == [(n,) for n in range(9)]
    assert (own_server.data / "log.aside-1" / file.name).read_bytes() == content
    own_server.query("INSERT INTO t VALUES (100)")
    own_server.kill()
    own_server.start()
    assert own_server.value("SELECT sum(id) FROM t") == 136
