//! The disk against a real one, and what power losses, kills and trouble leave over many seeds.

use super::super::testing::simulated;
use super::*;
use std::collections::BTreeSet;
use tidemark_common::disk::LocalDisk;

const FOLDER: &str = "/data/log";

fn at(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// A disk with the folder, and a process on it.
fn disk(seed: u64) -> (SimDisk, Arc<dyn Disk>) {
    let disk = SimDisk::new(Dice::new(seed));
    let handle = disk.open(Alive::default());
    handle.create_folder(Path::new(FOLDER)).unwrap();
    (disk, handle)
}

/// Writes a file from its beginning; `synced` with its name.
fn put(disk: &dyn Disk, name: &str, bytes: &[u8], synced: bool) -> Box<dyn DiskFile> {
    let mut file = disk.open(&at(name)).unwrap();
    file.write_at(0, bytes).unwrap();
    if synced {
        file.sync().unwrap();
        disk.sync_folder(Path::new(FOLDER)).unwrap();
    }
    file
}

/// What is found after a power loss, over many seeds.
fn outcomes<T: Ord>(of: impl Fn(&SimDisk, &dyn Disk) -> T) -> BTreeSet<T> {
    let seeds = (0..200).map(|seed| {
        let (disk, handle) = disk(seed);
        of(&disk, handle.as_ref())
    });
    seeds.collect()
}

/// Takes a random step; tells what came of it.
fn step(disk: &dyn Disk, root: &Path, dice: &Dice) -> String {
    let folder = root.join(dice.pick(&["", "a", "a/b", "c"]));
    let [path, other] = [(); 2].map(|()| folder.join(dice.pick(&["x", "y", "a", "z/u"])));
    let told = |result: Result<String>| match result {
        Ok(text) => text,
        Err(e) => format!("{:?}", e.kind()),
    };
    let bytes = vec![b'a' + dice.below(26) as u8; dice.below(20) as usize];
    let offset = dice.below(30);
    let done = |result: Result<()>| told(result.map(|()| "done".into()));
    match dice.below(10) {
        0 => done(disk.create_folder(&folder)),
        1 => told(disk.list(&folder).map(|mut names| {
            names.sort();
            names.join(" ")
        })),
        2 => told(disk.read(&path).map(|bytes| format!("{bytes:?}"))),
        3 => told(
            disk.read_at(&path, offset, 1 + bytes.len())
                .map(|bytes| format!("{bytes:?}")),
        ),
        4 | 5 => done(disk.open(&path).and_then(|mut file| {
            file.write_at(offset, &bytes)?;
            file.sync()
        })),
        6 => done(disk.open(&path).and_then(|mut file| file.truncate(offset))),
        7 => done(disk.remove(&path)),
        // A file that is synced as a folder, and moved folders, are not in the contract.
        8 if disk.read(&folder).is_ok() => String::new(),
        8 if dice.chance(500) => done(disk.sync_folder(&folder)),
        8 => {
            let first = disk.lock(&path);
            let second = done(disk.lock(&path).map(drop));
            format!("{} {second}", done(first.map(drop)))
        }
        _ if disk.list(&path).is_ok() => String::new(),
        _ => done(disk.rename(&path, &other)),
    }
}

#[test]
fn without_trouble_it_is_as_a_real_one() {
    for seed in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let sim = SimDisk::new(Dice::new(seed)).open(Alive::default());
        sim.create_folder(folder.path()).unwrap();
        let (dice, same) = (Dice::new(seed), Dice::new(seed));
        for number in 0..60 {
            let here = step(sim.as_ref(), folder.path(), &dice);
            let there = step(&LocalDisk, folder.path(), &same);
            assert_eq!(here, there, "seed {seed}, step {number}");
        }
    }
}

