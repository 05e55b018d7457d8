"""The demo's two stories, by the demo's own SQL files through psql."""

from datetime import datetime, timedelta, timezone

import pytest
from harness import ROOT, eventually, replay_upserts

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
