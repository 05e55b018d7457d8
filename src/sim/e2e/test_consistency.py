"""One epoch is one cut of the whole database: money that moves between accounts is never seen on its way.

Transfers are one topic; credits and debits are two views of it, balances join the two, and the total sums the balances. It is zero in every reading and in every message.
"""

import random
import threading

from harness import Poller, eventually

ACCOUNTS = 40

VIEWS = """
CREATE SOURCE transfers (id BIGINT, debited BIGINT, credited BIGINT, amount BIGINT) WITH ({transfers}) FORMAT PLAIN ENCODE JSON;
CREATE MATERIALIZED VIEW credits AS SELECT credited AS account, sum(amount) AS amount FROM transfers GROUP BY credited;
CREATE MATERIALIZED VIEW debits AS SELECT debited AS account, sum(amount) AS amount FROM transfers GROUP BY debited;
CREATE MATERIALIZED VIEW balances AS
  SELECT coalesce(c.account, d.account) AS account, coalesce(c.amount, 0) - coalesce(d.amount, 0) AS balance, coalesce(c.amount, 0) AS moved
  FROM credits c FULL JOIN debits d ON c.account = d.account;
CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS total, sum(moved) AS moved, count(*) AS accounts FROM balances;
CREATE SINK total_out FROM total WITH ({total_out}) FORMAT PLAIN ENCODE JSON;
"""


def test_total_is_always_zero(kafka, own_server, unique):
    transfers, total_out = kafka.create_topic(unique("transfers"), 4), kafka.create_topic(unique("total_out"), 1)
    own_server.start(workers=3, epoch_ms=10)
    own_server.run(VIEWS.format(transfers=kafka.options(transfers), total_out=kafka.options(total_out, force_append_only="true")))
    chance, moved, number = random.Random(5), 0, 0

    def zero(rows):
        ((total, moved),) = rows
        assert total in (None, 0), f"total {total} when {moved} had been moved"

    def views_agree(rows):
        ((credits, debits, balances, total),) = rows
        assert credits == debits == total and balances in (None, 0), f"in one reading: credits {credits}, debits {debits}, total's moved {total}, balances {balances}"

    together = "SELECT (SELECT sum(amount) FROM credits), (SELECT sum(amount) FROM debits), (SELECT sum(balance) FROM balances), (SELECT moved FROM total)"
    in_memory = "SELECT sum(balance), sum(moved) FROM balances"
    with Poller(own_server, "SELECT total, moved FROM total", zero) as first, Poller(own_server, together, views_agree) as second, Poller(own_server, in_memory, zero):
        for burst in range(150):
            records = []
            for _ in range(100):
                number += 1
                debited, credited = chance.sample(range(ACCOUNTS), 2)
                amount = chance.randrange(1, 10_000)
                moved += amount
                records.append(({"id": number}, {"id": number, "debited": debited, "credited": credited, "amount": amount}))
            kafka.produce(transfers, records)
            if burst == 75:
                own_server.kill()
                own_server.start(workers=2, epoch_ms=10)
            threading.Event().wait(0.02)
        eventually(lambda: own_server.query("SELECT total, moved, accounts FROM total") == [(0, moved, ACCOUNTS)])
        assert first.readings > 20 and second.readings > 20

    def delivered():
        values = [record.value for record in kafka.read(total_out)]
        return values if values and int(values[-1]["moved"] or 0) == moved else None

    values = eventually(delivered)
    wrong = [value for value in values if value["total"] is not None and int(value["total"]) != 0]
    assert not wrong, wrong[:3]
    steps = [int(value["moved"] or 0) for value in values]
    assert steps == sorted(set(steps)), "the sink went back or repeated itself"
    print(f"{number} transfers, {len(values)} messages, {first.readings} and {second.readings} readings")
    assert len(values) > 20


def test_sources_read_ad_hoc(kafka, own_server, unique):
    """A source that is read ad hoc begins where its views began, ends at the cut that they have reached, and at its end when nobody reads it; twice in one query it is the same."""
    topic = kafka.create_topic(unique("numbers"), 2)
    produce = lambda: kafka.produce(topic, (({"n": n}, {"n": n}) for n in range(100)))
    produce()
    own_server.start()
    own_server.run(f"CREATE SOURCE numbers (n BIGINT) WITH ({kafka.options(topic, scan__startup__mode='latest')}) FORMAT PLAIN ENCODE JSON;\n"
                   "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS c FROM numbers;")
    produce()
    eventually(lambda: own_server.value("SELECT c FROM counted") == 100)
    assert own_server.query("SELECT (SELECT count(*) FROM numbers), c FROM counted") == [(100, 100)]
    assert own_server.value("SELECT count(*) FROM numbers a JOIN numbers b ON a.n = b.n") == 100
    own_server.kill()
    own_server.start()
    assert own_server.query("SELECT (SELECT count(*) FROM numbers), c FROM counted") == [(100, 100)]
    own_server.query("DROP MATERIALIZED VIEW counted")
    produce()
    eventually(lambda: own_server.value("SELECT count(*) FROM numbers") == 200)