#[test]
fn what_was_synced_is_there_and_of_the_rest_any_part() {
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", &[b'a'; 100], true);
        file.write_at(50, &[b'b'; 100]).unwrap();
        disk.power_loss();
        let bytes = disk.bytes(&at("x")).unwrap();
        assert!(bytes[..50].iter().all(|b| *b == b'a'));
        assert!(bytes[50..].iter().all(|b| b"ab\0".contains(b)));
        assert!((100..=150).contains(&bytes.len()));
        let counts = |b: u8| bytes.iter().filter(|x| **x == b).count();
        (counts(b'b'), counts(0), bytes.len())
    });
    assert!(found.contains(&(0, 0, 100)), "nothing of it");
    assert!(found.contains(&(100, 0, 150)), "all of it");
    assert!(found.contains(&(0, 50, 150)), "the length alone");
    assert!(found.len() > 20, "torn: {found:?}");
}

#[test]
fn later_writes_may_come_before_earlier_ones() {
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", b"..", true);
        file.write_at(0, b"a").unwrap();
        file.write_at(1, b"b").unwrap();
        file.truncate(1).unwrap();
        disk.power_loss();
        disk.bytes(&at("x")).unwrap()
    });
    let all = [&b".."[..], b"a.", b".b", b"ab", b".", b"a"];
    assert_eq!(found, all.map(<[u8]>::to_vec).into());
}

#[test]
fn names_come_and_go_with_the_sync_of_their_folder() {
    let found = outcomes(|disk, handle| {
        put(handle, "kept", b"k", true);
        put(handle, "removed", b"r", true);
        put(handle, "made", b"m", false);
        handle.remove(&at("removed")).unwrap();
        disk.power_loss();
        assert_eq!(disk.bytes(&at("kept")).unwrap(), b"k");
        let removed = disk.bytes(&at("removed"));
        assert!(removed.as_ref().is_none_or(|bytes| bytes == b"r"));
        (disk.bytes(&at("made")).is_some(), removed.is_some())
    });
    assert_eq!(found.len(), 4);
    let found = outcomes(|disk, handle| {
        put(handle, "removed", b"r", true);
        put(handle, "made", b"m", false);
        handle.remove(&at("removed")).unwrap();
        handle.sync_folder(Path::new(FOLDER)).unwrap();
        disk.power_loss();
        disk.names()
    });
    assert_eq!(found, [vec![at("made")]].into());
}

#[test]
fn of_a_rename_one_of_the_names_is_always_there() {
    let look = |disk: &SimDisk| ["old", "new"].map(|name| disk.bytes(&at(name)));
    let (old, new) = (|| Some(b"o".to_vec()), || Some(b"n".to_vec()));
    let found = outcomes(|disk, handle| {
        put(handle, "new", b"o", true);
        put(handle, "old", b"n", true);
        handle.rename(&at("old"), &at("new")).unwrap();
        assert_eq!(look(disk), [None, new()]);
        disk.power_loss();
        look(disk)
    });
    assert_eq!(
        found,
        [[new(), old()], [new(), new()], [None, new()]].into()
    );
    let found = outcomes(|disk, handle| {
        put(handle, "new", b"o", true);
        put(handle, "old", b"n", true);
        let before = handle.identity(&at("old")).unwrap();
        handle.rename(&at("old"), &at("new")).unwrap();
        assert_eq!(handle.identity(&at("new")).unwrap(), before);
        handle.sync_folder(Path::new(FOLDER)).unwrap();
        disk.power_loss();
        look(disk)
    });
    assert_eq!(found, [[None, new()]].into());
}

