//! What links promise, and what kills, cuts and trouble leave of it.

use super::super::scheduler::Scheduler;
use super::*;
use futures::future::join;
use std::future::Future;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const ADDRESS: &str = "n2:4568";

/// Runs a test with a network. Returns what came of it, and the print of the run.
fn run<T, F>(seed: u64, test: impl FnOnce(SimNetwork) -> F) -> (T, u64)
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut scheduler = Scheduler::new(Dice::new(seed), 0);
    let network = SimNetwork::new(Dice::new(seed));
    let result = scheduler.run(test(network), 1_000_000);
    (result.unwrap(), scheduler.print)
}

/// The same for each of some seeds.
fn with_network<F>(test: impl Fn(SimNetwork) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for seed in 0..50 {
        run(seed, &test);
    }
}

/// Two processes on nodes 1 and 2, and a link from the first to the second.
struct Two {
    network: SimNetwork,
    alive: [Alive; 2],
    handles: [Arc<dyn Network>; 2],
    listener: Box<dyn Listener>,
    one: Link,
    other: Link,
}

impl Two {
    async fn new(network: &SimNetwork) -> Two {
        let alive = [Alive::default(), Alive::default()];
        let handles = [0, 1].map(|i| network.open(alive[i].clone(), 1 + i as u64));
        let mut listener = handles[1].listen(ADDRESS).await.unwrap();
        let (one, other) = join(handles[0].connect(ADDRESS), listener.accept()).await;
        Two {
            network: network.clone(),
            alive,
            handles,
            listener,
            one: one.unwrap(),
            other: other.unwrap(),
        }
    }

    fn cut(&self, both: bool) {
        let back = both.then_some((2, 1));
        self.network.partition([(1, 2)].into_iter().chain(back));
    }
}

fn number(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

/// Receives until nothing follows, or the link is broken; which of them.
async fn receive_all(receiver: &mut dyn LinkReceiver) -> (Vec<Bytes>, bool) {
    let mut received = Vec::new();
    loop {
        match receiver.receive().await {
            Ok(Some(frame)) => received.push(frame),
            Ok(None) => return (received, true),
            Err(_) => return (received, false),
        }
    }
}

async fn is_silent(receiver: &mut dyn LinkReceiver) -> bool {
    machine::timeout(HOUR, receiver.receive()).await.is_none()
}

fn is_prefix(received: &[Bytes]) -> bool {
    (0..).zip(received).all(|(i, frame)| *frame == number(i))
}

#[test]
fn frames_arrive_in_order_until_their_sender_is_dropped() {
    with_network(|network| async move {
        let Two { one, mut other, .. } = Two::new(&network).await;
        network.trouble(NetworkTrouble {
            latency: (Duration::ZERO, SECOND),
            ..NetworkTrouble::default()
        });
        let began = machine::now();
        let Link {
            mut sender,
            mut receiver,
            ..
        } = one;
        for i in 0..50 {
            sender.send(number(i)).await.unwrap();
        }
        assert_eq!(
            machine::elapsed(began),
            Duration::ZERO,
            "they are on their way"
        );
        drop(sender);
        let (received, is_whole) = receive_all(&mut *other.receiver).await;
        assert!(is_whole && is_prefix(&received) && received.len() == 50);
        assert!(machine::elapsed(began) > SECOND / 2);
        assert_eq!(other.receiver.receive().await.unwrap(), None, "once more");
        // The other direction goes on.
        other.sender.send(number(7)).await.unwrap();
        assert_eq!(receiver.receive().await.unwrap(), Some(number(7)));
        drop(receiver);
        machine::sleep(SECOND).await;
        other.sender.send(number(8)).await.unwrap();
        machine::sleep(3 * SECOND).await;
        assert!(
            other.sender.send(number(9)).await.is_err(),
            "nobody is there"
        );
    });
}

#[test]
fn a_receiver_that_takes_nothing_makes_the_sender_wait() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        let large = two.one.sender.send(vec![0; FRAME_BYTES_MAX + 1].into());
        assert!(large.await.is_err(), "too large");
        let half: Bytes = vec![1; 600_000].into();
        two.one.sender.send(half.clone()).await.unwrap();
        let other = async {
            machine::sleep(HOUR).await;
            two.other.receiver.receive().await.unwrap()
        };
        let began = machine::now();
        let (sent, received) = join(two.one.sender.send(half.clone()), other).await;
        assert!(sent.is_ok() && received == Some(half.clone()));
        assert!(machine::elapsed(began) >= HOUR);
        // A frame of which a part is on its way makes the link useless.
        let given_up = machine::timeout(SECOND, two.one.sender.send(half.clone())).await;
        assert!(given_up.is_none());
        machine::sleep(SECOND).await;
        assert!(two.one.sender.send(number(1)).await.is_err());
        assert!(two.other.sender.send(number(1)).await.is_err());
        let (received, is_whole) = receive_all(&mut *two.other.receiver).await;
        assert!(!is_whole && received.iter().all(|frame| *frame == half));
    });
}

