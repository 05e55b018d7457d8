//! What a broker does with the topics of running sources while they are read: new partitions, other
//! retention, another topic under the name.

use super::Node;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tidemark_changelog::connector::{SourceConnector, SplitPosition};
use tidemark_common::{Error, RelationId, Result, machine};
use tidemark_connector::Outside;
use tidemark_control::protocol::{Event, Request};
use tidemark_plan::Relation;

/// Looks now and then whether running sources have more splits and whether they may lose records by
/// now, and tells lag tools where they stand.
pub(super) async fn follow_sources(node: Weak<Node>) {
    let mut connectors: HashMap<RelationId, Arc<dyn SourceConnector>> = HashMap::new();
    while let Some(node) = node.upgrade() {
        let catalog = node.published.catalog();
        let positions = node.readers.positions();
        connectors.retain(|id, _| positions.contains_key(id));
        for source in catalog.relations.values().filter(|r| {
            positions.contains_key(&r.id)
                && r.connector.as_ref().is_some_and(|c| c.connector == "kafka")
        }) {
            let known = connectors.get(&source.id).cloned();
            let (source, stands) = (source.clone(), positions[&source.id].clone());
            let outside = node.reading.outside.clone();
            let looked = machine::blocking(move || look_at(&source, known, &outside, &stands));
            match looked.await {
                Ok(Ok(Seen {
                    relation,
                    other: Some(error),
                    ..
                })) => {
                    connectors.remove(&relation);
                    node.events.tell(Event::Failed { relation, error });
                }
                Ok(Ok(seen)) => {
                    let relation = seen.relation;
                    connectors.insert(relation, seen.connector);
                    let start = seen.splits;
                    let mut requests = vec![Request::Splits { relation, start }];
                    if seen.may_lose_records {
                        requests.push(Request::LogRows { relation });
                    }
                    for request in requests {
                        // A coordinator that is gone means shutdown.
                        let _ = node.events.request(request);
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "looking after a source failed"),
                Err(_) => return,
            }
        }
        let interval = Duration::from_millis(node.config.discovery_ms);
        drop(node);
        machine::sleep(interval).await;
    }
}

/// What a look at a running source has shown.
struct Seen {
    relation: RelationId,
    connector: Arc<dyn SourceConnector>,
    /// Its splits, as they would start if they were new.
    splits: Vec<SplitPosition>,
    /// Its positions count in another log than these splits.
    other: Option<Error>,
    /// Its rows are not logged, and should be.
    may_lose_records: bool,
}

fn look_at(
    source: &Relation,
    known: Option<Arc<dyn SourceConnector>>,
    outside: &Outside,
    stands: &[SplitPosition],
) -> Result<Seen> {
    let connector = known.map_or_else(|| outside.source(source), Ok)?;
    let as_new = |p: SplitPosition| SplitPosition {
        next_offset: 0,
        records: 0,
        ..p
    };
    let splits: Vec<SplitPosition> = connector.end()?.into_iter().map(as_new).collect();
    let other = connector.check_same(stands, &splits).err();
    if other.is_none() {
        connector.commit(stands);
    }
    let may_lose_records = source.logs_rows.is_none()
        && connector.may_lose_records().unwrap_or_else(|error| {
            tracing::warn!(source = %source.name, %error, "its topic's settings are not known");
            false
        });
    Ok(Seen {
        relation: source.id,
        connector,
        splits,
        other,
        may_lose_records,
    })
}
