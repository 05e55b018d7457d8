"""A cluster of real processes in network namespaces, with real Kafka and an S3 server, while nodes die, sleep and lose each other; and nodes that come, go and have clocks of their own.

The load and the faults are those of rounds.py. Their seed is printed, and E2E_SEED gives another one (or the same again).
"""

import os
import random
import threading
import time

import psycopg
import pytest

from cluster import Cluster, Net, NetKafka, NetS3, why_no_net
from harness import eventually
from rounds import Load, Rounds

SEED = int(os.environ.get("E2E_SEED") or random.randrange(1 << 32))
pytestmark = [pytest.mark.skipif(why_no_net() is not None, reason=str(why_no_net())), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def net(folder):
    net = Net()
    yield net
    net.close()


@pytest.fixture(scope="module")
def broker(folder, net):
    broker = NetKafka(folder / "net-kafka", net).start()
    yield broker
    broker.wipe()


@pytest.fixture(scope="module")
def store(folder, net):
    store = NetS3(folder / "net-s3", net).start()
    yield store
    store.wipe()


@pytest.fixture
def make(folder, net, broker, store, request):
    """Starts a cluster of these nodes, and makes the load's relations; the nodes are killed at the end."""
    made = []

    def start(numbers, before=lambda cluster: None):
        print(f"\nE2E_SEED={SEED}")
        cluster = Cluster(folder / request.node.name, numbers, net, store, checkpoint_ms=1000)
        made.append(cluster)
        before(cluster)
        cluster.start().settled(len(numbers), 60)
        load = Load(cluster, broker, request.node.name.replace("[", "-").rstrip("]"))
        load.create()
        return cluster, load

    yield start
    for cluster in made:
        cluster.kill_all()


def ends_right(load, rounds):
    load.compare()
    load.compare_sinks()
    rounds.check_processes()


@pytest.mark.parametrize("count, times", [(3, 4), (5, 2)])
def test_nodes_fail_at_random(make, count, times):
    cluster, load = make(range(1, count + 1))
    rounds = Rounds(cluster, load, SEED)
    for _ in range(times):
        rounds.one(print)
    ends_right(load, rounds)


def test_one_after_the_other_is_started_again(make):
    """As for a new version. A client that connects again, to any node, waits a moment each time."""
    cluster, load = make((1, 2, 3))
    rounds = Rounds(cluster, load, SEED)
    with load.going_on():
        for number in (1, 2, 3):
            rounds.faults.stop(number, 0)
            cluster.settled(3, 60)
        written = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > written + 5 or load.failures, 60)
    print(f"at most {load.longest_silence:.1f} s without an answer, {load.readings} readings")
    ends_right(load, rounds)


def test_a_majority_is_away_and_comes_back(make):
    """Two of three nodes sleep, or do not reach the third: nothing is acknowledged meanwhile, and nothing is shown, but what was decided; then it heals by itself."""
    cluster, load = make((1, 2, 3))
    net, rounds = cluster.net, Rounds(cluster, load, SEED)
    cluster.run("CREATE TABLE counter (id BIGINT PRIMARY KEY, n BIGINT)")
    cluster.run("INSERT INTO counter VALUES (1, 0)")

    def refuses(node, statement):
        """It ends in an error, or not before a client's patience does: who waits has not been told anything."""
        try:
            node.ask(statement, patience=6)
            return False
        except psycopg.Error:
            return True

    leader = cluster.leader()
    first, second = cluster.followers()
    for numbers in ((first, second), (leader, first)):
        with load.going_on():
            for number in numbers:
                net.down(number)
            left = next(node for number, node in cluster.nodes.items() if number not in numbers)
            # What was on its way is over: from now on nothing is answered.
            eventually(lambda: refuses(left, "SELECT n FROM counter"), 30)
            written = len(load.acknowledged)
            assert refuses(left, "UPDATE counter SET n = n + 1 WHERE id = 1")
            assert refuses(left, "SELECT n FROM counter")
            assert len(load.acknowledged) == written
            for number in numbers:
                net.up(number)
            cluster.settled(3, 60)
            eventually(lambda: len(load.acknowledged) > written + 5 or load.failures, 60)
    ends_right(load, rounds)


