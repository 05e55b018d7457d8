//! Which splits of running sources bring nothing (`idle_timeout`).
//!
//! Only the broker can say: it is asked where the splits end, and one is idle whose end was the
//! same in all answers for the timeout. So nothing of ours counts as idleness, be it that a reader
//! waits for room, a job is paused or a node is slow. Time in which the broker does not answer, or
//! nobody asks, does not count either: the end may have stood still because nobody could write. A
//! new incarnation begins at zero.
//!
//! What is idle is told to the coordinator each time, for its next barrier only, with where it
//! ends: whether the reader stands there is for it to find out.

use super::Node;
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tidemark_changelog::connector::{SourceConnector, SplitPosition};
use tidemark_common::{RelationId, Result, SplitId, machine};
use tidemark_connector::Outside;
use tidemark_control::protocol::Request;
use tidemark_plan::Relation;

/// How often a broker is asked at most and at least; in between four times in a timeout. Where
/// there is nothing to ask, it is looked that seldom whether there is by now.
const ASK_INTERVAL_MIN: Duration = Duration::from_millis(100);
const ASK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Floors of a source from which on the broker is asked which of them nobody can come to.
const FLOORS_MANY: usize = 100;

/// Tells the coordinator which splits bring nothing.
pub(super) async fn look_for_idle(node: Weak<Node>) {
    let mut watched: HashMap<RelationId, Watched> = HashMap::new();
    while let Some(node) = node.upgrade() {
        let (catalog, positions) = (node.published.catalog(), node.readers.positions());
        let sources = catalog.relations.values().filter_map(|relation| {
            let micros = relation.watermark.as_ref()?.idle_micros?;
            let runs = positions.contains_key(&relation.id);
            runs.then(|| (relation.clone(), Duration::from_micros(micros)))
        });
        let sources: Vec<_> = sources.collect();
        watched.retain(|id, _| sources.iter().any(|(source, _)| source.id == *id));
        for (source, _) in &sources {
            watched.entry(source.id).or_default();
        }
        // One whose broker does not answer holds up no other.
        let looks = watched.iter_mut().filter_map(|(id, seen)| {
            let (source, timeout) = sources.iter().find(|(source, _)| source.id == *id)?;
            let is_due = seen.is_due(*timeout);
            is_due.then(|| look(&node, source, seen, *timeout))
        });
        if join_all(looks).await.contains(&false) {
            return;
        }
        drop((node, catalog, positions));
        machine::sleep(match watched.is_empty() {
            true => ASK_INTERVAL_MAX,
            false => ASK_INTERVAL_MIN,
        })
        .await;
    }
}

/// Asks after one source. False for the end.
async fn look(node: &Node, source: &Arc<Relation>, seen: &mut Watched, timeout: Duration) -> bool {
    let floors = node.readers.floors();
    let floors = floors.get(&source.id).map_or(0, Vec::len);
    let (outside, known) = (node.reading.outside.clone(), seen.connector.clone());
    let asked = source.clone();
    let answer = move || ask(&asked, known, &outside, floors >= FLOORS_MANY);
    seen.asked = Some(machine::now());
    let (connector, ends, earliest) = match machine::blocking(answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            // Its settings may be others by now.
            seen.connector = None;
            if !std::mem::replace(&mut seen.is_told, true) {
                tracing::warn!(source = %source.name, %error, "ends of splits are not known, so \
                    that none counts as idle");
            }
            return true;
        }
        Err(_) => return false,
    };
    (seen.connector, seen.is_told) = (Some(connector), false);
    let interval = ask_interval(timeout);
    let gap_max = (interval + interval / 4).min(timeout / 2);
    let quiet = seen.quiet.answer(machine::now(), &ends, gap_max);
    let positions = node.readers.positions();
    let stands = positions.get(&source.id).map_or(&[][..], Vec::as_slice);
    let splits = idle(&quiet, stands, &ends, timeout);
    let was_idle = std::mem::replace(&mut seen.is_idle, !splits.is_empty());
    if splits.is_empty() && !was_idle && earliest.is_empty() {
        return true;
    }
    let relation = source.id;
    let told = node.events.request(Request::Idle {
        relation,
        splits,
        earliest,
    });
    // A coordinator that is gone means shutdown.
    told.is_ok()
}

/// A source that is looked at.
#[derive(Default)]
struct Watched {
    connector: Option<Arc<dyn SourceConnector>>,
    asked: Option<Instant>,
    quiet: Quiet,
    /// That its broker does not answer is logged.
    is_told: bool,
    /// The last word was that some split is idle.
    is_idle: bool,
}

