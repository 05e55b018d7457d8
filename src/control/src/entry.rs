//! The entries of the decision log. Their serialised form is what will be replicated: a version, a
//! JSON header, so that an old log can always be read, and behind it the written rows as Arrow IPC
//! and the errors as Parquet. Rows that are too many for an entry are an object of their own, which
//! the entry names; so are those of a write that was too large for memory ([`crate::stored`]).
//!
//! ```text
//! version u8 | 0 u8 | length of the subject u16 | length of the header u32
//!   | subject | header | rows
//! ```
//!
//! Little-endian. The subject is the name of the relation that the entry is about, as far as it has
//! one: it is there to be told when the header cannot be read.

use crate::codec::{decode_changes, encode_changes};
use crate::stored::{Contents, StoredRows};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{Floor, SinkMarker, SplitPosition};
use tidemark_common::disk::Disk;
use tidemark_common::{Epoch, Error, RelationId, Result, SqlState, Watermarks};
use tidemark_plan::{Column, DefaultGrant, Grant, Relation, Role, Secret, SecretName, Stopped};
use tidemark_state::errors::{KeptError, decode_errors, encode_errors};

/// Of the serialised form; its first byte.
pub(crate) const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 8;

/// An entry is not larger than this in the log, in bytes: more is refused.
pub const ENTRY_BYTES_MAX: usize = 64 << 20;

/// Rows of a cut that are larger than this together, encoded, are an object of their own.
pub const INLINE_BYTES_MAX: usize = 4 << 20;

/// Pending writes go into one epoch up to this many bytes; those behind wait for the next one.
pub const CUT_BYTES_MAX: usize = 256 << 20;

/// What one transaction may write, in bytes: Arrow counts the bytes of a column in 32 bits.
pub const WRITE_BYTES_MAX: usize = 1 << 30;

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// This node opened the log; whatever carries an older generation and was not decided is void.
    Opened {
        /// The new generation.
        generation: u64,
    },
    /// An epoch is decided.
    Cut(Cut),
    /// A relation exists, from epoch `relation.created_at` on if it has one. A job counts only once
    /// a committed checkpoint contains it: recovery forgets one that none does.
    Create {
        /// The relation.
        relation: Box<Relation>,
        /// Where its own connector starts, resolved once.
        start: Vec<SplitPosition>,
        /// Where its job began to read sources that had lost records from their start on.
        #[serde(default)]
        begins: BTreeMap<RelationId, Vec<SplitPosition>>,
    },
    /// A source has more splits from here on.
    AddSplits {
        /// The source.
        relation: RelationId,
        /// Where they start.
        start: Vec<SplitPosition>,
    },
    /// The broker may take records of this source away from now on: the cuts of epochs after this
    /// one hold the rows that were read.
    LogRows {
        /// The source.
        relation: RelationId,
        /// The last epoch without them.
        after: Epoch,
    },
    /// These relations are gone.
    Drop {
        /// Their ids.
        relations: Vec<RelationId>,
    },
    /// A change of names, as older logs have it.
    Change(CatalogChange),
    /// Changes of the catalog that take effect together.
    Changes(Vec<CatalogChange>),
    /// A job that stopped runs again. Counts only once a committed checkpoint contains the job: the
    /// next start finds it stopped otherwise.
    Resume {
        /// The job.
        relation: RelationId,
    },
    /// A job stopped after its last complete epoch.
    Stop {
        /// The job.
        relation: RelationId,
        /// When and why.
        stopped: Stopped,
    },
    /// A checkpoint counts from here on.
    Checkpoint {
        /// Its epoch.
        epoch: Epoch,
        /// The manifest's path in the object store.
        manifest: String,
        /// All entries up to this index are in it.
        #[serde(default)]
        contains: u64,
    },
}