#[test]
fn what_a_receive_that_was_given_up_did_not_take_is_there() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        let nothing = machine::timeout(SECOND, two.other.receiver.receive()).await;
        assert!(nothing.is_none());
        two.one.sender.send(number(0)).await.unwrap();
        let soon = machine::timeout(Duration::ZERO, two.other.receiver.receive()).await;
        assert!(soon.is_none());
        assert_eq!(two.other.receiver.receive().await.unwrap(), Some(number(0)));
    });
}

#[test]
fn of_a_link_that_breaks_the_last_frames_may_be_lost_and_no_others() {
    let mut lost = 0;
    for seed in 0..100 {
        let ((sent, received), _) = run(seed, |network| async move {
            let mut two = Two::new(&network).await;
            network.trouble(NetworkTrouble {
                latency: (Duration::ZERO, SECOND),
                breaks: 50,
                ..NetworkTrouble::default()
            });
            let sending = async {
                let mut sent = 0;
                while two.one.sender.send(number(sent)).await.is_ok() {
                    sent += 1;
                    machine::sleep(SECOND / 20).await;
                }
                sent
            };
            let (sent, (received, is_whole)) =
                join(sending, receive_all(&mut *two.other.receiver)).await;
            assert!(!is_whole && is_prefix(&received));
            assert!(two.one.receiver.receive().await.is_err());
            (sent, received.len() as u64)
        });
        assert!(received <= sent);
        lost += u64::from(received < sent);
    }
    assert!((20..=100).contains(&lost), "{lost}");
}

#[test]
fn a_process_that_is_killed_leaves_its_links() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        for i in 0..10 {
            two.other.sender.send(number(i)).await.unwrap();
        }
        let began = machine::now();
        let killing = async {
            two.alive[1].kill();
        };
        let ((received, _), ()) = join(receive_all(&mut *two.one.receiver), killing).await;
        assert!(is_prefix(&received) && machine::elapsed(began) < 11 * SECOND);
        // It does nothing any more.
        assert!(two.other.sender.send(number(11)).await.is_err());
        assert!(two.other.receiver.receive().await.is_err());
        assert!(two.listener.accept().await.is_err());
        assert!(two.handles[1].listen("n2:1").await.is_err());
        // Whoever sends is told.
        let _ = two.one.sender.send(number(0)).await;
        machine::sleep(11 * SECOND).await;
        assert!(two.one.sender.send(number(1)).await.is_err());
        let refused = two.handles[0].connect(ADDRESS).await.err().unwrap();
        assert_eq!(refused.message(), "connection refused");
        // Another process takes the place; what is left of the first does not matter to it.
        let handle = network.open(Alive::default(), 2);
        let mut listener = handle.listen(ADDRESS).await.unwrap();
        drop((two.other, two.listener));
        let (one, other) = join(two.handles[0].connect(ADDRESS), listener.accept()).await;
        one.unwrap().sender.send(number(5)).await.unwrap();
        let received = other.unwrap().receiver.receive().await.unwrap();
        assert_eq!(received, Some(number(5)));
        assert!(
            handle.listen(ADDRESS).await.is_err(),
            "somebody listens there"
        );
    });
}

