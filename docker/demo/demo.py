"""The demo's moving parts: `topics` creates the topics, `events` produces likes, orders and customers, `show` tells the two stories in the terminal.

Topics and their records, all JSON:
  likes          key {"liker", "liked"}, value {"at"}; a null value takes the like back
  matches        written by Tidemark: key {"person_a", "person_b"}, value the whole row, null when the match is gone
  orders         {"id", "customer_id", "amount", "at"}
  customers_cdc  Debezium change events {"before", "after", "op"}, key {"id"}
"""

import argparse
import json
import random
import sys
import time
from datetime import datetime, timedelta, timezone

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

PEOPLE = (
    "Ada Alan Annie Barbara Claude Donald Dorothy Edgar Edsger Emmy Frances Grace Guido Hedy Jean John Karen Katherine Ken Leslie Linus Lynn "
    "Margaret Niklaus Radia Rosalind Shafi Sophie Tim Tony"
).split()
COUNTRIES = ["BR", "DE", "FR", "JP", "PT"]
CUSTOMERS = [(number, name, COUNTRIES[number % len(COUNTRIES)]) for number, name in enumerate(PEOPLE[:15], start=1)]
PARTITIONS = 4
TOPICS = {"likes": PARTITIONS, "orders": PARTITIONS, "customers_cdc": 1, "matches": PARTITIONS}
LIVELY_SECONDS = 90

COLOUR = sys.stdout.isatty()


def styled(code, text):
    """`text` in an ANSI style where the output is a terminal."""
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else str(text)


def bold(text):
    return styled("1", text)


def dim(text):
    return styled("2", text)


def green(text):
    return styled("32", text)


def red(text):
    return styled("31", text)


def now_text(moment=None):
    """A moment (default: now) as ISO 8601 in UTC with microseconds."""
    return (moment or datetime.now(timezone.utc)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode(value):
    return None if value is None else json.dumps(value, separators=(",", ":")).encode()


def decode(data):
    return None if data is None else json.loads(data)


def change_event(before, after):
    """A Debezium change event of table customers."""
    row = lambda customer: customer and dict(zip(("id", "name", "country"), customer))
    op = "c" if before is None else "d" if after is None else "u"
    return {"id": (before or after)[0]}, {"before": row(before), "after": row(after), "op": op, "ts_ms": int(time.time() * 1000)}


def create_topics(broker, names=TOPICS):
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 4})
    topics = [NewTopic(name, TOPICS[name]) for name in names]
    for future in admin.create_topics(topics).values():
        future.result()
    # A moment passes until the broker leads the new partitions.
    wanted = {TopicPartition(topic.topic, partition): OffsetSpec.latest() for topic in topics for partition in range(topic.num_partitions)}
    while any(future.exception() for future in admin.list_offsets(wanted).values()):
        time.sleep(0.05)


class Events:
    """Produces the three input topics. Likes are random, but one in four answers an earlier like, and one in twelve is taken back."""

    people = PEOPLE
    taken_back = 1 / 12

    def __init__(self, broker):
        self.producer = Producer({"bootstrap.servers": broker, "linger.ms": 1})
        self.random = random.Random(7)
        self.likes = {}
        self.order = 0

    def send(self, topic, key, value):
        self.producer.produce(topic, encode(value), encode(key))
        self.producer.poll(0)

    def like(self):
        choice = self.random.random()
        unanswered = [(liked, liker) for liker, liked in self.likes if (liked, liker) not in self.likes]
        if choice < self.taken_back and self.likes:
            pair = self.random.choice(list(self.likes))
            del self.likes[pair]
            value = None
        else:
            pair = self.random.choice(unanswered) if choice < 1 / 3 and unanswered else tuple(self.random.sample(self.people, 2))
            if pair in self.likes:
                return
            self.likes[pair] = True
            value = {"at": now_text()}
        self.send("likes", {"liker": pair[0], "liked": pair[1]}, value)

    def buy(self, moment=None):
        self.order += 1
        customer = self.random.choice(CUSTOMERS)[0]
        amount = f"{self.random.uniform(1, 200):.2f}"
        self.send("orders", {"id": self.order}, {"id": self.order, "customer_id": customer, "amount": float(amount), "at": now_text(moment)})

    def run(self):
        """Customers and three minutes of past orders at once; then lively for a minute, then a trickle for ever."""
        for customer in CUSTOMERS:
            self.send("customers_cdc", *change_event(None, customer))
        began = datetime.now(timezone.utc)
        for number in range(600):
            self.buy(began - timedelta(minutes=3) + timedelta(seconds=number * 0.3))
        started = time.monotonic()
        while True:
            rate = 12 if time.monotonic() - started < LIVELY_SECONDS else 2
            self.like()
            self.buy()
            self.producer.poll(0)
            time.sleep(self.random.uniform(0.5, 1.5) / rate)


