//! The bytes of the log's files, version 1. All numbers are little-endian, all checksums CRC-32
//! (IEEE).
//!
//! A **segment** begins with a header of 48 bytes:
//!
//! ```text
//! magic "TDMKLOG\n" | version u32 | replicated u32 | log u64 | first u64 | follows u64
//!   | checksum u32 | 0 u32
//! ```
//!
//! `log` is the log's own number, the same in all its segments; `first` the index of its first
//! entry, which is also its name; `follows` the index of the entry before it: `first - 1`, except
//! where a loss was accepted; `replicated` is 1 if a group keeps the log (0 in logs of earlier
//! builds): then the file `log.raft` must be there. Behind it stand **frames**, a header of 40
//! bytes and a payload:
//!
//! ```text
//! magic u32 | length u32 | index u64 | append_first u64 | append_last u64
//!   | checksum of the payload u32 | checksum of log and of the fields before u32
//! ```
//!
//! `append_first` is the index of the first frame that was appended with it, in one write. As an
//! append begins only when the one before it is synced, a header that is whole proves that
//! everything before its `append_first` was synced. Frames up to `append_last`, which is its own
//! index but in logs of earlier builds, are there all or none.

/// Of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
/// Of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = 40;
/// Of the files of the log.
pub(super) const VERSION: u32 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"TDMKLOG\n";
const FRAME_MAGIC: &[u8; 4] = b"\xf7TE\n";

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log: u64,
    pub first: u64,
    pub follows: u64,
    pub replicated: bool,
}

/// What stands at the head of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SegmentHead {
    Whole(SegmentHeader),
    /// Whole, but of a version that this build does not know.
    Version(u32),
    /// No log of ours begins so.
    Foreign,
    Damaged,
}

/// The head of a frame, and where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub length: usize,
    pub index: u64,
    pub append_first: u64,
    pub append_last: u64,
    payload_crc: u32,
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.replicated).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.log.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.follows.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> SegmentHead {
        let Some(head) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return SegmentHead::Damaged;
        };
        let crc_is_right = u32_at(head, 40) == Some(crc32fast::hash(&head[..40]));
        match (u32_at(head, 8), u64_at(head, 16), u64_at(head, 24)) {
            _ if !crc_is_right && frame_like(head) => SegmentHead::Foreign,
            _ if !crc_is_right || head[..8] != *SEGMENT_MAGIC => SegmentHead::Damaged,
            (Some(VERSION), Some(log), Some(first)) => SegmentHead::Whole(SegmentHeader {
                log,
                first,
                follows: u64_at(head, 32).unwrap_or_default(),
                replicated: u32_at(head, 12) == Some(1),
            }),
            (version, ..) => SegmentHead::Version(version.unwrap_or_default()),
        }
    }
}

/// Whether a frame of the logs before version 1, which had no header, begins here.
fn frame_like(bytes: &[u8]) -> bool {
    let (Some(length), Some(index)) = (u32_at(bytes, 0), u64_at(bytes, 8)) else {
        return false;
    };
    // One of ours that is damaged has most of the magic.
    let same = bytes.iter().zip(SEGMENT_MAGIC).filter(|(a, b)| a == b);
    same.count() < 4 && length > 0 && length < 1 << 30 && index > 0 && index < 1 << 40
}

impl FrameHeader {
    /// The header of entry `index`, appended with those from `append_first` to `append_last`.
    pub fn new(payload: &[u8], length: u32, index: u64, append: (u64, u64)) -> FrameHeader {
        FrameHeader {
            length: length as usize,
            index,
            append_first: append.0,
            append_last: append.1,
            payload_crc: crc32fast::hash(payload),
        }
    }

    pub fn encode(&self, log: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(FRAME_MAGIC);
        bytes[4..8].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.append_first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.append_last.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(log, &bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if it is whole.
    pub fn decode(bytes: &[u8], log: u64) -> Option<FrameHeader> {
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        if head[..4] != *FRAME_MAGIC || u32_at(head, 36)? != header_crc(log, &head[..36]) {
            return None;
        }
        Some(FrameHeader {
            length: u32_at(head, 4)? as usize,
            index: u64_at(head, 8)?,
            append_first: u64_at(head, 16)?,
            append_last: u64_at(head, 24)?,
            payload_crc: u32_at(head, 32)?,
        })
    }

    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.length
    }

    /// The payload, if `frame` begins with this header and has all of it unharmed.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        let payload = frame.get(FRAME_HEADER_BYTES..self.frame_bytes())?;
        (crc32fast::hash(payload) == self.payload_crc).then_some(payload)
    }
}

fn header_crc(log: u64, fields: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log.to_le_bytes());
    crc.update(fields);
    crc.finalize()
}

/// The first whole header in `bytes` that was appended after entry `index`: the proof that `index`
/// was synced. Looks at every offset, as damage may have hit any length.
pub(super) fn later_append(bytes: &[u8], log: u64, index: u64) -> Option<FrameHeader> {
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| {
        rest.windows(FRAME_MAGIC.len())
            .position(|window| window == FRAME_MAGIC)
    }) {
        let header = FrameHeader::decode(&bytes[at + found..], log);
        if header.is_some_and(|h| h.append_first > index) {
            return header;
        }
        at += found + 1;
    }
    None
}
