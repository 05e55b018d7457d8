"""The crash tests' world: two topics under random load, views and sinks over them, and their recomputation in Python from the topics alone.

`likes` (FORMAT UPSERT, deletions among it) feeds a self join and an aggregate with retractions; `orders` (append-only) feeds counts, sums and minima; `customers`
(Debezium) is joined with orders. Three sinks: upsert, Debezium, and plain append-only. `World.verify` asks for everything at once: every view
equals its recomputation, and every sink topic holds each change exactly once.
"""

import random
from collections import Counter, defaultdict
from decimal import Decimal

import pytest
from harness import eventually, replay_debezium, replay_upserts

VIEWS = """
CREATE SOURCE likes (liker VARCHAR, liked VARCHAR, at BIGINT, PRIMARY KEY (liker, liked)) WITH ({likes}) FORMAT UPSERT ENCODE JSON;
CREATE SOURCE orders (id BIGINT, customer BIGINT, amount BIGINT) WITH ({orders}) FORMAT PLAIN ENCODE JSON;
CREATE TABLE customers (id BIGINT PRIMARY KEY, country VARCHAR) WITH ({customers}) FORMAT DEBEZIUM ENCODE JSON;
CREATE MATERIALIZED VIEW matches AS
  SELECT a.liker AS person_a, a.liked AS person_b, greatest(a.at, b.at) AS matched_at FROM likes a JOIN likes b ON a.liker = b.liked AND a.liked = b.liker WHERE a.liker < a.liked;
CREATE MATERIALIZED VIEW received AS SELECT liked, count(*) AS likes, max(at) AS latest FROM likes GROUP BY liked;
CREATE MATERIALIZED VIEW order_count AS SELECT count(*) AS orders, sum(amount) AS amount FROM orders;
CREATE MATERIALIZED VIEW per_customer AS SELECT customer, count(*) AS orders, sum(amount) AS amount, min(amount) AS lowest FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW per_country AS SELECT c.country, count(*) AS orders, sum(p.amount) AS amount FROM per_customer p LEFT JOIN customers c ON p.customer = c.id GROUP BY c.country;
CREATE SINK matches_out FROM matches WITH ({matches_out}) FORMAT UPSERT ENCODE JSON;
CREATE SINK per_customer_out FROM per_customer WITH ({per_customer_out}) FORMAT DEBEZIUM ENCODE JSON;
CREATE SINK orders_out AS SELECT id, customer, amount FROM orders WHERE amount % 2 = 0 WITH ({orders_out}) FORMAT PLAIN ENCODE JSON;
"""

COUNTRIES = ["BR", "DE", "FR", "JP"]


def plain(value):
    """A value as the recomputation has it: sums of bigint arrive as numeric."""
    return int(value) if isinstance(value, Decimal) else value


