//! The store against one in memory, and what kills, giving up and trouble leave.

use super::super::testing::{TestMachine, simulated};
use super::*;
use futures::FutureExt;
use tidemark_common::machine::block_on;
use tidemark_state::object_store::memory::InMemory;
use tidemark_state::object_store::{GetRange, ObjectStoreExt};

const SECOND: Duration = Duration::from_secs(1);

/// A store in a test, and a process that uses it.
fn with_store<T>(test: impl FnOnce(&TestMachine, &SimStore, &dyn ObjectStore) -> T) -> T {
    simulated(|machine| {
        let store = SimStore::new(Dice::new(1));
        let handle = store.open(Alive::default());
        test(machine, &store, handle.as_ref())
    })
}

fn path(name: &str) -> Path {
    Path::from(name)
}

fn put(store: &dyn ObjectStore, name: &str, bytes: &str, mode: PutMode) -> Result<PutResult> {
    let (path, bytes) = (path(name), Bytes::from(bytes.to_string()));
    block_on(store.put_opts(&path, bytes.into(), mode.into()))
}

fn create(store: &dyn ObjectStore, name: &str, bytes: &str) -> Result<PutResult> {
    put(store, name, bytes, PutMode::Create)
}

fn get(store: &dyn ObjectStore, name: &str) -> Result<Bytes> {
    block_on(async { store.get(&path(name)).await?.bytes().await })
}

fn list(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<String>> {
    let prefix = path(prefix);
    let listed = store.list(Some(&prefix));
    block_on(listed.map_ok(|meta| meta.location.into()).try_collect())
}

/// What kind of error it is.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "not found",
        Error::AlreadyExists { .. } => "already exists",
        Error::Precondition { .. } => "precondition",
        Error::NotImplemented { .. } => "not implemented",
        _ => "generic",
    }
}

fn told<T>(result: Result<T>, tell: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|e| kind(&e).into(), tell)
}

fn tell_metas(metas: Vec<ObjectMeta>) -> String {
    let metas = metas.into_iter();
    let metas: Vec<_> = metas
        .map(|m| format!("{} {}", m.location, m.size))
        .collect();
    metas.join(", ")
}

/// Takes a random step; tells what came of it.
async fn step(store: &dyn ObjectStore, dice: &Dice) -> String {
    let name = || path(dice.pick(&["a", "a/b", "a/b/c", "a/b/d", "a/bc", "a-b", "b/a", "b/c/d"]));
    let prefix = Some(path(dice.pick(&["", "a", "a/b", "b", "c"]))).filter(|_| dice.chance(900));
    let (object, other) = (name(), name());
    let bytes = vec![b'x'; dice.below(9) as usize];
    let mode = dice.pick(&[PutMode::Overwrite, PutMode::Create, PutMode::Create]);
    match dice.below(9) {
        0..3 => {
            let put = store.put_opts(&object, bytes.into(), mode.into()).await;
            told(put, |_| "put".into())
        }
        3 => {
            let (from, to) = (dice.below(8), dice.below(10));
            let range = dice.pick(&[
                None,
                Some(GetRange::Bounded(from..to)),
                Some(GetRange::Offset(from)),
                Some(GetRange::Suffix(to)),
            ]);
            let options = GetOptions::new().with_range(range);
            let got = async {
                let got = store.get_opts(&object, options).await?;
                let range = got.range.clone();
                Ok((range, got.meta.size, got.bytes().await?))
            };
            told(got.await, |got| format!("{got:?}"))
        }
        4 => {
            let locations = stream::iter([Ok(object), Ok(other)]).boxed();
            let deleted: Result<Vec<Path>> = store.delete_stream(locations).try_collect().await;
            told(deleted, |paths| format!("{paths:?}"))
        }
        5 => {
            let listed: Result<Vec<_>> = store.list(prefix.as_ref()).try_collect().await;
            told(listed, tell_metas)
        }
        6 => {
            let listed = store.list_with_delimiter(prefix.as_ref()).await;
            told(listed, |listed| {
                let folders = listed.common_prefixes;
                format!("{folders:?} {}", tell_metas(listed.objects))
            })
        }
        7 => {
            let listed = store.list_with_offset(prefix.as_ref(), &other);
            told(listed.try_collect().await, tell_metas)
        }
        _ if dice.chance(500) => {
            let copied = store.copy_if_not_exists(&object, &other).await;
            told(copied, |()| "copied".into())
        }
        _ => told(store.head(&object).await, |meta| tell_metas(vec![meta])),
    }
}