#[test]
fn links_that_nobody_took_end_with_the_listener() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        let mut link = two.handles[0].connect(ADDRESS).await.unwrap();
        drop(two.listener);
        assert!(link.receiver.receive().await.is_err());
        assert!(two.handles[0].connect(ADDRESS).await.is_err());
        two.one.sender.send(number(0)).await.unwrap();
        let received = two.other.receiver.receive().await.unwrap();
        assert_eq!(received, Some(number(0)), "those that were taken go on");
        drop((link, two.one, two.other));
        assert!(network.0.state.lock().links.is_empty());
    });
}

#[test]
fn a_cut_that_is_short_delays() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        two.one.sender.send(number(0)).await.unwrap();
        two.cut(true);
        two.one.sender.send(number(1)).await.unwrap();
        two.other.sender.send(number(2)).await.unwrap();
        let soon = machine::timeout(SECOND / 2, two.other.receiver.receive()).await;
        assert!(soon.is_none(), "the first was under way");
        network.calm();
        for i in [0, 1] {
            assert_eq!(two.other.receiver.receive().await.unwrap(), Some(number(i)));
        }
        assert_eq!(two.one.receiver.receive().await.unwrap(), Some(number(2)));
        assert!(is_silent(&mut *two.one.receiver).await, "it goes on");
        two.one.sender.send(number(3)).await.unwrap();
        assert_eq!(two.other.receiver.receive().await.unwrap(), Some(number(3)));
    });
}

#[test]
fn who_sends_into_a_cut_gives_up_and_who_only_receives_sees_nothing() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        two.cut(true);
        assert!(is_silent(&mut *two.one.receiver).await, "nobody has sent");
        let began = machine::now();
        two.one.sender.send(number(0)).await.unwrap();
        let (received, is_whole) = receive_all(&mut *two.one.receiver).await;
        assert!(received.is_empty() && !is_whole);
        assert!((SECOND..11 * SECOND).contains(&machine::elapsed(began)));
        assert!(two.one.sender.send(number(1)).await.is_err());
        drop(two.one);
        assert!(is_silent(&mut *two.other.receiver).await);
        network.partition([]);
        let (received, is_whole) = receive_all(&mut *two.other.receiver).await;
        assert!(received.len() <= 1 && !is_whole);
    });
}

#[test]
fn a_sender_that_waits_for_room_gives_up_as_well() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        let large: Bytes = vec![1; 1 << 20].into();
        two.one.sender.send(large.clone()).await.unwrap();
        machine::sleep(SECOND).await;
        let cutting = async {
            machine::sleep(HOUR).await;
            network.partition([(1, 2)]);
        };
        let (sent, ()) = join(two.one.sender.send(large.clone()), cutting).await;
        assert!(sent.is_err());
        assert_eq!(
            two.other.receiver.receive().await.unwrap(),
            Some(large),
            "it had arrived"
        );
    });
}

#[test]
fn a_cut_of_one_direction_lets_the_other_through() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        two.cut(false);
        two.other.sender.send(number(1)).await.unwrap();
        assert_eq!(two.one.receiver.receive().await.unwrap(), Some(number(1)));
        two.one.sender.send(number(2)).await.unwrap();
        let (received, is_whole) = receive_all(&mut *two.other.receiver).await;
        assert!(
            received.is_empty() && !is_whole,
            "it has no sign of what it sent"
        );
        let (_, is_whole) = receive_all(&mut *two.one.receiver).await;
        assert!(!is_whole);
    });
}