/// What fixes an epoch's input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock, microseconds since 1970; never decreases.
    pub clock: i64,
    /// End positions of the splits of each source, for the sources that moved.
    pub positions: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// The promises that its barrier carried.
    #[serde(default, skip_serializing_if = "no_watermarks")]
    pub watermarks: Watermarks,
    /// What sinks into tables have delivered with what is written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub markers: BTreeMap<RelationId, SinkMarker>,
    /// Floors that were put under splits at its end, and those that make no difference any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub floors: BTreeMap<RelationId, Vec<Floor>>,
    /// Rows written by DML, and rows of sources whose records may be taken away, in the order of
    /// reading.
    #[serde(skip)]
    pub writes: Vec<TableWrites>,
    /// Errors of records of those sources.
    #[serde(skip)]
    pub errors: Vec<KeptError>,
    /// Lengths of the encoded writes behind the header, with their tables.
    #[serde(default)]
    write_lengths: Vec<(RelationId, usize)>,
    /// Length of the encoded errors behind the writes.
    #[serde(default)]
    error_bytes: usize,
    /// The object that holds writes and errors instead of the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    named: Option<NamedRows>,
    /// The files of writes that are too large for memory, with their tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stored: Vec<(RelationId, Contents)>,
}

/// An object with the rows of a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRows {
    /// Its name, made of generation and epoch.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the whole object.
    pub crc32: u32,
}

/// The rows that one epoch writes to a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableWrites {
    /// The table.
    pub table: RelationId,
    /// -old +new, resolved against all earlier writes.
    pub changes: Written,
}

/// Where written rows are.
#[derive(Clone, Debug)]
pub enum Written {
    /// In memory.
    Held(ChangeBatch),
    /// Too many for that: in a file, piece by piece.
    Stored(Arc<StoredRows>),
}

impl PartialEq for Written {
    fn eq(&self, other: &Written) -> bool {
        match (self, other) {
            (Written::Held(a), Written::Held(b)) => {
                a.rows() == b.rows()
                    && a.weight_column() == b.weight_column()
                    && a.faulty() == b.faulty()
            }
            (Written::Stored(a), Written::Stored(b)) => a.contents() == b.contents(),
            _ => false,
        }
    }
}

impl Written {
    /// How many pieces they are in.
    pub fn pieces(&self) -> usize {
        match self {
            Written::Held(_) => 1,
            Written::Stored(stored) => stored.contents().pieces(),
        }
    }

    /// A piece of them, which is read where it is not in memory.
    pub fn piece(&self, at: usize) -> Result<ChangeBatch> {
        match self {
            Written::Held(changes) => Ok(changes.clone()),
            Written::Stored(stored) => stored.read(at),
        }
    }
}

