//! Every bit, every length, every file: either all that was acknowledged is there, or an error
//! names the file and where in it, and putting the file back repairs it.

use super::*;

/// A log with small entries in one segment, some appended together.
fn small() -> (LossyDisk, u64) {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.append(&[opened(1)]).unwrap();
    log.append(&[cut(1, 2), cut(2, 1), opened(2)]).unwrap();
    log.append(&[opened(3)]).unwrap();
    (disk, 3)
}

/// Three segments of many small entries.
fn many() -> (LossyDisk, u64) {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    for entry in 1..=90 {
        log.append(&[opened(entry)]).unwrap();
        if entry % 30 == 0 && entry < 90 {
            log.roll(entry + 1, entry).unwrap();
        }
    }
    (disk, 90)
}

/// Three segments, and a cut whose rows are an object.
fn several() -> (LossyDisk, u64) {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    for epoch in 1..=9 {
        log.append(&[cut(epoch, 1)]).unwrap();
        if epoch % 3 == 0 {
            log.roll(epoch + 1, epoch).unwrap();
        }
    }
    log.append(&[cut(10, 1_000)]).unwrap();
    log.append(&[cut(11, 1)]).unwrap();
    (disk, 11)
}

/// One large frame, inline, and a small one behind it.
fn large() -> (LossyDisk, u64) {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.encoder.inline_bytes_max = INLINE_BYTES_MAX;
    log.append(&[opened(1)]).unwrap();
    log.append(&[cut(1, 250_000)]).unwrap();
    log.append(&[cut(2, 1)]).unwrap();
    (disk, 3)
}

/// Opens a copy of the disk on which `path` has other bytes. All entries are there, or the error
/// names the file; with the right bytes it opens.
fn check(disk: &LossyDisk, last: u64, path: &Path, bytes: Option<&[u8]>, what: &str) {
    let right = disk.read(path).unwrap();
    let copy = disk.copy();
    copy.put(path, bytes);
    match open(&copy) {
        // Only a checkpoint can say whether entries in front of all others are needed: recovery
        // compares.
        Ok(opened) if opened.follows > 0 => {
            assert_eq!(opened.entries[0].0, opened.follows + 1, "{what}");
            assert_eq!(opened.entries.len() as u64, last - opened.follows, "{what}");
        }
        Ok(opened) => {
            let (index, _) = opened.entries.last().unwrap();
            assert_eq!(*index, last, "{} {what}", path.display());
            let written = rows(&opened.entries);
            assert_eq!(written, rows(&open(&disk.copy()).unwrap().entries));
        }
        Err(error) => {
            let name = path.file_name().unwrap().to_str().unwrap();
            let message = error.message();
            assert!(
                message.contains(name),
                "{} {what}: {message}",
                path.display()
            );
            let place = message.contains("byte") || message.contains("is missing");
            assert!(place, "{} {what}: {message}", path.display());
            assert!(error.hint().is_some(), "{message}");
            copy.put(path, Some(&right));
            let opened = open(&copy).unwrap();
            assert_eq!(opened.entries.last().unwrap().0, last, "put back: {what}");
        }
    }
}

fn flip(disk: &LossyDisk, last: u64, path: &Path, at: usize, bit: u8) {
    let mut bytes = disk.read(path).unwrap();
    bytes[at] ^= 1 << bit;
    let what = format!("bit {bit} of byte {at}");
    check(disk, last, path, Some(&bytes), &what);
}

fn cut_off(disk: &LossyDisk, last: u64, path: &Path, length: usize) {
    let bytes = disk.read(path).unwrap();
    let what = format!("cut to {length} bytes");
    check(disk, last, path, Some(&bytes[..length]), &what);
}

#[test]
fn every_bit_and_every_length_of_a_small_log() {
    let (disk, last) = small();
    for path in disk.paths() {
        let length = disk.read(&path).unwrap().len();
        for at in 0..length {
            for bit in 0..8 {
                // Most of the mark's pages is empty.
                if at % 4096 < 64 || length < 4096 {
                    flip(&disk, last, &path, at, bit);
                }
            }
            if at % 4096 < 64 || length < 4096 {
                cut_off(&disk, last, &path, at);
            }
        }
    }
}

#[test]
fn every_byte_and_every_length_of_many_frames_in_several_segments() {
    let (disk, last) = many();
    for path in disk.paths().into_iter().filter(|p| p.starts_with(folder())) {
        let length = disk.read(&path).unwrap().len();
        for at in 0..length {
            flip(&disk, last, &path, at, (at % 8) as u8);
            cut_off(&disk, last, &path, at);
        }
    }
}

