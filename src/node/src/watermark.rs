//! The watermarks that jobs go by, and what holds them back: for people.

use std::collections::BTreeSet;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::RelationId;
use tidemark_control::protocol::Positions;
use tidemark_plan::{Catalog, Relation};

/// The least watermark of the sources that a job reads, through others or by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobWatermark {
    /// In microseconds since 1970; none as long as a source has promised nothing.
    pub micros: Option<i64>,
    /// The source and the split that are behind all others.
    pub held_back_by: Option<String>,
}

/// The watermark of a relation whose sources stand there; none if no source of it has one.
pub(crate) fn of(
    catalog: &Catalog,
    positions: &Positions,
    relation: RelationId,
) -> Option<JobWatermark> {
    let splits: Vec<(&Relation, &SplitPosition, Option<i64>)> = sources(catalog, relation)
        .into_iter()
        .flat_map(|source| {
            let delay = source.watermark.as_ref().map_or(0, |w| w.delay_micros);
            let splits = positions.get(&source.id).map_or(&[][..], Vec::as_slice);
            let promise = move |p: &SplitPosition| Some(p.event_time_micros?.saturating_sub(delay));
            splits.iter().map(move |p| (source, p, promise(p)))
        })
        .collect();
    let (source, split, least) = splits.iter().min_by_key(|(_, _, promise)| promise)?;
    let most = splits.iter().filter_map(|(_, _, promise)| *promise).max();
    let held_back_by = || {
        let name = format!("{}.{}", source.schema_name, source.name);
        match least {
            Some(_) => format!("{name}, partition {}", split.split),
            None => format!("{name}, partition {} (no row yet)", split.split),
        }
    };
    Some(JobWatermark {
        micros: *least,
        held_back_by: (*least < most || least.is_none()).then(held_back_by),
    })
}

/// The sources with a watermark that a relation reads.
fn sources(catalog: &Catalog, relation: RelationId) -> Vec<&Relation> {
    let (mut open, mut seen) = (vec![relation], BTreeSet::new());
    let mut found = Vec::new();
    while let Some(id) = open.pop() {
        let Some(relation) = catalog.relations.get(&id).filter(|_| seen.insert(id)) else {
            continue;
        };
        open.extend(&relation.depends_on);
        found.extend(relation.watermark.as_ref().map(|_| relation.as_ref()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_plan::{Conflict, OnError, RelationKind, Watermark};

    fn split(split: u32, event_time_micros: Option<i64>) -> SplitPosition {
        SplitPosition {
            split,
            topic_id: String::new(),
            leader_epoch: -1,
            newest_epoch: -1,
            next_offset: 0,
            records: 0,
            time_ms: 0,
            event_time_micros,
        }
    }

    fn relation(id: u32, name: &str) -> Relation {
        Relation {
            id: RelationId(id),
            schema_name: "public".into(),
            name: name.into(),
            kind: RelationKind::Source,
            columns: Vec::new(),
            key: Vec::new(),
            key_declared: false,
            append_only: true,
            watermark: None,
            connector: None,
            logs_rows: None,
            generated: Vec::new(),
            conflict: Conflict::Overwrite,
            on_error: OnError::Log,
            snapshot: true,
            definition: String::new(),
            query: String::new(),
            named: Vec::new(),
            depends_on: Vec::new(),
            owner: "root".into(),
            comment: None,
            job: None,
            created_at: None,
            altered: Default::default(),
            unreadable: None,
        }
    }

    #[test]
    fn the_split_that_is_behind_is_named() {
        let mut source = relation(1, "s");
        source.watermark = Some(Watermark {
            column: 0,
            delay_micros: 3,
            idle_micros: None,
        });
        let mut view = relation(2, "v");
        view.depends_on = vec![RelationId(1)];
        let mut catalog = Catalog::default();
        for relation in [source, view] {
            catalog.relations.insert(relation.id, relation.into());
        }
        let at = |splits: Vec<SplitPosition>| {
            let positions = Positions::from([(RelationId(1), splits)]);
            of(&catalog, &positions, RelationId(2))
        };
        let known = |micros, held_back_by: Option<&str>| {
            Some(JobWatermark {
                micros,
                held_back_by: held_back_by.map(String::from),
            })
        };
        assert_eq!(at(vec![split(0, Some(9))]), known(Some(6), None));
        let one_behind = vec![split(0, Some(9)), split(1, Some(7))];
        let named = Some("public.s, partition 1");
        assert_eq!(at(one_behind), known(Some(4), named));
        let one_empty = vec![split(0, Some(9)), split(1, None)];
        let named = Some("public.s, partition 1 (no row yet)");
        assert_eq!(at(one_empty), known(None, named));
    }
}