/// Changes of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    /// As [`Entry::Create`].
    Create {
        /// The relation.
        relation: Box<Relation>,
        /// Where its own connector starts, resolved once.
        start: Vec<SplitPosition>,
        /// Where its job begins to read sources that have lost records from their start on.
        begins: BTreeMap<RelationId, Vec<SplitPosition>>,
    },
    /// As [`Entry::Drop`].
    Drop {
        /// Their ids.
        relations: Vec<RelationId>,
    },
    /// A relation takes the place of another: by the commit of the first checkpoint that contains
    /// it, or at once where it has no job.
    Replace {
        /// The one that goes.
        old: RelationId,
        /// The one that comes.
        new: RelationId,
    },
    /// `ALTER ... RENAME TO`.
    Rename {
        /// Which.
        relation: RelationId,
        /// Its new name.
        name: String,
    },
    /// `ALTER ... SET SCHEMA`.
    SetSchema {
        /// Which.
        relation: RelationId,
        /// Its new schema.
        schema_name: String,
    },
    /// `COMMENT ON`.
    Comment {
        /// Which.
        relation: RelationId,
        /// The text; none removes it.
        comment: Option<String>,
    },
    /// `CREATE SCHEMA`.
    CreateSchema {
        /// Its name.
        name: String,
        /// Who made it.
        #[serde(default)]
        owner: Option<String>,
    },
    /// `DROP SCHEMA` of an empty schema.
    DropSchema {
        /// Its name.
        name: String,
    },
    /// `CREATE ROLE`.
    CreateRole {
        /// The role.
        role: Box<Role>,
    },
    /// `ALTER ROLE`.
    AlterRole {
        /// The role as it is now.
        role: Box<Role>,
    },
    /// `DROP ROLE`.
    DropRole {
        /// Its name.
        name: String,
    },
    /// `GRANT role TO role`, `REVOKE role FROM role`.
    Membership {
        /// The role that has members.
        role: String,
        /// The member.
        member: String,
        /// Whether it is one from now on.
        is: bool,
    },
    /// `GRANT`.
    Grant {
        /// What is granted.
        grants: Vec<Grant>,
    },
    /// `REVOKE`.
    Revoke {
        /// What is taken back.
        grants: Vec<Grant>,
        /// Their grant options only.
        #[serde(default)]
        option_only: bool,
        /// With what rests on their grant options.
        #[serde(default)]
        cascade: bool,
    },
    /// `CREATE SECRET`.
    CreateSecret {
        /// The secret.
        secret: Secret,
    },
    /// `ALTER SECRET`: what uses it has the new value from its next opening on.
    AlterSecret {
        /// Which.
        name: SecretName,
        /// Its new value.
        sealed: String,
    },
    /// `DROP SECRET`.
    DropSecret {
        /// Which.
        name: SecretName,
    },
    /// `ALTER DEFAULT PRIVILEGES`.
    DefaultPrivileges {
        /// What is granted or taken back.
        grants: Vec<DefaultGrant>,
        /// Whether it is taken back.
        revokes: bool,
        /// Their grant options only.
        option_only: bool,
    },
    /// `ALTER ... OWNER TO`.
    SetOwner {
        /// Which.
        relation: RelationId,
        /// A role.
        owner: String,
    },
    /// `ALTER .. ADD COLUMN`.
    AddColumn {
        /// Which relation.
        relation: RelationId,
        /// The column, behind all others.
        column: Box<Column>,
        /// What rows have in it that are there, see `tidemark_state::added`.
        missing: String,
    },
    /// `ALTER .. DROP COLUMN`.
    DropColumn {
        /// Which relation.
        relation: RelationId,
        /// The column's position.
        column: usize,
        /// What depends on the relation and was looked at: it does not name the column.
        #[serde(default)]
        spared: BTreeSet<RelationId>,
    },
    /// `ALTER .. RENAME COLUMN`.
    RenameColumn {
        /// Which relation.
        relation: RelationId,
        /// The column's position.
        column: usize,
        /// Its new name.
        name: String,
        /// The texts of indexes that name it, as they are now.
        #[serde(default)]
        definitions: BTreeMap<RelationId, String>,
    },
    /// `CREATE OR REPLACE FUNCTION` of one that is there: what uses it goes on with it.
    Redefine {
        /// The function as it is now, under its old number.
        function: Box<Relation>,
    },
    /// A relation that is made in the same entry is made beside another, whose place it takes with
    /// others; nobody sees it before ([`tidemark_plan::succession`]).
    Beside {
        /// The one that is there.
        old: RelationId,
        /// The one that is made.
        new: RelationId,
    },
    /// All of these take the places of others at once.
    Succeed {
        /// Old to new.
        pairs: BTreeMap<RelationId, RelationId>,
    },
}

fn no_watermarks(watermarks: &Watermarks) -> bool {
    watermarks.is_empty()
}

impl Cut {
    /// A cut of `epoch`, without errors.
    pub fn new(
        epoch: Epoch,
        clock: i64,
        positions: BTreeMap<RelationId, Vec<SplitPosition>>,
        writes: Vec<TableWrites>,
    ) -> Cut {
        Cut {
            epoch,
            clock,
            positions,
            writes,
            ..Cut::default()
        }
    }
}

impl TableWrites {
    /// That are in memory.
    pub fn held(table: RelationId, changes: ChangeBatch) -> TableWrites {
        let changes = Written::Held(changes);
        TableWrites { table, changes }
    }

    /// Whether they are in a file.
    pub fn is_stored(&self) -> bool {
        matches!(self.changes, Written::Stored(_))
    }

    /// Their size in memory, which is nearly that in an entry.
    pub fn bytes(&self) -> usize {
        match &self.changes {
            Written::Held(changes) => changes_bytes(changes),
            Written::Stored(_) => 0,
        }
    }
}