#[test]
fn without_trouble_it_is_as_one_in_memory() {
    simulated(|_| {
        for seed in 0..200 {
            let ours = SimStore::new(Dice::new(seed)).open(Alive::default());
            let other = InMemory::new();
            let (dice, same) = (Dice::new(seed), Dice::new(seed));
            for number in 0..100 {
                let here = block_on(step(ours.as_ref(), &dice));
                let there = block_on(step(&other, &same));
                assert_eq!(here, there, "seed {seed}, step {number}");
            }
        }
    });
}

#[test]
fn tags_tell_versions_apart() {
    with_store(|_, _, store| {
        let first = create(store, "a", "1").unwrap();
        let second = put(store, "a", "2", PutMode::Overwrite).unwrap();
        assert_ne!(first.e_tag, second.e_tag);
        let get = |tag: Option<String>| {
            let options = GetOptions::new().with_if_match(tag);
            block_on(store.get_opts(&path("a"), options)).map(|got| got.meta.e_tag)
        };
        assert_eq!(kind(&get(first.e_tag).unwrap_err()), "precondition");
        assert_eq!(get(second.e_tag.clone()).unwrap(), second.e_tag);
        let update = put(store, "a", "3", PutMode::Update(second.into()));
        assert_eq!(kind(&update.unwrap_err()), "not implemented");
        assert!(block_on(store.put_multipart(&path("a"))).is_err());
    });
}

#[test]
fn it_outlives_its_processes_and_the_dead_reach_it_no_more() {
    with_store(|_, store, other| {
        let alive = Alive::default();
        let handle = store.open(alive.clone());
        create(handle.as_ref(), "a/b", "1").unwrap();
        alive.kill();
        create(handle.as_ref(), "a/c", "1").unwrap_err();
        get(handle.as_ref(), "a/b").unwrap_err();
        list(handle.as_ref(), "a").unwrap_err();
        block_on(handle.delete(&path("a/b"))).unwrap_err();
        block_on(handle.list_with_delimiter(None)).unwrap_err();
        assert_eq!(get(other, "a/b").unwrap(), "1");
        assert_eq!(store.names(), ["a/b"]);
        assert_eq!(store.bytes("a/b").unwrap(), "1");
        assert_eq!(store.bytes("a"), None);
    });
}

#[test]
fn a_kill_cuts_a_request_before_its_effect_or_after_it() {
    with_store(|machine, store, _| {
        store.trouble(StoreTrouble {
            requests: (SECOND, SECOND),
            answers: (SECOND, 2 * SECOND),
            ..StoreTrouble::default()
        });
        let dies = |name: &str, sleeps: u32| {
            let alive = Alive::default();
            let handle = store.open(alive.clone());
            let (later, kill) = (machine.clone(), move || alive.kill());
            match sleeps {
                0 => machine.meanwhile(kill),
                _ => machine.meanwhile(move || later.meanwhile(kill)),
            }
            create(handle.as_ref(), name, "1").unwrap_err();
        };
        dies("before", 0);
        assert_eq!(machine.time(), SECOND);
        assert!(store.names().is_empty());
        dies("after", 1);
        assert!((3 * SECOND..=4 * SECOND).contains(&machine.time()));
        assert_eq!(store.names(), ["after"]);
    });
}

