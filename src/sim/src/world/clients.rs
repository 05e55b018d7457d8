//! The clients of a simulated server: they know what was acknowledged to them, and hold every
//! answer against it.

use super::broker::{Record, SimBroker};
use super::dice::Dice;
use super::node::Told;
use super::queries::{BASES, Bag, Contents, DELAY_MICROS, Feed, Row, VIEWS, View, answers, view};
use super::server::{Reading, Server};
use super::witness::History;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_changelog::connector::Floor;
use tidemark_common::{Epoch, Error, SplitId, SqlState, machine};

/// Keys that a writer has for itself.
const KEYS: u64 = 12;
/// Keys of a writer that has many.
const KEYS_MANY: u64 = 12_000;
/// The key of the row that all add to.
const SHARED_KEY: i64 = -1;
/// Records that are sent in one run.
const RECORDS_MAX: u64 = 3000;
/// Keys of the topics' records.
const RECORD_KEYS: u64 = 16;
/// How long a partition is silent, in microseconds.
const SILENCE_MICROS: u64 = 600_000;
/// What a client does next comes within this time.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Classes of errors that say that something outside is amiss: nothing was done.
const EXCUSES: &[&str] = &["53", "57", "58", "08"];

/// What all clients have in common.
pub struct Common {
    /// Whom they ask.
    pub server: Arc<Server>,
    /// They end when it is set.
    pub over: AtomicBool,
    /// What was wrong.
    pub wrong: Mutex<Vec<String>>,
    /// The relations that somebody was told there are, with their sinks' topics.
    pub there: Mutex<BTreeMap<String, Existence>>,
    /// Increments of the shared row that were acknowledged, and those of which nobody knows.
    pub increments: Mutex<(i64, i64)>,
    /// How many transactions the sinks had sent that were dropped, when that was told.
    pub dropped: Mutex<BTreeMap<String, usize>>,
    /// What was read.
    pub history: Mutex<History>,
    /// Answers that were held against what they should be.
    pub checked: Mutex<u64>,
}

/// What is known of a relation that clients make and drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existence {
    /// It is there.
    There,
    /// It is not.
    Gone,
    /// A statement about it is under way, or nobody knows what came of it.
    Unknown,
}

impl Common {
    /// Nothing is known yet.
    pub fn new(server: Arc<Server>) -> Arc<Common> {
        Arc::new(Common {
            server,
            over: AtomicBool::new(false),
            wrong: Mutex::default(),
            there: Mutex::default(),
            increments: Mutex::default(),
            dropped: Mutex::default(),
            history: Mutex::default(),
            checked: Mutex::default(),
        })
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed) && self.wrong.lock().is_empty()
    }

    /// Something is wrong.
    pub fn blame(&self, what: String) {
        tracing::error!(target: "sim", "{what}");
        self.wrong.lock().push(what);
    }

    fn refused(&self, what: &str, error: &Error) {
        tracing::debug!(target: "sim", what, %error, "refused");
        let code = error.state();
        if !EXCUSES.iter().any(|class| code.0.starts_with(class)) {
            self.blame(format!("{what}: refused with {} {error}", code.0));
        }
    }

    /// Holds what was read against what the queries answer over the same input.
    pub fn check(&self, reading: &Reading) {
        *self.checked.lock() += 1;
        let (broker, epoch) = (&self.server.broker, reading.epoch);
        if let Err(wrong) = self.history.lock().note(reading) {
            self.blame(wrong);
        }
        let bases = match inputs(broker, reading) {
            Ok(bases) => bases,
            Err(wrong) => return self.blame(format!("epoch {epoch}: {wrong}")),
        };
        let right = answers(&bases);
        for (name, found) in &reading.contents {
            let Some(right) = right.get(name) else {
                self.blame(format!("epoch {epoch}: {name} has rows and no input"));
                continue;
            };
            if found != right {
                let difference = found.difference(right);
                self.blame(format!(
                    "epoch {epoch}: {name} has (+) and lacks (-):{difference}"
                ));
            }
        }
    }

    /// Holds the relations that there are against those that clients were told of.
    fn check_catalog(&self, before: &BTreeMap<String, Existence>, reading: &Reading) {
        let names: BTreeSet<&String> = reading.ids.iter().map(|(name, _)| name).collect();
        let now = self.there.lock();
        for (name, known) in before {
            // Somebody may have made or dropped it while it was read.
            if now.get(name) != Some(known) {
                continue;
            }
            let wrong = match known {
                Existence::There if !names.contains(name) => "was created and is not there",
                Existence::Gone if names.contains(name) => "was dropped and is there",
                _ => continue,
            };
            self.blame(format!("epoch {}: {name} {wrong}", reading.epoch));
        }
    }
}

