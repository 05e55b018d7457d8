//! Answers and messages held against each other: what was seen once stays true.
//!
//! Each answer tells what relations held at an epoch, and where their sources stood. Two answers of
//! one epoch, also of different processes, are the same; from one epoch to a later one no source
//! goes back. And a sink's topic is its view's history: after each of its transactions it holds
//! what the view held at the epoch of the marker that came with it. So much is known of the epochs
//! that somebody happened to read.

use super::broker::SimBroker;
use super::clients::{Common, parse};
use super::queries::{Bag, view};
use super::server::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use tidemark_common::{Epoch, RelationId};
use tidemark_control::protocol::Positions;

/// What was read so far.
#[derive(Default)]
pub struct History(BTreeMap<Epoch, Seen>);

#[derive(Default)]
struct Seen {
    positions: Positions,
    /// Sources, each with what is there that reads it: one that nobody reads any more begins anew
    /// with its next reader.
    read: BTreeSet<(RelationId, RelationId)>,
    /// Prints of what relations held, by name.
    held: BTreeMap<String, u64>,
}

impl History {
    /// Takes in what was read; says what it contradicts.
    pub fn note(&mut self, reading: &Reading) -> Result<(), String> {
        let (epoch, now) = (reading.epoch, Seen::of(reading));
        if let Some((before, seen)) = self.0.range(..epoch).next_back() {
            no_contradiction(behind(seen, &now), *before, epoch)?;
        }
        if let Some((after, seen)) = self.0.range(epoch.next()..).next() {
            no_contradiction(behind(&now, seen), epoch, *after)?;
        }
        let seen = self.0.entry(epoch).or_default();
        for (source, positions) in now.positions {
            let known = seen.positions.entry(source).or_insert(positions.clone());
            if *known != positions {
                return Err(format!(
                    "epoch {epoch}: source {source} stands at {positions:?}, and stood at \
                     {known:?} in an earlier answer of that epoch"
                ));
            }
        }
        for (name, found) in now.held {
            let known = *seen.held.entry(name.clone()).or_insert(found);
            if known != found {
                return Err(format!(
                    "epoch {epoch}: {name} is not what it was in an earlier answer of that epoch"
                ));
            }
        }
        seen.read.extend(now.read);
        Ok(())
    }
}

impl Seen {
    fn of(reading: &Reading) -> Seen {
        let id = |name: &str| {
            reading
                .ids
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, id)| *id)
        };
        let mut seen = Seen {
            positions: reading.positions.clone(),
            ..Seen::default()
        };
        for (name, bag) in &reading.contents {
            let Some(reader) = id(name) else { continue };
            seen.held.insert(name.clone(), print(bag));
            let read = view(name).map_or(&[][..], |view| view.reads);
            let read = read.iter().filter_map(|source| id(source)).chain([reader]);
            seen.read.extend(read.map(|source| (source, reader)));
        }
        seen
    }
}

fn no_contradiction(back: Option<String>, before: Epoch, after: Epoch) -> Result<(), String> {
    back.map_or(Ok(()), |back| {
        Err(format!("from epoch {before} to {after} {back}"))
    })
}

/// What goes back from an epoch to a later one.
fn behind(before: &Seen, after: &Seen) -> Option<String> {
    let read: BTreeSet<RelationId> = before
        .read
        .intersection(&after.read)
        .map(|(s, _)| *s)
        .collect();
    let stood = before.positions.iter();
    stood
        .filter(|(s, _)| read.contains(s))
        .find_map(|(source, stood)| {
            let stands = after.positions.get(source)?;
            stood.iter().find_map(|stood| {
                let stands = stands.iter().find(|p| p.split == stood.split);
                let (at, then) = (stands.map(|p| p.next_offset), stood.next_offset);
                let split = stood.split;
                at.is_none_or(|at| at < then).then(|| {
                    format!("source {source} goes back in partition {split} from {then} to {at:?}")
                })
            })
        })
}

fn print(bag: &Bag) -> u64 {
    let mut hasher = DefaultHasher::new();
    bag.0.hash(&mut hasher);
    hasher.finish()
}

/// What all sinks have sent, transaction by transaction; to be called when all is at rest.
pub fn check_deliveries(common: &Common) -> Result<(), String> {
    let sinks: Vec<String> = common.there.lock().keys().cloned().collect();
    for sink in sinks {
        if let Some((view, _)) = sink.split_once("_out") {
            check_sink(&common.server.broker, &common.history.lock(), &sink, view)?;
        }
    }
    for (sink, sent) in common.dropped.lock().iter() {
        let now = common.server.broker.sent(sink);
        // One was ending, and one under way.
        if now > sent + 2 {
            return Err(format!(
                "{sink}: after it was dropped {} transactions came",
                now - sent
            ));
        }
    }
    Ok(())
}