/// The size of changes in the log, nearly.
pub fn changes_bytes(changes: &ChangeBatch) -> usize {
    let column = |array: &arrow::array::ArrayRef| {
        let data = array.to_data();
        data.get_slice_memory_size()
            .unwrap_or_else(|_| array.get_array_memory_size())
    };
    let columns = changes.rows().columns().iter();
    columns.map(column).sum::<usize>() + changes.num_rows() * size_of::<i64>()
}

/// Where the rows of a large cut go: stores them durably and says how the entry names them.
pub(crate) type KeepRows<'a> = &'a mut dyn FnMut(Epoch, &[u8]) -> Result<NamedRows>;

impl Entry {
    /// The serialised form, with all rows in it.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.encode_parts(None)
    }

    /// The serialised form; rows of a cut that are larger than `inline` go to `keep`.
    pub(crate) fn encode_with(&self, inline: usize, keep: KeepRows) -> Result<Vec<u8>> {
        self.encode_parts(Some((inline, keep)))
    }

    fn encode_parts(&self, keep: Option<(usize, KeepRows)>) -> Result<Vec<u8>> {
        let mut rows = Vec::new();
        let header = match self {
            Entry::Cut(cut) if !cut.writes.is_empty() || !cut.errors.is_empty() => {
                let mut cut = cut.clone();
                cut.encode_rows(&mut rows)?;
                if let Some((_, keep)) = keep.filter(|(inline, _)| rows.len() > *inline) {
                    cut.named = Some(keep(cut.epoch, &rows)?);
                    rows.clear();
                }
                serde_json::to_vec(&Entry::Cut(cut))
            }
            other => serde_json::to_vec(other),
        }
        .map_err(|e| Error::internal(format!("log entry cannot be encoded: {e}")))?;
        let mut subject = self.subject();
        subject.truncate(subject.floor_char_boundary(u16::MAX.into()));
        let size = PREFIX_BYTES + subject.len() + header.len() + rows.len();
        let length = u32::try_from(header.len()).map_err(|_| too_large(size))?;
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&[VERSION, 0]);
        bytes.extend_from_slice(&(subject.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(subject.as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&rows);
        Ok(bytes)
    }

    /// The inverse of [`Entry::encode`]. A cut that names its rows has none yet.
    pub fn decode(bytes: &[u8]) -> Result<Entry> {
        let parts = Parts::of(bytes)?;
        let mut entry: Entry =
            serde_json::from_slice(parts.header).map_err(|e| damaged(&e.to_string()))?;
        if let Entry::Cut(cut) = &mut entry
            && cut.named.is_none()
        {
            cut.decode_rows(parts.rows)?;
        }
        Ok(entry)
    }

    /// `54000` or `54001` if the log would refuse the entry: it is too large, or could not be read
    /// at the next start.
    pub fn check(&self) -> Result<()> {
        self.check_encoded(&self.encode()?)
    }

    /// See [`Entry::check`]. The rows of a cut are not looked at: they can be as many as a
    /// transaction can write.
    pub(crate) fn check_encoded(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(too_large(bytes.len()));
        }
        if matches!(self, Entry::Cut(_)) {
            return Ok(());
        }
        let reason = match (self, Entry::decode(bytes)) {
            (_, Err(error)) => error.message().to_string(),
            // What is stored of a relation may be unreadable without the entry being so.
            (given, Ok(read)) => {
                let pairs = given.created().into_iter().zip(read.created());
                let mut lost = pairs.filter(|(given, _)| given.unreadable.is_none());
                match lost.find_map(|(_, read)| read.unreadable.clone()) {
                    Some(unreadable) => unreadable.reason,
                    None => return Ok(()),
                }
            }
        };
        Err(Error::user(
            SqlState("54001"),
            format!("{} is too complex to be logged", describe(bytes)),
        )
        .with_detail(format!("It could not be read again: {reason}."))
        .with_hint("Write it with less nesting."))
    }

    /// The epoch of a cut whose rows are an object, and the object.
    pub(crate) fn named_rows(&self) -> Option<(Epoch, &NamedRows)> {
        match self {
            Entry::Cut(cut) => Some((cut.epoch, cut.named.as_ref()?)),
            _ => None,
        }
    }

    /// Puts the rows of its object into a cut.
    pub(crate) fn fill(&mut self, rows: &[u8]) -> Result<()> {
        match self {
            Entry::Cut(cut) => cut.decode_rows(rows),
            _ => Ok(()),
        }
    }

    /// The names of the files of writes that were too large for memory.
    pub(crate) fn stored_names(&self) -> Vec<&str> {
        let Entry::Cut(cut) = self else {
            return Vec::new();
        };
        let written = cut.writes.iter().filter_map(|w| match &w.changes {
            Written::Stored(stored) => Some(stored.contents()),
            Written::Held(_) => None,
        });
        let read = cut.stored.iter().map(|(_, contents)| contents);
        written.chain(read).map(Contents::name).collect()
    }

    /// Puts the files of large writes into a cut that was read; each is looked at.
    pub(crate) fn open_stored(&mut self, disk: &Arc<dyn Disk>, folder: &Path) -> Result<()> {
        let Entry::Cut(cut) = self else {
            return Ok(());
        };
        for (table, contents) in std::mem::take(&mut cut.stored) {
            let stored = StoredRows::open(disk.clone(), folder, contents)?;
            let changes = Written::Stored(Arc::new(stored));
            cut.writes.push(TableWrites { table, changes });
        }
        Ok(())
    }

    /// The epoch of a cut.
    pub(crate) fn epoch_of_cut(&self) -> Option<Epoch> {
        match self {
            Entry::Cut(cut) => Some(cut.epoch),
            _ => None,
        }
    }

    /// The relations that it creates.
    fn created(&self) -> Vec<&Relation> {
        match self {
            Entry::Create { relation, .. } => vec![relation],
            Entry::Changes(changes) => {
                let created = changes.iter().filter_map(|change| match change {
                    CatalogChange::Create { relation, .. } => Some(relation.as_ref()),
                    _ => None,
                });
                created.collect()
            }
            _ => Vec::new(),
        }
    }

    fn subject(&self) -> String {
        let first = self.created().first().copied();
        first.map_or_else(String::new, |r| format!("{}.{}", r.schema_name, r.name))
    }
}