/// What sources and tables hold in what was read.
fn inputs(broker: &SimBroker, reading: &Reading) -> Result<Contents, String> {
    let mut bases = Contents::new();
    for base in BASES {
        let id = reading.ids.iter().find(|(name, _)| name == base.name);
        let Some((_, id)) = id else { continue };
        let stands = reading.positions.get(id);
        match base.feed {
            Feed::Written => {
                let rows = reading.contents.get(base.name);
                bases.insert(base.name.into(), rows.cloned().unwrap_or_default());
            }
            Feed::Plain | Feed::Upsert => {
                let Some(stands) = stands else { continue };
                let records = broker.records_below(base.name, stands);
                bases.insert(base.name.into(), rows_of(base.feed, &records)?);
            }
            Feed::Timed => {
                let Some(stands) = stands else { continue };
                let records = broker.records_below(base.name, stands);
                let floors = reading.floors.get(id).map_or(&[][..], Vec::as_slice);
                bases.insert(base.name.into(), rows_on_time(&records, floors)?);
            }
        }
    }
    Ok(bases)
}

/// The rows that records make, by partition: `k|v`, of an upsert the newest of each key.
fn rows_of(feed: Feed, records: &BTreeMap<SplitId, Vec<Record>>) -> Result<Bag, String> {
    let mut bag = Bag::default();
    let mut newest = BTreeMap::<i64, ((i64, SplitId, i64), Option<Row>)>::new();
    for (split, records) in records {
        // The largest time so far counts.
        let mut time = i64::MIN;
        for record in records {
            let row = record.value.as_ref().map(|value| parse(value));
            if feed == Feed::Plain {
                // What is no row is an error, and no part of the input.
                let row = row.and_then(Result::ok);
                row.into_iter().for_each(|row| bag.add(row, 1));
                continue;
            }
            let row = row.transpose()?;
            let key = record.key.as_ref().ok_or("a record without key")?;
            let key = parse(key)?[0].ok_or("a key of NULL")?;
            time = time.max(record.timestamp_ms);
            let version = (time, *split, record.offset);
            if newest.get(&key).is_none_or(|(known, _)| *known < version) {
                newest.insert(key, (version, row));
            }
        }
    }
    let rows = newest.into_values().filter_map(|(_, row)| row);
    rows.for_each(|row| bag.add(row, 1));
    Ok(bag)
}

/// The rows that are not behind what their partition had reached: by earlier rows, and by what was
/// decided of it while it brought nothing.
fn rows_on_time(records: &BTreeMap<SplitId, Vec<Record>>, floors: &[Floor]) -> Result<Bag, String> {
    let mut bag = Bag::default();
    for (split, records) in records {
        let mut reached = i64::MIN;
        for record in records {
            let under = floors.iter().filter(|f| f.split == *split);
            let under = under.filter(|f| f.offset <= record.offset);
            let under = under.map(|f| f.event_time_micros).max();
            reached = reached.max(under.unwrap_or(i64::MIN));
            let time = 1000 * record.timestamp_ms;
            let row = record.value.as_ref().ok_or("a record without a row")?;
            if time >= reached.saturating_sub(DELAY_MICROS) {
                bag.add(parse(row)?, 1);
            }
            reached = reached.max(time);
        }
    }
    Ok(bag)
}

/// The row that a record is.
pub fn parse(bytes: &[u8]) -> Result<Row, String> {
    let text = String::from_utf8_lossy(bytes);
    let value = |field: &str| match field {
        "\\N" => Ok(None),
        number => number.parse().map(Some),
    };
    let row: Result<Row, std::num::ParseIntError> = text.split('|').map(value).collect();
    row.map_err(|e| format!("a record that is no row: {text}: {e}"))
}