#[test]
fn a_folder_that_was_not_synced_goes_with_all_that_is_in_it() {
    let found = outcomes(|disk, handle| {
        // It ends before the folder is synced into the one above it.
        let dies = Alive::default();
        let dying = disk.open(dies.clone());
        let syncs = (Duration::from_secs(1), Duration::from_secs(1));
        disk.trouble(DiskTrouble {
            syncs,
            ..DiskTrouble::default()
        });
        simulated(|machine| {
            machine.meanwhile(move || dies.kill());
            dying.create_folder(&at("inner")).unwrap_err();
        });
        disk.calm();
        let path = at("inner/x");
        handle.open(&path).unwrap().sync().unwrap();
        handle.sync_folder(&at("inner")).unwrap();
        if disk.0.dice.chance(500) {
            handle.create_folder(&at("inner")).unwrap();
            disk.power_loss();
            assert!(disk.bytes(&path).is_some());
            return None;
        }
        disk.power_loss();
        let again = disk.open(Alive::default());
        let is_there = again.list(&at("inner")).is_ok();
        assert_eq!(disk.bytes(&path).is_some(), is_there);
        Some(is_there)
    });
    assert_eq!(found, [None, Some(false), Some(true)].into());
}

#[test]
fn a_kill_loses_nothing_and_ends_the_process_alone() {
    let (disk, other) = disk(1);
    let alive = Alive::default();
    let handle = disk.open(alive.clone());
    let mut file = put(handle.as_ref(), "x", b"abc", false);
    file.truncate(2).unwrap();
    handle.remove(&at("x")).unwrap();
    let mut file = put(handle.as_ref(), "y", b"abc", false);
    alive.kill();
    file.write_at(0, b"z").unwrap_err();
    file.truncate(0).unwrap_err();
    file.sync().unwrap_err();
    handle.open(&at("z")).err().unwrap();
    handle.remove(&at("y")).unwrap_err();
    handle.rename(&at("y"), &at("z")).unwrap_err();
    handle.lock(&at("z")).err().unwrap();
    handle.create_folder(&at("z")).unwrap_err();
    handle.sync_folder(Path::new(FOLDER)).unwrap_err();
    for error in [
        handle.read(&at("y")).unwrap_err(),
        handle.read_at(&at("y"), 0, 1).unwrap_err(),
        handle.list(Path::new(FOLDER)).map(drop).unwrap_err(),
        handle.identity(&at("y")).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Other);
    }
    assert_eq!(disk.names(), [at("y")]);
    assert_eq!(other.read(&at("y")).unwrap(), b"abc");
    // A power loss ends all.
    disk.power_loss();
    other.list(Path::new(FOLDER)).unwrap_err();
    disk.open(Alive::default()).list(Path::new(FOLDER)).unwrap();
}

#[test]
fn a_lock_ends_when_it_is_dropped_or_its_process_dies() {
    let (disk, first) = disk(1);
    let alive = Alive::default();
    let second = disk.open(alive.clone());
    let is_held = |by: &Arc<dyn Disk>| match by.lock(&at("LOCK")) {
        Ok(_) => false,
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    };
    let held = first.lock(&at("LOCK")).unwrap();
    assert!(is_held(&first) && is_held(&second));
    assert_eq!(disk.names(), [at("LOCK")]);
    drop(held);
    let left = second.lock(&at("LOCK")).unwrap();
    assert!(is_held(&first));
    alive.kill();
    let held = first.lock(&at("LOCK")).unwrap();
    // What the dead one held is of no meaning any more.
    drop(left);
    assert!(is_held(&first));
    disk.power_loss();
    let third = disk.open(Alive::default());
    third.sync_folder(Path::new(FOLDER)).unwrap();
    let _again = third.lock(&at("LOCK")).unwrap();
    drop(held);
    assert!(is_held(&third));
}

#[test]
fn a_full_disk_takes_a_part_and_gives_room_back() {
    let full = DiskTrouble {
        full: true,
        ..DiskTrouble::default()
    };
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", b"ab", true);
        file.write_at(2, b"c").unwrap();
        disk.trouble(full);
        let error = file.write_at(3, b"defg").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::StorageFull);
        let error = handle.open(&at("y")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        handle.create_folder(&at("z")).unwrap_err();
        let written = handle.read(&at("x")).unwrap();
        assert!(b"abcdefg".starts_with(&written) && written.len() >= 3);
        file.truncate(1).unwrap();
        file.sync().unwrap_err();
        // It was all said to be clean.
        file.sync().unwrap();
        handle.remove(&at("x")).unwrap();
        disk.calm();
        put(handle, "x", b"abc", true);
        written.len()
    });
    assert_eq!(found, (3..7).collect());
}

