//! What a creation asks of the outside, and of the coordinator.

use super::{Engine, JobStatus};
use crate::beginning::{Beginning, compacted_notice};
use arrow::array::RecordBatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::{SourceConnector, SplitPosition};
use tidemark_common::{Epoch, Error, RelationId, Result, machine};
use tidemark_control::TableWrites;
use tidemark_control::protocol::{Dependant, Positions, Request};
use tidemark_plan::succession::Followers;
use tidemark_plan::{Relation, RelationKind};
use tidemark_state::consolidate::consolidate;

/// What a creation begins with beside its relation.
#[derive(Default)]
pub struct Creation {
    /// The relation whose place it takes.
    pub replaces: Option<RelationId>,
    /// What depends on that and goes with it.
    pub followers: Followers,
    /// Rows that a table has from its first moment on, in its columns.
    pub rows: Vec<RecordBatch>,
}

impl Creation {
    fn rows(&self, table: RelationId) -> Vec<TableWrites> {
        let inserts = self.rows.iter().filter(|b| b.num_rows() > 0).cloned();
        let changes: Vec<ChangeBatch> = inserts.map(ChangeBatch::insert).collect();
        let Some(first) = changes.first() else {
            return Vec::new();
        };
        let changes = consolidate(&first.schema().clone(), &changes);
        vec![TableWrites::held(table, changes)]
    }
}

impl Engine {
    /// Creates a relation; returns when it is visible and caught up (see DIALECT). Dropping the
    /// future undoes it. `progress` is called every few seconds with a sentence for a NOTICE.
    pub async fn create(
        &self,
        relation: Relation,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        self.create_as(relation, Creation::default(), progress)
            .await
    }