/// Sends records until it is over.
pub async fn produce(common: Arc<Common>, dice: Dice) {
    let broker = common.server.broker.clone();
    let pause = dice.between(Duration::from_millis(1), 4 * PAUSE_MAX);
    // What is written to a partition may be behind in time, and keys may change theirs often.
    let lags = [0, 1].map(|_| dice.pick(&[0, 0, 3000]));
    let strays = dice.pick(&[50, 300]);
    // Every answer is computed from all of them.
    let mut left = RECORDS_MAX;
    while common.goes_on() && left > 0 {
        machine::sleep(dice.between(Duration::ZERO, pause)).await;
        let records = match dice.chance(50) {
            true => dice.below(200),
            false => dice.below(8),
        };
        left = left.saturating_sub(records);
        for _ in 0..records {
            let (k, v) = (dice.below(RECORD_KEYS), dice.below(50));
            let (key, value) = (k.to_string(), format!("{k}|{v}"));
            // As producers' clocks differ.
            let time = machine::micros() / 1000 - dice.below(50) as i64;
            if dice.chance(300) {
                // Its partitions are silent in turns, and some rows are old.
                let partitions = broker.partitions("w") as u64;
                let at = dice.below(partitions);
                let turn = machine::micros() as u64 / SILENCE_MICROS;
                let old = dice.pick(&[0, 0, 0, 100, 1000]);
                let is_silent = turn % (partitions + 1) == at && !dice.chance(10);
                if !is_silent {
                    let (at, time) = (at as SplitId, time - old);
                    broker.produce("w", at, None, Some(value.as_bytes()), time);
                }
            } else if dice.chance(500) {
                let at = dice.below(broker.partitions("s") as u64) as SplitId;
                let value = match dice.chance(30) {
                    true => "no|row",
                    false => &value,
                };
                broker.produce("s", at, None, Some(value.as_bytes()), time);
            } else {
                let value = (!dice.chance(250)).then_some(value.as_bytes());
                // A key lives in one partition, mostly.
                let partitions = broker.partitions("u") as u64;
                let at = match dice.chance(strays) {
                    true => dice.below(partitions),
                    false => k % partitions,
                };
                let time = time - lags[at as usize % 2];
                broker.produce("u", at as SplitId, Some(key.as_bytes()), value, time);
            }
        }
    }
}

/// Writes rows with keys of its own, and reads.
pub struct Session {
    common: Arc<Common>,
    dice: Dice,
    number: i64,
    sessions: i64,
    /// How many keys.
    keys: u64,
    known: BTreeMap<i64, Row>,
    doubt: Option<Vec<(i64, Option<Row>)>>,
    seen: Epoch,
    /// What the shared row had when it was read last.
    counted: i64,
}

impl Session {
    /// The `number`-th of so many.
    pub fn new(common: Arc<Common>, dice: Dice, number: i64, sessions: i64) -> Session {
        // Some have so many that files of their rows are merged without the oldest.
        let keys = match dice.chance(40) {
            true => KEYS_MANY,
            false => KEYS,
        };
        Session {
            keys,
            common,
            dice,
            number,
            sessions,
            known: BTreeMap::new(),
            doubt: None,
            seen: Epoch(0),
            counted: 0,
        }
    }

    /// Until it is over, and returns itself to be asked once more.
    pub async fn run(mut self) -> Session {
        while self.common.goes_on() {
            machine::sleep(self.dice.between(Duration::ZERO, PAUSE_MAX)).await;
            if self.doubt.is_some() || self.dice.chance(300) {
                self.read().await;
                continue;
            }
            match self.dice.below(100) {
                0..20 => self.increment().await,
                20..22 => drop(self.common.server.flush().await),
                _ => self.write().await,
            }
        }
        self
    }

    /// Adds to a row that all sessions add to: none of it may be lost, or counted twice.
    async fn increment(&mut self) {
        let told = self.common.server.increment("t", SHARED_KEY).await;
        let mut increments = self.common.increments.lock();
        match told {
            Told::Answer(epoch) => {
                self.seen = self.seen.max(epoch);
                increments.0 += 1;
            }
            Told::Refused(error) => self.common.refused("an increment", &error),
            Told::Lost => increments.1 += 1,
        }
    }

    async fn write(&mut self) {
        let mut rows = BTreeMap::new();
        let is_large = self.keys == KEYS_MANY;
        let (count, values) = match is_large && (self.known.is_empty() || self.dice.chance(30)) {
            true => (self.keys, 1 << 40),
            false => (1 + self.dice.below(3), 100),
        };
        for _ in 0..count {
            let key = self.number + self.sessions * self.dice.below(self.keys) as i64;
            let value = self.dice.below(values) as i64;
            let row = (!self.dice.chance(250)).then(|| vec![Some(key), Some(value)]);
            rows.insert(key, row);
        }
        let rows: Vec<(i64, Option<Row>)> = rows.into_iter().collect();
        let session = self.number;
        tracing::trace!(target: "sim", session, ?rows, "writes");
        match self.common.server.write("t", rows.clone()).await {
            Told::Answer(epoch) => {
                tracing::trace!(target: "sim", session, %epoch, "is told that it is written");
                self.seen = self.seen.max(epoch);
                apply(&mut self.known, &rows);
            }
            Told::Refused(error) => self.common.refused("a write", &error),
            Told::Lost => self.doubt = Some(rows),
        }
    }