#[test]
fn a_death_behind_a_cut_is_seen_when_it_is_over() {
    with_network(|network| async move {
        let mut two = Two::new(&network).await;
        two.cut(true);
        two.alive[1].kill();
        assert!(is_silent(&mut *two.one.receiver).await);
        let began = machine::now();
        network.calm();
        let (received, _) = receive_all(&mut *two.one.receiver).await;
        assert!(received.is_empty() && machine::elapsed(began) < SECOND);
    });
}

#[test]
fn a_connect_into_a_cut_hangs() {
    with_network(|network| async move {
        let Two { handles, .. } = Two::new(&network).await;
        let mut listener = handles[1].listen("n2:1").await.unwrap();
        network.partition([(2, 1)]);
        let began = machine::now();
        let failed = handles[0].connect("n2:1").await.err().unwrap();
        assert_eq!(failed.message(), "connection timed out");
        assert!(machine::elapsed(began) >= SECOND);
        let healing = async {
            machine::sleep(SECOND / 2).await;
            network.partition([(1, 3), (3, 1)]);
        };
        let connecting = join(handles[0].connect("n2:1"), listener.accept());
        let ((one, other), ()) = join(connecting, healing).await;
        assert!(one.is_ok() && other.is_ok());
    });
}

#[test]
fn connects_are_refused_and_hang_at_random() {
    with_network(|network| async move {
        let Two { handles, .. } = Two::new(&network).await;
        let _listener = handles[1].listen("n2:1").await.unwrap();
        let nobody = handles[0].connect("n9:1").await.err().unwrap();
        assert_eq!(nobody.message(), "connection refused");
        network.trouble(NetworkTrouble {
            refused: 300,
            hanging: 300,
            hanging_time: (SECOND, HOUR),
            ..NetworkTrouble::default()
        });
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            let began = machine::now();
            let connected = handles[0].connect("n2:1").await;
            let word = connected.err().map(|e| e.message().to_string());
            assert_eq!(
                word.as_deref() == Some("connection timed out"),
                machine::elapsed(began) >= SECOND
            );
            seen.insert(word);
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        network.calm();
        for _ in 0..50 {
            assert!(handles[0].connect("n2:1").await.is_ok());
        }
    });
}

/// Two that talk all the time, over links that break and cuts, and take new ones.
async fn busy(network: SimNetwork) -> u64 {
    let handles = [1, 2].map(|node| network.open(Alive::default(), node));
    let mut listener = handles[1].listen(ADDRESS).await.unwrap();
    machine::spawn(async move {
        while let Ok(Link {
            mut sender,
            mut receiver,
            ..
        }) = listener.accept().await
        {
            machine::spawn(async move {
                while let Ok(Some(frame)) = receiver.receive().await {
                    if sender.send(frame).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    network.trouble(NetworkTrouble {
        latency: (Duration::ZERO, SECOND / 10),
        breaks: 20,
        refused: 100,
        hanging: 100,
        hanging_time: (Duration::ZERO, SECOND),
    });
    let weather = network.clone();
    machine::spawn(async move {
        loop {
            machine::sleep(5 * SECOND).await;
            weather.partition([(1, 2)]);
            machine::sleep(5 * SECOND).await;
            weather.partition([]);
        }
    });
    let began = machine::now();
    let mut answers = 0;
    while machine::elapsed(began) < 100 * SECOND {
        let Ok(mut link) = handles[0].connect(ADDRESS).await else {
            continue;
        };
        while link.sender.send(number(answers)).await.is_ok() {
            match link.receiver.receive().await {
                Ok(Some(frame)) => assert_eq!(frame, number(answers)),
                _ => break,
            }
            answers += 1;
        }
    }
    answers
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let first = run(seed, busy);
        assert_eq!(first, run(seed, busy));
        assert_ne!(first, run(seed + 1, busy));
        assert!(first.0 > 100, "{first:?}");
    }
}
