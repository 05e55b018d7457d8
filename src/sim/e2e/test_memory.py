"""Queries stay inside their memory, and end when they are told, wherever they are."""

import socket
import struct
import time

import psycopg
import pytest

from harness import eventually

MB = 1 << 20

# Each computes for minutes or more, in another way.
ENDLESS = {
    "cross join": "SELECT count(*) FROM generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)",
    "join that rejects everything": "SELECT count(*) FROM generate_series(1, 1000000) a(i) JOIN generate_series(1, 1000000) b(j) ON i + j < 0",
    "many pairs": "SELECT count(*) FROM (SELECT i % 2 k FROM generate_series(1, 1000000) g(i)) a JOIN (SELECT i % 2 k FROM generate_series(1, 1000000) g(i)) b USING (k)",
    "many pairs that are rejected": "SELECT count(*) FROM (SELECT i, i % 2 k FROM generate_series(1, 1000000) g(i)) a JOIN (SELECT i, i % 2 k FROM generate_series(1, 1000000) g(i)) b"
    " ON a.k = b.k AND a.i + b.i < 0",
    "distinct values": "SELECT count(DISTINCT i) FROM generate_series(1, 1000000000) g(i)",
    "sort": "SELECT i FROM generate_series(1, 1000000000) g(i) ORDER BY i % 1000 DESC OFFSET 999999999",
    "recursion": "WITH RECURSIVE r(n) AS (SELECT 1::bigint UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "patterns": "SELECT count(*) FROM generate_series(1, 100000000) g(i) WHERE repeat('a', 3000 + i::int * 0) ~ '(a|aa)+(b|c)+$'",
    "replacements": "SELECT sum(length(regexp_replace(repeat('ab', 10000 + i::int * 0), '(a)(b)', '\\2\\1\\2', 'g'))) FROM generate_series(1, 1000000) g(i)",
    "long texts": "SELECT sum(length(lpad('x', 1000000 + i::int * 0, 'ab'))) FROM generate_series(1, 100000) g(i)",
    "wide pairs": "SELECT count(*) FROM (SELECT unnest(a) FROM (SELECT array_agg(i) a FROM generate_series(1, 1000000) g(i)) s, generate_series(1, 10000)) t",
}

# Texts and lists that are too large in a batch of many rows, and are not one by one.
LARGE = {
    "SELECT sum(length(repeat('x', 1000000 + i::int * 0))) FROM generate_series(1, 2000) g(i)": 2_000_000_000,
    "SELECT sum(length(a || a)) FROM (SELECT repeat('x', 1000000 + i::int * 0) a FROM generate_series(1, 2000) g(i)) s": 4_000_000_000,
    "SELECT sum(length(a)) FROM (SELECT repeat('x', 1000000) a FROM generate_series(1, 2000) g(i)) s": 2_000_000_000,
    "SELECT count(*) FROM generate_series(1, 2000) g(i) WHERE length(repeat('x', 1000000 + i::int * 0)) > 5": 2000,
    "SELECT sum(cardinality(a)) FROM (SELECT array_fill(i, ARRAY[10000]) a FROM generate_series(1, 2000) g(i)) s": 20_000_000,
    "SELECT count(*) FROM (SELECT array_agg(i) a FROM generate_series(1, 100000) g(i)) s, generate_series(1, 20000)": 20_000,
}

# More than a query may hold.
TOO_MUCH = {
    "list": "SELECT cardinality(array_agg(i)) FROM generate_series(1, 100000000) g(i)",
    "text": "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 900000) g(i)",
    "join": "SELECT count(*) FROM generate_series(1, 100000000) a(i) JOIN generate_series(1, 100000000) b(j) ON i = j",
    "window": "SELECT sum(r) FROM (SELECT max(i) OVER () r FROM generate_series(1, 100000000) g(i)) s",
}