    /// Reads everything and checks it; true if there was an answer.
    pub async fn read(&mut self) -> bool {
        let common = self.common.clone();
        let there = common.there.lock().clone();
        let (session, seen) = (self.number, self.seen);
        tracing::trace!(target: "sim", session, %seen, "reads");
        let pause = match self.dice.chance(200) && common.goes_on() {
            true => self.dice.between(Duration::ZERO, 5 * PAUSE_MAX),
            false => Duration::ZERO,
        };
        let reading = match common.server.read_slowly(self.seen, pause).await {
            Told::Answer(reading) => reading,
            Told::Refused(error) => {
                // Dropped while it was read.
                if error.state().0 != "42P01" && error.state().0 != "72000" {
                    common.refused("a read", &error);
                }
                return false;
            }
            Told::Lost => return false,
        };
        if reading.epoch < self.seen {
            let (read, seen) = (reading.epoch, self.seen);
            common.blame(format!("epoch {read} was read after {seen} had been seen"));
        }
        self.seen = self.seen.max(reading.epoch);
        common.check_catalog(&there, &reading);
        common.check(&reading);
        self.check_own(&reading);
        self.check_increments(&reading);
        true
    }

    /// Those that were acknowledged before the read began are there, and not more than were asked
    /// for by now.
    fn check_increments(&mut self, reading: &Reading) {
        let rows = reading.contents.get("t").into_iter().flat_map(Bag::rows);
        let mut shared = rows.filter(|row| row[0] == Some(SHARED_KEY));
        let value = shared.next().and_then(|row| row[1]).unwrap_or(0);
        if value < self.counted {
            let (epoch, counted) = (reading.epoch, self.counted);
            self.common.blame(format!(
                "epoch {epoch}: the shared row has {value}, and had {counted} before"
            ));
        }
        self.counted = value;
    }

    fn check_own(&mut self, reading: &Reading) {
        let Some(table) = reading.contents.get("t") else {
            return self.common.blame("the table is not there".into());
        };
        let is_own = |key: i64| key >= 0 && key % self.sessions == self.number;
        let own = |row: &&Row| row[0].is_some_and(is_own);
        let found: BTreeMap<i64, Row> = table
            .rows()
            .filter(own)
            .filter_map(|row| Some((row[0]?, row.clone())))
            .collect();
        if let Some(doubt) = self.doubt.take() {
            let mut with = self.known.clone();
            apply(&mut with, &doubt);
            if found == with {
                self.known = with;
            }
        }
        if found != self.known {
            let (session, epoch) = (self.number, reading.epoch);
            let known = Bag::of(self.known.values().cloned());
            let difference = Bag::of(found.into_values()).difference(&known);
            self.common.blame(format!(
                "epoch {epoch}: of what session {session} was told is written, the table has (+) \
                 and lacks (-):{difference}"
            ));
        }
    }
}

fn apply(known: &mut BTreeMap<i64, Row>, rows: &[(i64, Option<Row>)]) {
    for (key, row) in rows {
        match row {
            Some(row) => drop(known.insert(*key, row.clone())),
            None => drop(known.remove(key)),
        }
    }
}

/// Makes and drops views and sinks until it is over.
pub async fn define(common: Arc<Common>, dice: Dice) {
    let mut sinks = 0;
    let eagerness = dice.below(1000);
    for view in VIEWS.iter().filter(|_| dice.chance(eagerness)) {
        create_view(&common, &dice, view).await;
    }
    while common.goes_on() {
        machine::sleep(dice.between(Duration::ZERO, 10 * PAUSE_MAX)).await;
        settle(&common).await;
        if !common.server.is_open() {
            continue;
        }
        if dice.chance(150) {
            toggle_source(&common).await;
            continue;
        }
        let chosen = &VIEWS[dice.below(VIEWS.len() as u64) as usize];
        if is(&common, chosen.name, Existence::Gone) {
            create_view(&common, &dice, chosen).await;
        } else if dice.chance(500) {
            sinks += 1;
            create_sink(&common, chosen, sinks).await;
        } else {
            drop_view(&common, &dice, chosen).await;
        }
    }
}