    /// As `create`, with more to begin with. What it replaces is there until it is visible itself.
    pub async fn create_as(
        &self,
        mut relation: Relation,
        creation: Creation,
        progress: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<()> {
        if let Some(error) = self.node.readers.log_error() {
            return Err(error);
        }
        let id = relation.id;
        self.prepare_sink(&relation).await?;
        let resolved = self.resolve_positions(&relation).await?;
        if resolved.may_lose_records {
            relation.logs_rows.get_or_insert(Epoch(0));
        }
        for source in resolved.compacted {
            self.request(Request::LogRows { relation: source })?;
        }
        for notice in resolved.notices {
            tracing::info!(relation = %relation.name, notice);
            progress(notice);
        }
        let (dependants, followers) = self.dependants(creation.followers.clone()).await?;
        self.node.figures.of(id).set_name(&relation);
        for follower in &followers {
            self.node.figures.of(follower.id).set_name(follower);
        }
        let answer = self.node.events.ask(Request::Create {
            relation: Box::new(relation),
            start: resolved.start,
            targets: resolved.targets,
            begins: resolved.begins,
            replaces: creation.replaces,
            dependants,
            rows: creation.rows(id),
        })?;
        let read = |job: &JobStatus| {
            format!(
                "{:.0} % of the input is read: {} rows, {:.0} rows/s",
                job.progress, job.rows, job.rows_per_second
            )
        };
        let result = self.begun(id, answer, |job| progress(read(job))).await;
        if result.is_err() {
            let followers = followers.iter().map(|r| r.id);
            let made = followers.chain([id]);
            made.for_each(|id| self.node.figures.forget(id));
        }
        result
    }

    /// How what follows a relation is made: with what its sources hold now.
    async fn dependants(
        &self,
        followers: Followers,
    ) -> Result<(BTreeMap<RelationId, Dependant>, Vec<Relation>)> {
        let of_sink = |number: RelationId| Dependant {
            number,
            planned: None,
            targets: Positions::new(),
            begins: Positions::new(),
        };
        let sinks = followers.sinks.iter().map(|id| (*id, of_sink(*id)));
        let mut dependants: BTreeMap<RelationId, Dependant> = sinks.collect();
        for made in &followers.made {
            let relation = &made.relation;
            let resolved = self.resolve_positions(relation).await?;
            let dependant = Dependant {
                number: relation.id,
                planned: made.is_planned.then(|| Box::new(relation.clone())),
                targets: resolved.targets,
                begins: resolved.begins,
            };
            dependants.insert(made.old, dependant);
        }
        let made = followers.made.into_iter().map(|made| made.relation);
        Ok((dependants, made.collect()))
    }

    /// Of a sink: its first marker.
    async fn prepare_sink(&self, relation: &Relation) -> Result<()> {
        if relation.kind != RelationKind::Sink || relation.connector.is_none() {
            return Ok(());
        }
        let (outside, cluster) = (self.outside().clone(), self.node.cluster.clone());
        let relation = relation.clone();
        machine::blocking(move || outside.prepare_sink(&relation, &cluster)).await?
    }

    /// Where the relation's own connector starts, and what its sources hold now.
    async fn resolve_positions(&self, relation: &Relation) -> Result<Resolved> {
        let catalog = self.catalog();
        let taps = relation.job.as_ref().map(|j| j.taps()).unwrap_or_default();
        let starts = self.node.published.starts();
        let running = self.node.readers.positions();
        let sources: Vec<(Arc<Relation>, Vec<SplitPosition>)> = taps
            .iter()
            .filter_map(|(id, _)| catalog.relations.get(id))
            .filter(|r| r.connector.is_some() && !r.is_materialized())
            .map(|r| (r.clone(), starts.get(&r.id).cloned().unwrap_or_default()))
            .collect();
        let own = (relation.connector.is_some() && relation.kind != RelationKind::Sink)
            .then(|| Arc::new(relation.clone()));
        let outside = self.outside().clone();
        let resolved = machine::blocking(move || {
            let mut resolved = Resolved::default();
            for (source, start) in sources {
                let connector = outside.source(&source)?;
                let is_running = running.contains_key(&source.id);
                resolved.add_source(&source, connector.as_ref(), start, is_running)?;
            }
            if let Some(own) = own {
                resolved.add_own(&own, outside.source(&own)?.as_ref())?;
            }
            Ok::<_, Error>(resolved)
        });
        resolved.await?
    }
}

/// What a creation asks of the outside before it begins.
#[derive(Default)]
struct Resolved {
    /// Where the relation's own connector starts.
    start: Vec<SplitPosition>,
    /// Whether its records may be taken away.
    may_lose_records: bool,
    /// What the sources hold now.
    targets: Positions,
    /// Where reading begins of sources that have lost records at their start.
    begins: Positions,
    /// Sources that may lose records by now, which nobody has noticed yet.
    compacted: Vec<RelationId>,
    /// What the creator should know of them.
    notices: Vec<String>,
}

impl Resolved {
    /// A source that the job reads, which starts at `start`. One that runs is looked after.
    fn add_source(
        &mut self,
        source: &Relation,
        connector: &dyn SourceConnector,
        start: Vec<SplitPosition>,
        is_running: bool,
    ) -> Result<()> {
        self.targets.insert(source.id, connector.end()?);
        let beginning = Beginning::now(start, connector)?;
        self.notices.extend(beginning.notice(source));
        if beginning.is_moved() {
            self.begins.insert(source.id, beginning.positions);
        }
        let unnoticed =
            !is_running && source.logs_rows.is_none() && connector.may_lose_records()?;
        if unnoticed {
            self.compacted.push(source.id);
        }
        if unnoticed || source.logs_rows.is_some() {
            self.notices.push(compacted_notice(source));
        }
        Ok(())
    }

    /// The relation's own connector.
    fn add_own(&mut self, own: &Relation, connector: &dyn SourceConnector) -> Result<()> {
        self.start = connector.start()?;
        self.may_lose_records = connector.may_lose_records()?;
        if own.is_materialized() {
            self.targets.insert(own.id, connector.end()?);
        }
        Ok(())
    }
}