impl Cut {
    fn encode_rows(&mut self, rows: &mut Vec<u8>) -> Result<()> {
        for write in &self.writes {
            match &write.changes {
                Written::Held(changes) => {
                    let before = rows.len();
                    encode_changes(changes, rows)?;
                    self.write_lengths.push((write.table, rows.len() - before));
                }
                Written::Stored(stored) => {
                    self.stored.push((write.table, stored.contents().clone()));
                }
            }
        }
        if !self.errors.is_empty() {
            let errors = encode_errors(&self.errors)?;
            self.error_bytes = errors.len();
            rows.extend_from_slice(&errors);
        }
        Ok(())
    }

    fn decode_rows(&mut self, mut rows: &[u8]) -> Result<()> {
        for (table, length) in std::mem::take(&mut self.write_lengths) {
            let (changes, rest) = rows
                .split_at_checked(length)
                .ok_or_else(|| damaged("written rows are cut off"))?;
            let changes = decode_changes(changes)?;
            self.writes.push(TableWrites::held(table, changes));
            rows = rest;
        }
        let length = std::mem::take(&mut self.error_bytes);
        if length > 0 {
            let errors = rows
                .get(..length)
                .ok_or_else(|| damaged("errors are cut off"))?;
            self.errors = decode_errors(errors.to_vec()).map_err(|e| e.context("log entry"))?;
        }
        Ok(())
    }
}

/// The parts of the serialised form.
struct Parts<'a> {
    subject: &'a [u8],
    header: &'a [u8],
    rows: &'a [u8],
}

impl Parts<'_> {
    fn of(bytes: &[u8]) -> Result<Parts<'_>> {
        let (prefix, rest) = bytes
            .split_first_chunk::<PREFIX_BYTES>()
            .ok_or_else(|| damaged("no header"))?;
        if prefix[0] != VERSION {
            return Err(damaged(&format!(
                "it is of version {}, this build knows version {VERSION}",
                prefix[0]
            )));
        }
        let subject = u16::from_le_bytes([prefix[2], prefix[3]]).into();
        let header = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
        let split = |bytes, at| <[u8]>::split_at_checked(bytes, at);
        split(rest, subject)
            .and_then(|(subject, rest)| Some((subject, split(rest, header)?)))
            .map(|(subject, (header, rows))| Parts {
                subject,
                header,
                rows,
            })
            .ok_or_else(|| damaged("header is cut off"))
    }
}