fn is(common: &Common, name: &str, existence: Existence) -> bool {
    let there = common.there.lock();
    there.get(name).unwrap_or(&Existence::Gone) == &existence
}

/// Looks what came of statements whose outcome nobody knows.
async fn settle(common: &Common) {
    let is_settled = {
        let there = common.there.lock();
        there.values().all(|known| *known != Existence::Unknown)
    };
    if is_settled {
        return;
    }
    if let Told::Answer(reading) = common.server.read(Epoch(0)).await {
        let names: BTreeSet<&String> = reading.ids.iter().map(|(name, _)| name).collect();
        let mut there = common.there.lock();
        for (name, known) in there.iter_mut().filter(|(_, k)| **k == Existence::Unknown) {
            *known = match names.contains(name) {
                true => Existence::There,
                false => Existence::Gone,
            };
        }
    }
}

/// A statement that makes a relation, or drops it.
async fn change<F>(common: &Common, name: &str, what: &str, after: Existence, statement: F)
where
    F: Future<Output = Told<()>>,
{
    let before = {
        let mut there = common.there.lock();
        there.insert(name.to_string(), Existence::Unknown)
    };
    tracing::debug!(target: "sim", name, what, "a statement");
    let known = match statement.await {
        Told::Answer(()) => Some(after),
        // It may have been there already.
        Told::Refused(error) if error.state() == SqlState::QUERY_CANCELED => None,
        Told::Refused(error) => {
            common.refused(&format!("{what} {name}"), &error);
            Some(before.unwrap_or(Existence::Gone))
        }
        Told::Lost => None,
    };
    tracing::debug!(target: "sim", name, what, ?known, "the statement is over");
    if let Some(known) = known {
        common.there.lock().insert(name.to_string(), known);
    }
}

/// Makes a source or table.
pub async fn create_base(common: &Common, name: &str, sql: &str) {
    change(
        common,
        name,
        "CREATE",
        Existence::There,
        common.server.create(sql),
    )
    .await;
}

async fn create_view(common: &Common, dice: &Dice, view: &View) {
    let is_there = |read: &&str| is(common, read, Existence::There);
    if !view.reads.iter().all(is_there) {
        return;
    }
    let sql = format!("CREATE MATERIALIZED VIEW {} AS {}", view.name, view.sql);
    let server = &common.server;
    let gives_up = dice.chance(200);
    let patience = dice.between(Duration::ZERO, 10 * PAUSE_MAX);
    let create = async {
        match gives_up {
            true => server.create_within(&sql, patience).await,
            false => server.create(&sql).await,
        }
    };
    change(common, view.name, "CREATE", Existence::There, create).await;
    if gives_up {
        // Comes behind the cancel.
        drop(server.flush().await);
    }
}

/// Makes a source that nobody reads, which counts as soon as it is logged, or drops it.
async fn toggle_source(common: &Common) {
    let (name, server) = ("idle", &common.server);
    if is(common, name, Existence::Gone) {
        let sql = "CREATE SOURCE idle (k BIGINT, v BIGINT) WITH (connector = 'kafka', topic = 's', \
                   properties.bootstrap.server = 'sim:9092') FORMAT PLAIN ENCODE JSON";
        create_base(common, name, sql).await;
    } else if is(common, name, Existence::There) {
        change(
            common,
            name,
            "DROP",
            Existence::Gone,
            server.drop_relation(name),
        )
        .await;
    }
}

/// Another one with the same answer takes the place of a view that nothing reads.
async fn replace_view(common: &Common, view: &View) {
    let sql = format!("CREATE MATERIALIZED VIEW {} AS {}", view.name, view.sql);
    let replace = common.server.replace(view.name, &sql);
    change(common, view.name, "REPLACE", Existence::There, replace).await;
}

async fn create_sink(common: &Common, view: &View, number: u32) {
    let (key, format) = match (view.name, view.key) {
        ("copied", _) => (String::new(), "PLAIN"),
        (_, Some(key)) => (format!(", primary_key = '{key}'"), "UPSERT"),
        (_, None) => return,
    };
    if !is(common, view.name, Existence::There) {
        return;
    }
    let name = format!("{}_out{number}", view.name);
    common.server.broker.create_topic(&name, 1, false);
    let sql = format!(
        "CREATE SINK {name} FROM {} WITH (connector = 'kafka', topic = '{name}', \
         properties.bootstrap.server = 'sim:9092'{key}) FORMAT {format} ENCODE JSON",
        view.name
    );
    change(
        common,
        &name,
        "CREATE",
        Existence::There,
        common.server.create(&sql),
    )
    .await;
}