class World:
    """One server, its topics and a seeded source of events."""

    def __init__(self, kafka, server, unique, seed):
        self.kafka, self.server, self.random = kafka, server, random.Random(seed)
        self.topic = {name: unique(name) for name in ("likes", "orders", "customers", "matches_out", "per_customer_out", "orders_out")}
        for name, topic in self.topic.items():
            kafka.create_topic(topic, 1 if name == "customers" else 3)
        self.people = [f"p{number:02}" for number in range(40)]
        self.liked, self.customers, self.order, self.clock = set(), {}, 0, 0
        self.highest_count = 0

    def create(self):
        """The sources, views and sinks."""
        options = {name: self.kafka.options(topic) for name, topic in self.topic.items()}
        options["matches_out"] = self.kafka.options(self.topic["matches_out"], primary_key="person_a,person_b")
        options["per_customer_out"] = self.kafka.options(self.topic["per_customer_out"], primary_key="customer")
        self.server.run(VIEWS.format(**options))

    def produce(self, count):
        """`count` likes and orders, and a few changes of customers."""
        likes, orders, customers = [], [], []
        for _ in range(count):
            self.clock += 1
            if self.liked and self.random.random() < 0.3:
                pair = self.random.choice(sorted(self.liked)) if self.random.random() < 0.2 else self.random.choice(self.latest)
                self.liked.discard(pair)
                likes.append(({"liker": pair[0], "liked": pair[1]}, None))
            else:
                pair = tuple(self.random.sample(self.people, 2))
                self.liked.add(pair)
                self.latest = [pair, *getattr(self, "latest", [])[:20]]
                likes.append(({"liker": pair[0], "liked": pair[1]}, {"at": self.clock}))
            self.order += 1
            orders.append(({"id": self.order}, {"id": self.order, "customer": self.random.randrange(50), "amount": self.random.randrange(-100, 1000)}))
            if self.random.random() < 0.05:
                number = self.random.randrange(50)
                before, after = self.customers.get(number), self.random.choice([None, *COUNTRIES])
                if before != after:
                    row = lambda country: country and {"id": number, "country": country}
                    customers.append(({"id": number}, {"before": row(before), "after": row(after), "op": "c" if before is None else "d" if after is None else "u"}))
                    self.customers[number] = after
        self.kafka.produce(self.topic["likes"], likes)
        self.kafka.produce(self.topic["customers"], customers)
        self.kafka.produce(self.topic["orders"], orders)

    def expected(self):
        """Every view's rows, sorted, computed from the topics."""
        likes = {}
        for record in self.kafka.read(self.topic["likes"]):
            pair = (record.key["liker"], record.key["liked"])
            if record.value is None:
                likes.pop(pair, None)
            else:
                likes[pair] = record.value["at"]
        orders = [record.value for record in self.kafka.read(self.topic["orders"])]
        countries = {}
        for record in self.kafka.read(self.topic["customers"]):
            after = record.value["after"]
            countries[record.key["id"]] = after and after["country"]
        received, customers, totals = defaultdict(list), defaultdict(list), defaultdict(list)
        for (_, liked), at in likes.items():
            received[liked].append(at)
        for order in orders:
            customers[order["customer"]].append(order["amount"])
            totals[countries.get(order["customer"])].append(order["amount"])
        # per_country counts rows of per_customer: one for each customer
        per_country = Counter(countries.get(customer) for customer in customers)
        amounts = [order["amount"] for order in orders]
        return {
            "matches": sorted((a, b, max(at, likes[b, a])) for (a, b), at in likes.items() if a < b and (b, a) in likes),
            "received": sorted((liked, len(ats), max(ats)) for liked, ats in received.items()),
            "order_count": [(len(amounts), sum(amounts) if amounts else None)],
            "per_customer": sorted((customer, len(values), sum(values), min(values)) for customer, values in customers.items()),
            "per_country": sorted(((country, per_country[country], sum(values)) for country, values in totals.items()), key=str),
            "orders_out": Counter((order["id"], order["customer"], order["amount"]) for order in orders if order["amount"] % 2 == 0),
        }

    def verify(self, timeout=40.0):
        """All views and all sinks against the recomputation; waits until the server has caught up with the topics."""
        expected = self.expected()
        eventually(lambda: self.server.query("SELECT orders, amount FROM order_count") == expected["order_count"], timeout)
        for view in ("matches", "received", "per_customer", "per_country"):

            def equal(view=view):
                rows = sorted((tuple(map(plain, row)) for row in self.server.query(f"SELECT * FROM {view}")), key=str)
                wanted = sorted(expected[view], key=str)
                assert rows == wanted, f"{view}: missing {sorted(set(wanted) - set(rows), key=str)[:5]}, too many {sorted(set(rows) - set(wanted), key=str)[:5]}"
                return True

            eventually(equal, timeout)

        def matches_out():
            state = replay_upserts(self.kafka.read(self.topic["matches_out"]))
            assert sorted((row["person_a"], row["person_b"], row["matched_at"]) for row in state.values()) == expected["matches"]
            return True

        def per_customer_out():
            state = replay_debezium(self.kafka.read(self.topic["per_customer_out"]))
            assert sorted((row["customer"], row["orders"], int(row["amount"]), row["lowest"]) for row in state.values()) == expected["per_customer"]
            return True

        def orders_out():
            found = Counter((record.value["id"], record.value["customer"], record.value["amount"]) for record in self.kafka.read(self.topic["orders_out"]))
            twice = {row: count for row, count in found.items() if count > 1}
            assert not twice, f"written more than once: {list(twice.items())[:5]}"
            assert found == expected["orders_out"], f"missing in the sink: {list((expected['orders_out'] - found).items())[:5]}"
            return True

        for check in (matches_out, per_customer_out, orders_out):
            eventually(lambda check=check: self.fail_if_stopped() or check(), timeout, 0.2)
        errors = self.server.query("SELECT relation, message FROM tidemark.errors")
        assert not errors, errors[:3]

    def fail_if_stopped(self):
        """Ends the test at once when a job has stopped: no waiting helps then."""
        stopped = [row for row in self.server.query("SHOW JOBS") if "stopped" in row]
        if stopped:
            pytest.fail(f"stopped: {stopped}")

    def count_never_falls(self, rows):
        """For a Poller over `SELECT orders FROM order_count`: what was read once is never less, crash or not."""
        (count,) = rows[0]
        assert count >= self.highest_count, f"{count} orders were read after {self.highest_count}"
        self.highest_count = count