/// What an encoded entry is and what it is about, also when it cannot be decoded.
pub(crate) fn describe(bytes: &[u8]) -> String {
    let Ok(parts) = Parts::of(bytes) else {
        return "unknown".into();
    };
    let subject = String::from_utf8_lossy(parts.subject);
    format!("{} {subject}", kind(bytes).to_lowercase())
        .trim_end()
        .to_string()
}

/// The name of an encoded entry's variant, also when it cannot be decoded.
pub(crate) fn kind(bytes: &[u8]) -> String {
    let header = Parts::of(bytes).map_or(&b""[..], |parts| parts.header);
    let header = String::from_utf8_lossy(&header[..header.len().min(64)]);
    header.split('"').nth(1).unwrap_or("unknown").into()
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("log entry: {what}"))
}

/// `54000`.
pub(crate) fn too_large(bytes: usize) -> Error {
    Error::user(
        SqlState("54000"),
        format!("a log entry of {bytes} bytes is too large"),
    )
    .with_detail(format!("The limit is {ENTRY_BYTES_MAX} bytes."))
}

/// Rows of one table as a file: each piece with its length (u64, little-endian) before it.
pub fn encode_kept(rows: &[&TableWrites]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for write in rows {
        for at in 0..write.changes.pieces() {
            let mut piece = Vec::new();
            encode_changes(&write.changes.piece(at)?, &mut piece)?;
            bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(bytes)
}

/// The inverse of [`encode_kept`].
pub fn decode_kept(mut bytes: &[u8]) -> Result<Vec<ChangeBatch>> {
    let cut_off = || Error::corrupt("kept rows are cut off");
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut_off)?;
        let length = u64::from_le_bytes(*length) as usize;
        let (piece, rest) = rest.split_at_checked(length).ok_or_else(cut_off)?;
        pieces.push(decode_changes(piece)?);
        bytes = rest;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn cut_with_written_rows_survives_the_round_trip() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
        ]));
        let rows = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from(vec![1, 1])),
                Arc::new(StringArray::from(vec!["old", "new"])),
            ],
        )
        .unwrap();
        let changes = ChangeBatch::new(rows, vec![-1, 1]).with_faulty(vec![(1, 0), (0, 1)]);
        let writes = vec![TableWrites::held(RelationId(7), changes)];
        let position = SplitPosition {
            split: 2,
            topic_id: "t".into(),
            leader_epoch: 4,
            newest_epoch: 4,
            next_offset: 99,
            records: 98,
            time_ms: 97,
            event_time_micros: Some(-5),
        };
        let mut cut = Cut::new(
            Epoch(5),
            1234,
            BTreeMap::from([(RelationId(3), vec![position])]),
            writes,
        );
        assert_eq!(
            Entry::decode(&Entry::Cut(cut.clone()).encode().unwrap()).unwrap(),
            Entry::Cut(cut.clone())
        );
        let marker = SinkMarker {
            epoch: Epoch(4),
            ..SinkMarker::default()
        };
        cut.markers.insert(RelationId(8), marker);
        cut.errors.push(KeptError {
            relation: RelationId(3),
            row: Arc::default(),
            weight: 1,
        });
        let entry = Entry::Cut(cut);
        assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = Entry::Opened { generation: 3 }.encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..cut]).is_err());
        }
        let mut later = bytes.clone();
        later[0] = VERSION + 1;
        let error = Entry::decode(&later).unwrap_err();
        assert!(error.message().contains("version 2"), "{error}");
        assert_eq!(describe(&bytes), "opened");
    }

    #[test]
    fn what_the_log_cannot_hold_is_refused() {
        let comment = |bytes: usize| {
            Entry::Change(CatalogChange::Comment {
                relation: RelationId(1),
                comment: Some("x".repeat(bytes)),
            })
        };
        comment(1 << 20).check().unwrap();
        let error = comment(ENTRY_BYTES_MAX).check().unwrap_err();
        assert_eq!(error.state(), SqlState("54000"));
    }
}