#[test]
fn what_a_failed_sync_did_not_write_no_later_one_does() {
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", b"a", true);
        file.write_at(0, b"b").unwrap();
        disk.trouble(DiskTrouble {
            failing: 1000,
            ..DiskTrouble::default()
        });
        file.sync().unwrap_err();
        file.write_at(1, b"").unwrap_err();
        handle.open(&at("x")).err().unwrap();
        handle.remove(&at("x")).unwrap_err();
        disk.trouble(DiskTrouble {
            failing_reads: 1000,
            ..DiskTrouble::default()
        });
        handle.read(&at("x")).unwrap_err();
        handle.list(Path::new(FOLDER)).unwrap_err();
        disk.calm();
        assert_eq!(handle.read(&at("x")).unwrap(), b"b");
        file.write_at(1, b"c").unwrap();
        file.sync().unwrap();
        disk.power_loss();
        disk.bytes(&at("x")).unwrap()
    });
    assert_eq!(found, [b"ac".to_vec(), b"bc".to_vec()].into());
}

#[test]
fn a_sync_takes_time_and_covers_what_was_written_before_it() {
    let second = Duration::from_secs(1);
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", b"a", true);
        file.write_at(0, b"b").unwrap();
        disk.trouble(DiskTrouble {
            syncs: (second, 2 * second),
            ..DiskTrouble::default()
        });
        simulated(|machine| {
            let mut other = handle.open(&at("x")).unwrap();
            machine.meanwhile(move || other.write_at(1, b"c").unwrap());
            file.sync().unwrap();
            assert!((second..=2 * second).contains(&machine.time()));
        });
        disk.power_loss();
        disk.bytes(&at("x")).unwrap()
    });
    let all = [&b"b"[..], b"b\0", b"bc"];
    assert_eq!(found, all.map(<[u8]>::to_vec).into());
    // The power fails meanwhile, and nothing was promised.
    let found = outcomes(|disk, handle| {
        let mut file = put(handle, "x", b"a", true);
        file.write_at(0, b"b").unwrap();
        disk.trouble(DiskTrouble {
            syncs: (second, second),
            ..DiskTrouble::default()
        });
        simulated(|machine| {
            let fails = disk.clone();
            machine.meanwhile(move || fails.power_loss());
            file.sync().unwrap_err();
        });
        disk.bytes(&at("x")).unwrap()
    });
    assert_eq!(found, [b"a".to_vec(), b"b".to_vec()].into());
}

#[test]
fn who_is_killed_while_it_writes_has_written_a_part() {
    let found = outcomes(|disk, _| {
        let alive = Alive::default();
        let handle = disk.open(alive.clone());
        let mut file = handle.open(&at("x")).unwrap();
        disk.trouble(DiskTrouble {
            writes: (Duration::from_millis(1), Duration::from_millis(2)),
            ..DiskTrouble::default()
        });
        simulated(|machine| {
            file.write_at(0, b"ab").unwrap();
            machine.meanwhile(move || alive.kill());
            file.write_at(2, b"cd").unwrap_err();
        });
        disk.bytes(&at("x")).unwrap()
    });
    let all = [&b"ab"[..], b"abc"];
    assert_eq!(found, all.map(<[u8]>::to_vec).into());
}

#[test]
fn the_same_seed_leaves_the_same() {
    let run = |seed| {
        let (disk, handle) = disk(seed);
        let steps = Dice::new(seed);
        let root = Path::new(FOLDER);
        let told: Vec<String> = (0..200)
            .map(|_| step(handle.as_ref(), root, &steps))
            .collect();
        disk.power_loss();
        let files = disk.names().into_iter();
        let files: Vec<_> = files.map(|path| (disk.bytes(&path), path)).collect();
        (told, files)
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
}