def test_the_side_without_a_majority_shows_nothing_old(make):
    """A leader that the others do not reach any more, while clients, Kafka and the store reach it: it may refuse, and not answer by what it has."""
    cluster, load = make((1, 2, 3))
    rounds = Rounds(cluster, load, SEED)
    cluster.run("CREATE TABLE counter (n BIGINT PRIMARY KEY)")
    for kind in ("cut", "deaf", "mute"):
        cluster.run("DELETE FROM counter")
        old = cluster.leader()
        others = [number for number in cluster.nodes if number != old]
        healed, wrong, refused = threading.Event(), [], 0
        with load.going_on():
            fault = threading.Thread(target=lambda: (rounds.faults.do(kind, old, 5), healed.set()))
            fault.start()
            for n in range(1, 1000):
                if healed.is_set():
                    break
                try:
                    cluster.run(f"INSERT INTO counter VALUES ({n}) ON CONFLICT DO NOTHING", random.choice(others))
                    shown = cluster.nodes[old].ask("SELECT max(n) FROM counter", patience=4)
                    if shown != [(n,)]:
                        wrong.append((n, shown))
                except psycopg.Error:
                    refused += 1
            fault.join()
            cluster.settled(3, 60)
        print(f"{kind}: {n} writes, {refused} refused")
        assert not wrong, f"{kind}: what the old leader showed: {wrong}"
        assert cluster.run("SELECT max(n) FROM counter", old)[0][0] >= n - 1
    ends_right(load, rounds)


def test_two_nodes_that_do_not_reach_each_other(make):
    """The third one reaches both: one of the two has no part of the work, which goes on, until they do again."""
    cluster, load = make((1, 2, 3))
    rounds = Rounds(cluster, load, SEED)
    for pair in (cluster.followers(), (cluster.leader(), cluster.followers()[0])):
        ways = [(one, cluster.net.of(other)) for one, other in (pair, pair[::-1])]
        with load.going_on():
            for sender, address in ways:
                cluster.net.lose(sender, address)
            eventually(lambda: sorted(count > 0 for count in cluster.vnodes().values()) == [False, True, True], 60)
            written, sent = len(load.acknowledged), load.sent
            eventually(lambda: len(load.acknowledged) > written + 20 and load.sent > sent or load.failures, 60)
            assert 0 in cluster.vnodes().values()
            for sender, address in ways:
                cluster.net.find(sender, address)
            cluster.settled(3, 60)
        print(f"at most {load.longest_silence:.1f} s without an answer")
    ends_right(load, rounds)


def test_it_grows_and_shrinks_under_load(make):
    """One node, three, five, and two."""
    cluster, load = make((1,))
    rounds = Rounds(cluster, load, SEED)

    def state_of(number):
        return {n: state for n, _, state in cluster.members()}[number]

    def goes_on():
        written, sent = len(load.acknowledged), load.sent
        eventually(lambda: len(load.acknowledged) > written + 5 and load.sent > sent or load.failures, 60)

    with load.going_on():
        goes_on()
        for numbers, voters in (((2, 3), 3), ((4, 5), 5)):
            for number in numbers:
                cluster.add(number)
            cluster.start(*numbers)
            cluster.settled(voters, 60)
            goes_on()
    ends_right(load, rounds)
    with load.going_on():
        for _ in range(3):
            # Also the one that leads; the last two have a leader that votes alone.
            number = random.Random(SEED).choice([cluster.leader(), *cluster.followers()])
            cluster.run(f"ALTER CLUSTER DRAIN NODE {number}")
            eventually(lambda: state_of(number) == "drained", 60)
            assert cluster.vnodes()[number] == 0
            goes_on()
            assert cluster.nodes[number].stop(60) == 0
            cluster.forget(number)
            cluster.run(f"ALTER CLUSTER REMOVE NODE {number}", timeout=60)
            assert [n for n, *_ in cluster.members()] == sorted(cluster.nodes)
            goes_on()
        cluster.settled(1, 60)
    assert len(cluster.members()) == 2
    ends_right(load, rounds)


def test_clocks_differ_and_one_jumps_back(make):
    """By minutes; the leader's goes back by ten. Times that statements ask for are those of the node that leads, and nothing else is about these clocks."""
    clocks = {1: 0, 2: 290, 3: -290}
    cluster, load = make((1, 2, 3), lambda cluster: [cluster.nodes[number].set_clock(ahead) for number, ahead in clocks.items()])
    rounds = Rounds(cluster, load, SEED)
    with load.going_on():
        leader = cluster.leader()
        cluster.nodes[leader].set_clock(290)

        def differs(by):
            shown = cluster.run("SELECT extract(epoch FROM clock_timestamp())::BIGINT", leader)[0][0]
            return abs(shown - time.time() - by) < 60

        eventually(lambda: differs(290), 30)
        written = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > written + 5 or load.failures, 60)
        cluster.nodes[leader].set_clock(-310)
        eventually(lambda: differs(-310), 30)
        assert cluster.leader() == leader
        written, sent = len(load.acknowledged), load.sent
        eventually(lambda: len(load.acknowledged) > written + 5 and load.sent > sent or load.failures, 60)
    load.compare()
    rounds.one(print, ["kill"])
    ends_right(load, rounds)