# One value, or a few, that take more than a small node has.
LARGE_VALUES = {
    "digest": "SELECT md5(repeat('a', 900000000))",
    "repeat": "SELECT length(repeat('x', 1000000000))",
    "replace": "SELECT length(replace(repeat('a', 10000000), 'a', repeat('b', 80)))",
    "doubled again and again": "WITH RECURSIVE r AS (SELECT 'x' s UNION ALL SELECT s || s FROM r) SELECT max(length(s)) FROM r",
    "array": "SELECT to_jsonb(array_fill(repeat('x', 1000), ARRAY[1000000]))",
    "matches": "SELECT length(regexp_replace(repeat('ab', 10000000), 'a(.*?)b', '\\1\\1', 'g'))",
    "padded": "SELECT length(lpad('x', 250000000, 'ab'))",
    "format": "SELECT length(format('%900000000s', 'x'))",
    "joined": f"SELECT length(concat({', '.join(['a'] * 20)})) FROM (SELECT repeat('x', 30000000) AS a) AS t",
    "parts": "SELECT cardinality(string_to_array(repeat('x,', 50000000), ','))",
    "rows of parts": "SELECT count(*) FROM regexp_split_to_table(repeat('x,', 20000000), ',')",
    "text of many": "SELECT length(string_agg(repeat('x', 1000000), ',')) FROM generate_series(1, 100000000) AS s(g)",
    "nested": "SELECT length(upper(lower(replace(repeat('x', 100000000), 'y', 'z'))))",
    "condition": "SELECT count(*) FROM generate_series(1, 10) AS s(g) WHERE md5(repeat('x', 500000000 + g::int)) = 'x'",
    "order": "SELECT g FROM generate_series(1, 10) AS s(g) ORDER BY repeat('x', 100000000 + g::int)",
}

# One value each that takes a second or more to compute.
LONG_STEPS = {
    "md5": "SELECT md5(repeat('a', 200000000))",
    "sha256": "SELECT sha256(convert_to(repeat('a', 200000000), 'UTF8'))",
    "repeat": "SELECT length(repeat(repeat('x', 10), 90000000))",
    "replace": "SELECT length(replace(repeat('a', 10000000), 'a', repeat('b', 80)))",
    "replace nothing": "SELECT length(replace(repeat('a', 200000000), 'aab', 'b'))",
    "lpad": "SELECT length(lpad('x', 250000000, 'abc'))",
    "regexp_replace": "SELECT length(regexp_replace(repeat('ab', 10000000), 'a(.*?)b', '\\1\\1', 'g'))",
    "one match": "SELECT regexp_count(repeat('ab', 100000000), '(ab)+c')",
    "many matches": "SELECT regexp_count(repeat('ab', 100000000), 'a')",
}