impl Watched {
    fn is_due(&self, timeout: Duration) -> bool {
        let asked = self.asked.map(machine::elapsed);
        asked.is_none_or(|since| since >= ask_interval(timeout))
    }
}

fn ask_interval(timeout: Duration) -> Duration {
    (timeout / 4).clamp(ASK_INTERVAL_MIN, ASK_INTERVAL_MAX)
}

type Ends = (
    Arc<dyn SourceConnector>,
    Vec<SplitPosition>,
    Vec<SplitPosition>,
);

fn ask(
    source: &Relation,
    known: Option<Arc<dyn SourceConnector>>,
    outside: &Outside,
    wants_earliest: bool,
) -> Result<Ends> {
    let connector = known.map_or_else(|| outside.source(source), Ok)?;
    let ends = connector.end()?;
    let earliest = match wants_earliest {
        true => connector.earliest()?,
        false => Vec::new(),
    };
    Ok((connector, ends, earliest))
}

/// For how long splits have ended where they end.
#[derive(Debug, Default)]
struct Quiet {
    answered: Option<Instant>,
    ends: BTreeMap<SplitId, (i64, Duration)>,
}

impl Quiet {
    /// What an answer makes of it; of the time since the last one no more counts than this.
    fn answer(
        &mut self,
        now: Instant,
        ends: &[SplitPosition],
        gap_max: Duration,
    ) -> BTreeMap<SplitId, (i64, Duration)> {
        let since = self.answered.map(|before| now.duration_since(before));
        // What is longer is an outage, or a pause of our own.
        let since = since.unwrap_or_default().min(gap_max);
        let before = std::mem::take(&mut self.ends);
        let quiet = |end: &SplitPosition| match before.get(&end.split) {
            Some((offset, quiet)) if *offset == end.next_offset => *quiet + since,
            _ => Duration::ZERO,
        };
        let ends = ends.iter();
        self.ends = ends.map(|e| (e.split, (e.next_offset, quiet(e)))).collect();
        self.answered = Some(now);
        self.ends.clone()
    }
}

/// The splits that have been quiet for the timeout and of which all is read, as decided, and where
/// they stand.
fn idle(
    quiet: &BTreeMap<SplitId, (i64, Duration)>,
    stands: &[SplitPosition],
    ends: &[SplitPosition],
    timeout: Duration,
) -> Vec<(SplitId, i64)> {
    let is_idle = |p: &&SplitPosition| {
        let same_topic = |e: &SplitPosition| e.split == p.split && e.topic_id == p.topic_id;
        // Whoever stands behind the end has read what came after the answer.
        let is_quiet = |(end, time): &(i64, Duration)| p.next_offset == *end && *time >= timeout;
        ends.iter().any(same_topic) && quiet.get(&p.split).is_some_and(is_quiet)
    };
    let idle = stands.iter().filter(is_idle);
    idle.map(|p| (p.split, p.next_offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(split: SplitId, next_offset: i64) -> SplitPosition {
        SplitPosition {
            split,
            topic_id: "t".into(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset,
            records: 0,
            time_ms: -1,
            event_time_micros: None,
        }
    }

    #[test]
    fn quiet_is_what_ends_where_it_ended_while_the_broker_answers() {
        let (second, mut now) = (Duration::from_secs(1), machine::now());
        let (mut quiet, timeout) = (Quiet::default(), Duration::from_secs(3));
        let mut after = |seconds: u32, ends: &[SplitPosition], stands: &[SplitPosition]| {
            now += second * seconds;
            let quiet = quiet.answer(now, ends, 2 * second);
            idle(&quiet, stands, ends, timeout)
        };
        let ends = [at(0, 5), at(1, 7)];
        assert_eq!(after(0, &ends, &ends), []);
        assert_eq!(after(1, &ends, &ends), []);
        assert_eq!(after(1, &ends, &ends), []);
        assert_eq!(after(1, &ends, &ends), [(0, 5), (1, 7)]);
        // One is not read to its end.
        assert_eq!(after(1, &ends, &[at(0, 4), at(1, 7)]), [(1, 7)]);
        // One gets a row; the other stays idle.
        let grown = [at(0, 6), at(1, 7)];
        assert_eq!(after(1, &grown, &grown), [(1, 7)]);
        // An outage, or a pause of our own, counts for little.
        assert_eq!(after(3600, &grown, &grown), [(1, 7)]);
        assert_eq!(after(1, &grown, &grown), [(0, 6), (1, 7)]);
        // Another topic under the name.
        let other = |p: &SplitPosition| SplitPosition {
            topic_id: "u".into(),
            ..p.clone()
        };
        let stands: Vec<_> = grown.iter().map(other).collect();
        assert_eq!(after(1, &grown, &stands), []);
    }
}