#[test]
fn requests_fail_or_their_answers_are_lost() {
    with_store(|_, store, handle| {
        create(handle, "there", "1").unwrap();
        store.trouble(StoreTrouble {
            failing: 1000,
            ..StoreTrouble::default()
        });
        assert_eq!(kind(&create(handle, "a", "1").unwrap_err()), "generic");
        assert_eq!(kind(&get(handle, "there").unwrap_err()), "generic");
        assert_eq!(kind(&list(handle, "").unwrap_err()), "generic");
        block_on(handle.delete(&path("there"))).unwrap_err();
        assert_eq!(store.names(), ["there"]);
        store.trouble(StoreTrouble {
            lost_answers: 1000,
            ..StoreTrouble::default()
        });
        assert_eq!(kind(&create(handle, "a", "1").unwrap_err()), "generic");
        // Also that it is there already is not told.
        assert_eq!(kind(&create(handle, "a", "1").unwrap_err()), "generic");
        block_on(handle.delete(&path("there"))).unwrap_err();
        assert_eq!(store.names(), ["a"]);
        store.trouble(StoreTrouble {
            away: true,
            ..StoreTrouble::default()
        });
        assert_eq!(kind(&create(handle, "b", "1").unwrap_err()), "generic");
        assert_eq!(kind(&get(handle, "a").unwrap_err()), "generic");
        store.calm();
        assert_eq!(
            kind(&create(handle, "a", "2").unwrap_err()),
            "already exists"
        );
        assert_eq!(get(handle, "a").unwrap(), "1");
    });
}

#[test]
fn the_bytes_of_an_object_may_not_come() {
    with_store(|_, store, handle| {
        create(handle, "a", "1").unwrap();
        store.trouble(StoreTrouble {
            failing: 300,
            ..StoreTrouble::default()
        });
        let begun = (0..100).filter_map(|_| block_on(handle.get(&path("a"))).ok());
        let bytes: Vec<_> = begun.map(|got| block_on(got.bytes())).collect();
        let came = bytes.iter().filter(|bytes| bytes.is_ok()).count();
        assert!(0 < came && came < bytes.len(), "{came}");
    });
}

#[test]
fn a_store_that_goes_away_meanwhile_answers_nothing() {
    with_store(|machine, store, handle| {
        store.trouble(StoreTrouble {
            answers: (SECOND, SECOND),
            ..StoreTrouble::default()
        });
        let goes = store.clone();
        machine.meanwhile(move || {
            goes.trouble(StoreTrouble {
                away: true,
                ..StoreTrouble::default()
            });
        });
        create(handle, "a", "1").unwrap_err();
        assert_eq!(store.names(), ["a"]);
    });
}

#[test]
fn listings_are_late_for_a_while_and_nothing_else_is() {
    with_store(|machine, store, handle| {
        create(handle, "l/a", "1").unwrap();
        create(handle, "l/d", "1").unwrap();
        store.trouble(StoreTrouble {
            late_listings: 1000,
            listing_time: SECOND,
            ..StoreTrouble::default()
        });
        block_on(handle.delete(&path("l/a"))).unwrap();
        create(handle, "l/b", "1").unwrap();
        put(handle, "l/d", "1234", PutMode::Overwrite).unwrap();
        let pass = |time| block_on(machine::sleep(time));
        let sizes = || {
            let listed = block_on(handle.list_with_delimiter(Some(&path("l")))).unwrap();
            tell_metas(listed.objects)
        };
        assert_eq!(list(handle, "l").unwrap(), ["l/a", "l/d"]);
        assert_eq!(sizes(), "l/a 1, l/d 1");
        assert_eq!(kind(&get(handle, "l/a").unwrap_err()), "not found");
        assert_eq!(get(handle, "l/b").unwrap(), "1");
        assert_eq!(
            kind(&create(handle, "l/b", "1").unwrap_err()),
            "already exists"
        );
        // One that is made again meanwhile is shown as it was; the first delay holds.
        create(handle, "l/a", "12").unwrap();
        assert_eq!(sizes(), "l/a 1, l/d 1");
        pass(SECOND);
        assert_eq!(sizes(), "l/a 2, l/b 1, l/d 4");
        block_on(handle.delete(&path("l/b"))).unwrap();
        assert_eq!(list(handle, "l").unwrap(), ["l/a", "l/b", "l/d"]);
        assert_eq!(machine.time(), SECOND);
        store.calm();
        assert_eq!(list(handle, "l").unwrap(), ["l/a", "l/d"]);
    });
}