def resident(server, what="VmRSS"):
    """Bytes of memory of the server."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(what))


def forget_peak(server):
    """From now on the peak is counted."""
    with open(f"/proc/{server.process.pid}/clear_refs", "w") as peak:
        peak.write("5")


def processor_time(server):
    """Seconds that the server has computed."""
    with open(f"/proc/{server.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def is_quiet(server, seconds=0.5):
    """Whether the server computes next to nothing."""
    before = processor_time(server)
    time.sleep(seconds)
    return processor_time(server) - before < 0.3 * seconds


def open_socket(server):
    """A client that has said who it is, and reads nothing by itself."""
    with server.connect() as known:
        host, port = known.info.host, known.info.port
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, port))
    hello = struct.pack("!i", 196608) + b"user\0root\0database\0dev\0\0"
    client.sendall(struct.pack("!i", len(hello) + 4) + hello)
    read = b""
    while not read.endswith(b"Z\0\0\0\5I"):
        read += client.recv(4096)
    return client


def ask(client, text):
    text = text.encode() + b"\0"
    client.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)


@pytest.mark.parametrize("what", ENDLESS)
def test_a_query_ends_when_it_is_told(server, what):
    eventually(lambda: is_quiet(server))
    with server.connect() as connection:
        connection.execute("SET statement_timeout = '700ms'")
        begun = time.monotonic()
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(ENDLESS[what])
        assert raised.value.sqlstate == "57014", raised.value
        assert time.monotonic() - begun < 1.5
        # It has done what it does for half a second at most.
        time.sleep(0.2)
        assert is_quiet(server)


def test_a_query_ends_with_its_client(server):
    eventually(lambda: is_quiet(server))
    clients = [open_socket(server) for _ in range(2)]
    for client in clients:
        ask(client, ENDLESS["cross join"])
    time.sleep(0.5)
    for client in clients:
        client.close()
    time.sleep(0.3)
    assert is_quiet(server)


@pytest.mark.parametrize("query", LARGE)
def test_values_that_are_large_together_are_computed_a_few_at_a_time(server, query):
    before = resident(server)
    assert server.value(query) == LARGE[query]
    assert resident(server) - before < 500 * MB


@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much_memory_is_an_error_of_the_query(own_server, what):
    own_server.start(query_memory="200MB")
    before = resident(own_server)
    with own_server.connect() as connection:
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(TOO_MUCH[what])
        diagnosis = raised.value.diag
        assert (diagnosis.sqlstate, diagnosis.message_primary) == ("53200", "out of memory"), diagnosis.message_primary
        assert "of its 100 MB" in diagnosis.message_detail
        assert "query_memory_max" in diagnosis.message_hint
        assert resident(own_server) - before < 600 * MB
        assert connection.execute("SELECT sum(i) FROM generate_series(1, 1000) g(i)").fetchall() == [(500500,)]


def test_a_session_says_how_much_its_queries_may_hold(server):
    query = "SELECT cardinality(array_agg(i)) FROM generate_series(1, 1000000) g(i)"
    with server.connect() as connection:
        connection.execute("SET query_memory_max = '2MB'")
        assert connection.execute("SHOW query_memory_max").fetchone() == ("2MB",)
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(query)
        assert raised.value.sqlstate == "53200"
        connection.execute("RESET query_memory_max")
        assert connection.execute(query).fetchone() == (1_000_000,)
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("SET query_memory_max = 'much'")
        assert raised.value.sqlstate == "22023"


def test_groups_go_to_disk(own_server):
    own_server.start(query_memory="120MB")
    assert own_server.value("SELECT count(*) FROM (SELECT i FROM generate_series(1, 4000000) g(i) GROUP BY i) s") == 4_000_000


def test_clients_that_do_not_read_hold_little(server):
    queries = [
        "SELECT i, repeat('x', 1000) FROM generate_series(1, 1000000) g(i)",
        "SELECT i, repeat('x', 100000) FROM generate_series(1, 1000000) g(i)",
    ]
    for query in queries:
        before = resident(server)
        clients = [open_socket(server) for _ in range(20)]
        for client in clients:
            ask(client, query)
        time.sleep(2)
        held = resident(server) - before
        for client in clients:
            client.close()
        assert held < 500 * MB, query


def test_an_answer_that_nobody_reads_holds_little(own_server):
    """About a megabyte for each, whether its wide rows are stored, chosen or computed."""
    own_server.start()
    own_server.run("CREATE TABLE wide (i BIGINT PRIMARY KEY, s VARCHAR);")
    own_server.run("INSERT INTO wide SELECT i, repeat('x', 1000) || i FROM generate_series(1, 100000) g(i); FLUSH;")
    queries = [
        "SELECT i, s FROM wide",
        "SELECT i, s || 'y' FROM wide WHERE length(s) > 5",
        "SELECT i, repeat('x', 1000) FROM generate_series(1, 1000000) g(i)",
    ]
    for query in queries:
        eventually(lambda: is_quiet(own_server))
        before = resident(own_server)
        clients = [open_socket(own_server) for _ in range(200)]
        for client in clients:
            ask(client, query)
        eventually(lambda: is_quiet(own_server))
        held = resident(own_server) - before
        for client in clients:
            client.close()
        assert held < 400 * MB, (query, held // MB)


def test_a_thousand_clients_that_read_slowly_hold_little(own_server):
    """The more queries run, the smaller the steps in which they compute; who comes then is answered as before."""
    own_server.start(memory_limit="8GB", max_connections=1010)
    before = resident(own_server)
    clients = [open_socket(own_server) for _ in range(1000)]
    try:
        for client in clients:
            ask(client, "SELECT i, repeat('x', 1000) FROM generate_series(1, 1000000) g(i)")
        for _ in range(3):
            assert all(client.recv(2048) for client in clients)
            assert resident(own_server) - before < 6000 * MB
        begun = time.monotonic()
        assert own_server.value("SELECT sum(i) FROM generate_series(1, 100000) g(i)") == 5_000_050_000
        assert time.monotonic() - begun < 5
    finally:
        for client in clients:
            client.close()
    eventually(lambda: resident(own_server) - before < 1000 * MB)


def test_a_table_is_read_piece_by_piece(own_server):
    own_server.start()
    own_server.run("CREATE TABLE wide (i BIGINT PRIMARY KEY, s VARCHAR);")
    for at in range(0, 400_000, 50_000):
        own_server.run(f"INSERT INTO wide SELECT i, repeat('x', 500) || i::varchar FROM generate_series({at} + 1, {at} + 50000) g(i);")
    own_server.run("FLUSH;")
    time.sleep(2)
    before = resident(own_server)
    assert own_server.value("SELECT count(*) FROM (SELECT s FROM wide LIMIT 1) t") == 1
    with own_server.connect() as reader, own_server.connect() as writer:
        # It has begun, and then everything changes.
        reader.execute("BEGIN")
        reader.execute("DECLARE c CURSOR FOR SELECT i, length(s) FROM wide")
        read = reader.execute("FETCH 10 FROM c").fetchall()
        assert resident(own_server) - before < 100 * MB
        writer.execute("UPDATE wide SET s = 'y' WHERE i % 2 = 0")
        writer.execute("DELETE FROM wide WHERE i % 3 = 0")
        writer.execute("INSERT INTO wide VALUES (-1, 'z')")
        writer.execute("FLUSH")
        while more := reader.execute("FETCH 50000 FROM c").fetchall():
            read += more
    assert sorted(read) == [(i, 500 + len(str(i))) for i in range(1, 400_001)]


def test_prepared_statements_are_small(server):
    long = "SELECT 1 WHERE 1 IN (" + ", ".join(str(n) for n in range(1000)) + ", $1::int)"
    before = resident(server)
    with server.connect() as connection:
        prepare = connection.pgconn.prepare
        for n in range(2000):
            assert prepare(f"p{n}".encode(), long.encode()).status == 1
        assert resident(server) - before < 300 * MB
        # Also the first is what it was.
        result = connection.pgconn.exec_prepared(b"p0", [b"1"])
        assert result.get_value(0, 0) == b"1"
        texts = b"SELECT '" + b"x" * (10 * MB) + b"'"
        statuses = [prepare(f"t{n}".encode(), texts) for n in range(7)]
        assert statuses[0].status == 1
        assert statuses[-1].error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"53200"


def stopped_jobs(server):
    return server.query("SELECT name FROM tidemark.jobs WHERE state = 'stopped'")


def test_large_values_stop_no_job_and_stay_within_the_limit(own_server):
    own_server.start(memory_limit="600MB")
    own_server.run("CREATE TABLE t1 (k INT PRIMARY KEY); INSERT INTO t1 SELECT g FROM generate_series(1, 1000) AS s(g); CREATE USER eve;")
    with own_server.connect(user="eve") as connection:
        connection.execute("SET statement_timeout = '2s'")
        for what, text in LARGE_VALUES.items():
            forget_peak(own_server)
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(text)
            assert raised.value.sqlstate in {"53200", "54000", "57014"}, (what, raised.value)
            if raised.value.sqlstate == "57014":
                time.sleep(0.2)
                assert is_quiet(own_server), what
            assert resident(own_server, "VmHWM") < 600 * MB, what
            assert stopped_jobs(own_server) == [], what
        forget_peak(own_server)
        for _ in range(20):
            with pytest.raises(psycopg.Error):
                connection.execute("SET statement_timeout = '50ms'; SELECT md5(repeat('a', 30000000)), md5(repeat('b', 30000000)), md5(repeat('c', 30000000))")
        assert resident(own_server, "VmHWM") < 600 * MB
    assert stopped_jobs(own_server) == []
    assert own_server.value("SELECT count(*) FROM t1") == 1000


@pytest.mark.parametrize("what", LONG_STEPS)
def test_a_long_step_ends_when_it_is_told(server, what):
    eventually(lambda: is_quiet(server))
    with server.connect() as connection:
        connection.execute("SET query_memory_max = '8GB'; SET statement_timeout = '200ms'")
        begun = time.monotonic()
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(LONG_STEPS[what])
        assert raised.value.sqlstate == "57014", raised.value
        assert time.monotonic() - begun < 1
        if what in ("md5", "sha256"):
            # Before the digest, which ends when it is told (a unit test), its value of 200 MB is copied, which does not.
            eventually(lambda: is_quiet(server), timeout=3)
            return
        time.sleep(0.2)
        assert is_quiet(server)


def test_a_value_is_inside_the_memory_of_its_query(server):
    with server.connect() as connection:
        connection.execute("SET query_memory_max = '1MB'")
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("SELECT length(repeat('x', 500000000))")
        diagnosis = raised.value.diag
        assert (diagnosis.sqlstate, diagnosis.message_primary) == ("53200", "out of memory")
        assert "of its 1.0 MB" in diagnosis.message_detail
        assert connection.execute("SELECT length(repeat('x', 500000))").fetchone() == (500_000,)


def test_no_session_gives_itself_more_memory_than_a_query_may_have(own_server):
    own_server.start(query_memory="200MB")
    own_server.run("CREATE USER eve;")
    large = "SELECT length(repeat('x', 40000000))"
    with own_server.connect(user="eve") as connection:
        connection.execute("SET query_memory_max = '100MB'; SET query_memory_max = '10MB'")
        for more in ("101MB", "1TB"):
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(f"SET query_memory_max = '{more}'")
            assert raised.value.sqlstate == "42501"
            assert raised.value.diag.message_primary == 'permission denied to set parameter "query_memory_max"'
        assert connection.execute("SHOW query_memory_max").fetchone() == ("10MB",)
        # However it comes to be there, it does not count.
        connection.execute("SELECT set_config('query_memory_max', '1TB', false)")
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(large)
        assert raised.value.sqlstate == "53200"
    with own_server.connect() as connection:
        connection.execute("SET query_memory_max = '190MB'")
        assert connection.execute(large).fetchone() == (40_000_000,)