def seconds_of(text):
    """The seconds since 1970 of a moment as records have it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Matches:
    """Reads topic `matches` as a consumer of committed records does, and checks that nothing arrives twice."""

    def __init__(self, broker):
        self.consumer = Consumer({"bootstrap.servers": broker, "group.id": "demo", "isolation.level": "read_committed", "enable.auto.commit": False, "fetch.wait.max.ms": 10})
        self.consumer.assign([TopicPartition("matches", partition, 0) for partition in range(PARTITIONS)])
        self.current = {}
        self.latencies = []
        self.twice = []

    def poll(self, seconds):
        """The next change: (pair, matched_at or None, latency in milliseconds or None); None when there is none in time."""
        message = self.consumer.poll(seconds)
        if message is None or message.error():
            return None
        key, value = decode(message.key()), decode(message.value())
        pair = (key["person_a"], key["person_b"])
        matched_at = value["matched_at"] if value else None
        if self.current.get(pair) == matched_at:
            self.twice.append(pair)
        if matched_at is None:
            self.current.pop(pair, None)
            return pair, None, None
        self.current[pair] = matched_at
        return pair, matched_at, 1000 * (time.time() - seconds_of(matched_at))


def heading(title, line):
    print(f"\n{bold(title)}  {dim(line)}\n", flush=True)


def share(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def show_matches(broker, query, seconds):
    """Prints matches as they arrive for some seconds; True if none came twice and the topic agrees with the view."""
    heading("Who likes each other?", "topic likes -> self join -> view matches -> topic matches, read here as a consumer sees it")
    matches = Matches(broker)
    began, taken_back = time.monotonic(), 0
    shown_from = time.time()
    while time.monotonic() - began < seconds:
        change = matches.poll(0.1)
        if change is None:
            continue
        (one, other), matched_at, latency = change
        clock = datetime.now().strftime("%H:%M:%S.%f")[:-3]
        names = f"{one} & {other}"
        if matched_at is None:
            taken_back += 1
            print(f"    {dim(clock)}  {dim(names):{30 + len(dim(''))}}{dim('  -- no longer: one took the like back')}", flush=True)
        elif seconds_of(matched_at) >= shown_from:
            matches.latencies.append(latency)
            print(f"    {dim(clock)}  {names:30}{latency:4.0f} ms after the like was written", flush=True)
    agree = False
    for _ in range(50):
        while matches.poll(0.05):
            pass
        agree = set(query("SELECT person_a, person_b FROM matches")) == set(matches.current)
        if agree:
            break
    if matches.latencies:
        print(f"\n    {len(matches.latencies)} matches live, {taken_back} taken back; latency: half within {share(matches.latencies, 0.5):.0f} ms, the slowest {max(matches.latencies):.0f} ms")
    print(f"    {red('arrived twice: ' + str(matches.twice)) if matches.twice else green('none arrived twice')}; {green('topic and view agree') if agree else red('topic and view differ')}", flush=True)
    return bool(matches.latencies) and not matches.twice and agree


def show_orders(broker, query, seconds):
    """Shows the answer growing, then corrects customers and shows it before and after; True if each correction changed what it should at once, and nothing else."""
    heading("What is sold where?", "orders joined with customers (a Debezium change stream), per minute and country")
    growing = "SELECT to_char(minute, 'HH24:MI'), country, orders FROM revenue WHERE minute = (SELECT max(minute) FROM revenue)"
    print(f"    the minute that runs, read from view revenue while orders arrive:\n\n    {bold('minute   ' + ''.join(f'{country:>12}' for country in COUNTRIES))}", flush=True)
    for _ in range(seconds):
        rows = query(growing)
        counts = {country: orders for _, country, orders in rows}
        print(f"    {rows[0][0] if rows else '':9}" + "".join(f"{counts.get(country, 0):5} orders" for country in COUNTRIES), flush=True)
        time.sleep(1)

    minute = (datetime.now(timezone.utc) - timedelta(minutes=2)).replace(second=0, microsecond=0)
    print(f"\n    corrections to customers change the past too, here the minute {minute:%H:%M}:", flush=True)
    number, name, country = CUSTOMERS[0]
    other = next(place for place in COUNTRIES if place != country)
    moved = (number, name, other)
    corrections = [
        (f"update: customer {number} ({name}) lives in {other}, not in {country}", CUSTOMERS[0], moved),
        (f"delete: customer {number} ({name}) goes, and her orders leave the answer", moved, None),
        (f"insert: customer {number} ({name}) is back, in {country}, and so are her orders", None, CUSTOMERS[0]),
    ]
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
    return all([correct(producer, query, minute, *correction) for correction in corrections])


def correct(producer, query, minute, title, old, new):
    """Sends one change of a customer and reads until the minute's answer follows. Every reading must be the answer before or the answer after, never one in between."""
    moment = f"'{minute:%Y-%m-%d %H:%M:%S}+00'"
    reading = f"SELECT country, orders, revenue FROM revenue WHERE minute = {moment}"
    read = lambda: {row[0]: row[1:] for row in query(reading)}
    before = read()
    # What the answer must be afterwards, from the customer's orders themselves.
    customer = (old or new)[0]
    (orders, revenue), = query(f"SELECT count(*), coalesce(sum(amount), 0) FROM orders WHERE customer_id = {customer} AND at >= {moment} AND at < TIMESTAMPTZ {moment} + INTERVAL '1 minute'")
    expected = {place: list(values) for place, values in before.items()}
    for row, sign in ((old, -1), (new, 1)):
        if row and orders:
            values = expected.setdefault(row[2], [0, 0])
            values[0] += sign * orders
            values[1] += sign * revenue
    expected = {place: tuple(values) for place, values in expected.items() if values[0]}

    key, event = change_event(old, new)
    producer.produce("customers_cdc", encode(event), encode(key))
    producer.flush()
    written, steady, after = time.monotonic(), True, before
    while after != expected and steady and time.monotonic() - written < 20:
        after = read()
        steady = after in (before, expected)
    waited = 1000 * (time.monotonic() - written)
    print(f"\n    {bold(title)}\n")
    for place in sorted(set(before) | set(after)):
        (count, total), (count_now, total_now) = before.get(place, (0, 0)), after.get(place, (0, 0))
        if (count, total) == (count_now, total_now):
            print(dim(f"    {place:6}{count:4} orders{total:12.2f}"))
        else:
            print(f"    {place:6}{count:4} orders{total:12.2f}  ->  {bold(f'{count_now:4} orders{total_now:12.2f}')}")
    if after == expected:
        print(f"\n    {green(f'seen {waited:.0f} ms after it was written, in one step')}", flush=True)
        return True
    print(f"\n    {red('the correction did not arrive within 20 s' if steady else f'a reading is neither the answer before nor {expected}')}", flush=True)
    return False


def show(broker, address, seconds):
    import psycopg

    host, port = address.split(":")
    with psycopg.connect(host=host, port=int(port), dbname="dev", user="root", autocommit=True) as connection:
        query = lambda text: connection.execute(text).fetchall()
        fine = show_matches(broker, query, seconds)
        fine = show_orders(broker, query, max(1, seconds * 2 // 5)) and fine
    if not fine:
        sys.exit(red("The demo saw something that must not be."))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["topics", "events", "show"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--sql", default="127.0.0.1:4566")
    parser.add_argument("--seconds", type=int, default=15, help="how long the matches are shown; the orders are shown for two fifths of that")
    parser.add_argument("--folder", help="marks the process as the demo's, for run.sh")
    options = parser.parse_args()
    try:
        match options.what:
            case "topics":
                create_topics(options.broker)
            case "events":
                Events(options.broker).run()
            case "show":
                show(options.broker, options.sql, options.seconds)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