#[test]
fn what_nobody_waits_for_any_more_may_arrive() {
    let slow = |stragglers| StoreTrouble {
        requests: (SECOND, SECOND),
        stragglers,
        straggler_time: SECOND,
        ..StoreTrouble::default()
    };
    with_store(|_, store, handle| {
        create(handle, "b", "1").unwrap();
        let give_up = |stragglers| {
            store.trouble(slow(stragglers));
            let (a, b) = (path("a"), path("b"));
            let create = handle.put_opts(&a, "1".into(), PutMode::Create.into());
            assert!(create.now_or_never().is_none());
            assert!(handle.delete(&b).now_or_never().is_none());
        };
        give_up(0);
        block_on(machine::sleep(2 * SECOND));
        assert_eq!(store.names(), ["b"]);
        give_up(1000);
        assert_eq!(store.names(), ["b"]);
        block_on(machine::sleep(2 * SECOND));
        assert_eq!(store.names(), ["a"]);
        // One that arrives after all finds what is there then.
        create(handle, "b", "2").unwrap();
        give_up(1000);
        store.calm();
        block_on(machine::sleep(2 * SECOND));
        assert_eq!(store.names(), ["a", "b"]);
    });
    // What a process sent before it was killed is under way.
    with_store(|machine, store, _| {
        store.trouble(slow(1000));
        let alive = Alive::default();
        let handle = store.open(alive.clone());
        machine.meanwhile(move || alive.kill());
        create(handle.as_ref(), "a", "1").unwrap_err();
        block_on(machine::sleep(SECOND));
        assert_eq!(store.names(), ["a"]);
    });
}

#[test]
fn a_long_listing_comes_in_pages() {
    with_store(|machine, store, handle| {
        let name = |i| format!("p/{i:03}");
        for i in 0..2 * PAGE {
            create(handle, &name(i), "").unwrap();
        }
        create(handle, "q", "").unwrap();
        store.trouble(StoreTrouble {
            answers: (SECOND, SECOND),
            ..StoreTrouble::default()
        });
        // While the first page is on its way, what it shows and what the next one will is deleted.
        let (other, deletes) = (store.clone(), [name(0), name(2 * PAGE - 1)]);
        machine.meanwhile(move || {
            let state = &mut *other.0.state.lock();
            for name in deletes {
                state.objects.remove(&path(&name));
            }
        });
        let listed = list(handle, "p").unwrap();
        assert_eq!(listed, (0..2 * PAGE - 1).map(name).collect::<Vec<_>>());
        assert_eq!(machine.time(), 2 * SECOND);
    });
}

#[test]
fn the_same_seed_goes_the_same_way() {
    let run = |seed| {
        simulated(|machine| {
            let store = SimStore::new(Dice::new(seed));
            store.trouble(StoreTrouble {
                requests: (Duration::ZERO, SECOND),
                answers: (Duration::ZERO, SECOND),
                failing: 100,
                lost_answers: 100,
                late_listings: 200,
                listing_time: 5 * SECOND,
                ..StoreTrouble::default()
            });
            let (handle, dice) = (store.open(Alive::default()), Dice::new(seed));
            let told: Vec<String> = (0..100)
                .map(|_| block_on(step(handle.as_ref(), &dice)))
                .collect();
            (told, store.names(), machine.time())
        })
    };
    assert!((0..50).all(|seed| run(seed) == run(seed)));
    assert_ne!(run(1), run(2));
}