/// After a power loss the mark may be an old one. Damage that a later append stands behind is known
/// all the same; at the very end it cannot be told from an append that never returned.
#[test]
fn a_later_append_makes_up_for_an_old_mark() {
    let disk = LossyDisk::default();
    let mut log = open(&disk).unwrap().log;
    log.encoder.inline_bytes_max = INLINE_BYTES_MAX;
    log.append(&[opened(1)]).unwrap();
    let mark = disk.read(&mark::path(folder())).unwrap();
    log.append(&[cut(1, 200_000)]).unwrap();
    let behind = log.file_bytes as usize;
    log.append(&[opened(2), opened(3)]).unwrap();
    drop(log);
    disk.put(&mark::path(folder()), Some(&mark));
    let path = segment_path(folder(), 1);
    let bytes = disk.read(&path).unwrap();
    // In the header of the large frame, and deep in its payload.
    for at in [150, behind / 2, behind - 1] {
        flip(&disk, 3, &path, at, 1);
        let copy = disk.copy();
        let mut flipped = bytes.clone();
        flipped[at] ^= 2;
        copy.put(&path, Some(&flipped));
        assert!(open(&copy).is_err(), "byte {at}");
    }
    for at in behind..bytes.len() {
        let copy = disk.copy();
        copy.put(&path, Some(&bytes[..at]));
        assert_eq!(open(&copy).unwrap().entries.len(), 2, "cut to {at}");
        assert_eq!(copy.read(&path).unwrap().len(), behind);
    }
}

#[test]
fn a_frame_of_several_megabytes_and_what_stands_behind_it() {
    let (disk, last) = large();
    let path = segment_path(folder(), 1);
    let length = disk.read(&path).unwrap().len();
    assert!(length > 2 << 20);
    for i in 0..24 {
        flip(&disk, last, &path, i * (length / 24) + i, (i % 8) as u8);
        cut_off(&disk, last, &path, i * (length / 24));
    }
    for back in (1..150).step_by(7) {
        flip(&disk, last, &path, length - back, 0);
        cut_off(&disk, last, &path, length - back);
    }
}

#[test]
fn rows_that_are_an_object() {
    let (disk, last) = several();
    let path = Objects::folder_of(folder()).join(&objects(&disk)[0]);
    let length = disk.read(&path).unwrap().len();
    for i in 0..12 {
        flip(&disk, last, &path, i * (length / 12), 3);
        cut_off(&disk, last, &path, i * (length / 12));
    }
    cut_off(&disk, last, &path, length - 1);
}

#[test]
fn every_file_is_missed() {
    for (disk, last) in [small(), many(), several(), large()] {
        for path in disk.paths() {
            check(&disk, last, &path, None, "removed");
        }
    }
}

#[test]
fn the_whole_folder_is_missed_but_not_one_that_nothing_was_told_about() {
    let (disk, _) = small();
    let copy = disk.copy();
    for path in copy.paths().iter().filter(|p| p.starts_with(folder())) {
        copy.put(path, None);
    }
    let error = open(&copy).err().unwrap();
    assert!(
        error
            .message()
            .contains("00000000000000000001.log is missing"),
        "{error}"
    );
    let disk = LossyDisk::default();
    drop(open(&disk).unwrap());
    disk.put(&segment_path(folder(), 1), None);
    assert!(open(&disk).unwrap().entries.is_empty());
}

#[test]
fn the_segment_of_another_log_is_refused() {
    let ((disk, _), (other, _)) = (small(), large());
    let path = segment_path(folder(), 1);
    disk.put(&path, Some(&other.read(&path).unwrap()));
    let error = open(&disk).err().unwrap();
    assert!(
        error.message().contains("is not what its name says"),
        "{error}"
    );
}

/// A start without the log is refused by what the store has, and leaves the beginning of a new one.
#[test]
fn the_beginning_of_another_log_is_not_in_the_way_of_what_is_put_back() {
    let (disk, last) = small();
    let copy = disk.copy();
    let other = LossyDisk::default();
    drop(open(&other).unwrap());
    let begun = other.read(&segment_path(folder(), 1)).unwrap();
    let path = segment_path(folder(), 1);
    copy.put(&path, Some(&begun));
    let error = open(&copy).err().unwrap();
    assert!(error.message().contains("is missing"), "{error}");
    copy.put(&path, Some(&disk.read(&path).unwrap()));
    assert_eq!(open(&copy).unwrap().entries.last().unwrap().0, last);
}