fn check_sink(broker: &SimBroker, history: &History, sink: &str, view: &str) -> Result<(), String> {
    let (mut sent, mut reached) = (Bag::default(), (Epoch(0), 0));
    for delivery in broker.deliveries(sink) {
        let marker = &delivery.marker;
        for record in &delivery.records {
            let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
            let (op, row) = text.split_once('|').ok_or("a sink's record that is none")?;
            sent.add(parse(row.as_bytes())?, if op == "+" { 1 } else { -1 });
        }
        let progress = (marker.epoch, marker.partial);
        if progress <= reached {
            return Err(format!(
                "{sink}: its marker goes from {reached:?} to {progress:?}"
            ));
        }
        reached = progress;
        let held = history.0.get(&marker.epoch).filter(|_| marker.partial == 0);
        let held = held.and_then(|seen| seen.held.get(view));
        if held.is_some_and(|held| *held != print(&sent)) {
            return Err(format!(
                "{sink}: after its transaction of epoch {} it is not what {view} was then",
                marker.epoch
            ));
        }
        if let Some((row, times)) = sent.0.iter().find(|(_, times)| **times < 0) {
            return Err(format!(
                "{sink}: after its transaction of epoch {} it has {row:?} {times} times",
                marker.epoch
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::broker::MARKER_TOPIC;
    use super::super::dice::Dice;
    use super::*;
    use std::time::Duration;
    use tidemark_changelog::connector::SplitPosition;

    /// The source and the view that reads it.
    const IDS: [(&str, RelationId); 2] = [("s", RelationId(1)), ("copied", RelationId(2))];

    fn reading(epoch: u64, next_offset: i64, rows: &[i64]) -> Reading {
        let position = SplitPosition {
            split: 0,
            topic_id: String::new(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
        };
        let rows = rows.iter().map(|value| vec![Some(*value)]);
        Reading {
            epoch: Epoch(epoch),
            positions: Positions::from([(IDS[0].1, vec![position])]),
            floors: Default::default(),
            ids: IDS.map(|(name, id)| (name.to_string(), id)).into(),
            contents: [("copied".to_string(), Bag::of(rows))].into(),
        }
    }

    #[test]
    fn an_answer_that_contradicts_another_one_is_told() {
        let mut history = History::default();
        assert_eq!(history.note(&reading(5, 10, &[1])), Ok(()));
        assert_eq!(history.note(&reading(9, 12, &[1, 2])), Ok(()));
        assert_eq!(history.note(&reading(5, 10, &[1])), Ok(()));
        assert!(history.note(&reading(5, 10, &[2])).is_err(), "other rows");
        assert!(history.note(&reading(5, 11, &[1])).is_err(), "another cut");
        assert!(history.note(&reading(7, 9, &[1])).is_err(), "it goes back");
        assert!(history.note(&reading(8, 13, &[1])).is_err(), "it goes back");
        assert_eq!(history.note(&reading(7, 12, &[1, 2])), Ok(()));
        // A source that nobody reads in between begins anew.
        let mut alone = reading(10, 0, &[]);
        alone.contents.clear();
        assert_eq!(history.note(&alone), Ok(()));
    }

    #[test]
    fn each_transaction_is_what_the_view_held() {
        let broker = SimBroker::new(Dice::new(7));
        broker.create_topic("copied_out1", 1, false);
        broker.create_topic(MARKER_TOPIC, 1, true);
        let mut history = History::default();
        history.note(&reading(5, 10, &[1])).unwrap();
        history.note(&reading(6, 11, &[1, 2])).unwrap();
        let send = |epoch: u64, lines: &[&str]| {
            let session = broker.init_transactions("sink", Duration::from_secs(9));
            for line in lines {
                let sent =
                    broker.produce_in(&session, "copied_out1", 0, None, Some(line.as_bytes()));
                sent.unwrap();
            }
            let marker = format!(r#"{{"epoch":{epoch},"partial":0,"hash":0}}"#);
            let key = Some(&b"sink"[..]);
            let sent = broker.produce_in(&session, MARKER_TOPIC, 0, key, Some(marker.as_bytes()));
            sent.unwrap();
            broker.end_transaction(&session, true).unwrap();
        };
        let check = || check_sink(&broker, &history, "copied_out1", "copied");
        send(5, &["+|1"]);
        assert_eq!(check(), Ok(()));
        assert_eq!(broker.delivered(), Epoch(5));
        send(6, &["+|3"]);
        assert!(check().unwrap_err().contains("not what copied was"));
    }
}