/// What reads a view: other views, and sinks.
fn readers_of(common: &Common, name: &str) -> Vec<String> {
    let there = common.there.lock();
    let reads = |other: &String| match view(other) {
        Some(view) => view.reads.contains(&name),
        None => other
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with("_out")),
    };
    let known = there.iter().filter(|(_, known)| **known != Existence::Gone);
    known
        .filter(|(other, _)| reads(other))
        .map(|(other, _)| other.clone())
        .collect()
}

async fn drop_view(common: &Common, dice: &Dice, view: &View) {
    let readers = readers_of(common, view.name);
    let name = match readers.is_empty() {
        true => view.name.to_string(),
        false => dice.pick(&readers),
    };
    let is_there = is(common, &name, Existence::There);
    if !is_there || !readers_of(common, &name).is_empty() {
        return;
    }
    if name == view.name && dice.chance(300) {
        return replace_view(common, view).await;
    }
    let dropping = common.server.drop_relation(&name);
    change(common, &name, "DROP", Existence::Gone, dropping).await;
    if is(common, &name, Existence::Gone) && name != view.name {
        let sent = common.server.broker.sent(&name);
        common.dropped.lock().insert(name, sent);
    }
}

/// The shared row as it must be when nothing is under way any more.
pub fn check_increments(common: &Common, reading: &Reading) {
    let (told, unknown) = *common.increments.lock();
    let rows = reading.contents.get("t").into_iter().flat_map(Bag::rows);
    let mut shared = rows.filter(|row| row[0] == Some(SHARED_KEY));
    let value = shared.next().and_then(|row| row[1]).unwrap_or(0);
    if !(told..=told + unknown).contains(&value) {
        common.blame(format!(
            "of {told} increments that were acknowledged, and {unknown} that nobody knows of, the \
             row has {value}"
        ));
    }
}

/// Whether each sink's topic holds, by records of committed transactions, what its view answers;
/// otherwise what the first has that it should not.
pub fn check_sinks(common: &Common, reading: &Reading) -> Option<String> {
    for (name, known) in common.there.lock().iter() {
        let Some((of, _)) = name.split_once("_out") else {
            continue;
        };
        if *known != Existence::There {
            continue;
        }
        let mut sent = Bag::default();
        for record in common.server.broker.committed(name).into_iter().flatten() {
            let value = record.value.unwrap_or_default();
            let text = String::from_utf8_lossy(&value).into_owned();
            let Some((op, row)) = text.split_once('|') else {
                return Some(format!("{name} has a record that is none: {text}"));
            };
            match parse(row.as_bytes()) {
                Ok(row) => sent.add(row, if op == "+" { 1 } else { -1 }),
                Err(wrong) => return Some(wrong),
            }
        }
        let right = reading.contents.get(of).cloned().unwrap_or_default();
        if sent != right {
            let difference = sent.difference(&right);
            return Some(format!("{name} has been sent (+) and not (-):{difference}"));
        }
    }
    None
}

/// Whether each record that is no row is among the errors, once for each column that is read.
pub async fn check_errors(common: &Common, reading: &Reading) -> Result<(), String> {
    let source = reading.ids.iter().find(|(name, _)| name == "s");
    let stands = source.and_then(|(_, id)| reading.positions.get(id));
    let Some(stands) = stands else { return Ok(()) };
    let Told::Answer(mut errors) = common.server.errors("s").await else {
        return Err("the errors are not told".into());
    };
    let records = common.server.broker.records_below("s", stands).into_iter();
    let is_no_row = |r: &Record| r.value.as_ref().is_none_or(|value| parse(value).is_err());
    let right: Vec<(SplitId, i64)> = records
        .flat_map(|(split, records)| records.into_iter().map(move |r| (split, r)))
        .filter(|(_, record)| is_no_row(record))
        .map(|(split, record)| (split, record.offset))
        .collect();
    errors.sort_unstable();
    let mut found: Vec<(SplitId, i64)> = errors.iter().map(|(s, o, _)| (*s, *o)).collect();
    found.dedup();
    if found != right || errors.windows(2).any(|two| two[0] == two[1]) {
        return Err(format!(
            "the records that are no rows are {right:?}, and the errors are {errors:?}"
        ));
    }
    Ok(())
}
