//! How a client's queries run: what they see, where they are planned, and their rows.

use super::Asker;
use crate::outcome::{RowStream, Rows, Tag};
use crate::serving::query::{check_select_lists, plan_to_run};
use crate::serving::slots::{self, Slot};
use crate::serving::threads::Taker;
use crate::serving::{named, names, reads, threads};
use crate::snapshot::Snapshot;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;
use tidemark_common::{Epoch, Error, Result, SqlState};
use tidemark_node::engine::Pin;
use tidemark_plan::Catalog;
use tidemark_planner::SessionZone;

impl Asker {
    /// What a statement sees that reads what `node` names.
    pub(crate) async fn snapshot<V: ast::Visit + Sync>(&mut self, node: &V) -> Result<Snapshot> {
        // The catalog before the epoch: every relation in it exists at an epoch that is pinned
        // after it.
        let catalog = self.catalog();
        let reads = reads::relations_in(&catalog, &self.settings.search_path(), node);
        let pin = self.read_pin(&reads).await?;
        let written = self.transaction.written();
        Ok(Snapshot {
            written,
            ..self.snapshot_at(catalog, pin)
        })
    }

    /// What is seen of an epoch, without what an open block has written.
    fn snapshot_at(&mut self, catalog: Arc<Catalog>, pin: Arc<Pin>) -> Snapshot {
        Snapshot {
            commons: self.commons.clone(),
            catalog,
            pin,
            written: None,
            search_path: self.settings.search_path(),
            user: self.user().into(),
            overrides: Vec::new(),
            again: false,
            notices: self.voice.notices.clone(),
            settings: self.settings.clone(),
            prepared: self.prepared.clone(),
            effects: self.effects(),
            readable: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Runs a query over the newest rows that were committed, also in a block, and answers at which
    /// epoch: one that is at least this.
    pub async fn select_newest(
        &mut self,
        sql: &ast::Statement,
        at_least: Epoch,
    ) -> Result<(Epoch, Rows)> {
        let catalog = self.catalog();
        let reads = reads::relations_in(&catalog, &self.settings.search_path(), sql);
        let at_least = at_least.max(self.written_for(&reads));
        let pin = Arc::new(self.commons.engine.pin_when(&reads, at_least).await?);
        let (epoch, snapshot) = (pin.epoch(), self.snapshot_at(catalog, pin));
        Ok((epoch, self.select_at(snapshot, sql).await?))
    }

    /// Starts a physical plan and streams its rows, which a statement takes.
    pub(crate) fn stream(
        &self,
        plan: &LogicalPlan,
        physical: Arc<dyn ExecutionPlan>,
        names: Option<Vec<String>>,
        tag: Tag,
    ) -> Result<Rows> {
        let schema = named(&names::with_casts(plan), &physical.schema(), names)?;
        Ok(Rows {
            schema,
            stream: RowStream::Made(self.start_plan(physical, Taker::Statement)?.rows),
            tag,
        })
    }

    /// Starts a physical plan with memory of its own.
    pub(crate) fn start_plan(
        &self,
        physical: Arc<dyn ExecutionPlan>,
        taker: Taker,
    ) -> Result<threads::Running> {
        let limit = self.query_memory();
        self.serving.run(&self.state, physical, taker, limit, None)
    }

    /// The memory that a query has by this session, in bytes: more than by default only if a
    /// superuser says so.
    pub(crate) fn query_memory(&self) -> Option<u64> {
        let most = match self.catalog().is_superuser(self.user()) {
            true => u64::MAX,
            false => self.serving.memory_of_one(),
        };
        let limit = self.settings.bytes("query_memory_max");
        limit.map(|bytes| bytes.min(most))
    }

    /// Runs a query. When what it names was replaced or swapped after the query had looked it up,
    /// it looks again: that changes the relation behind a name, and not whether there is one.
    pub async fn select(&mut self, sql: &ast::Statement) -> Result<Rows> {
        check_select_lists(sql)?;
        loop {
            let snapshot = self.snapshot(sql).await?;
            let seen = snapshot.catalog.clone();
            let result = self.select_at(snapshot, sql).await;
            let gone = |e: &Error| e.state() == SqlState::UNDEFINED_TABLE;
            if !result.as_ref().is_err_and(gone) || Arc::ptr_eq(&seen, &self.catalog()) {
                return result;
            }
        }
    }

    async fn select_at(&mut self, snapshot: Snapshot, sql: &ast::Statement) -> Result<Rows> {
        let (physical, schema) = self.plan_select(snapshot, sql).await?;
        Ok(Rows {
            schema,
            stream: RowStream::Made(self.start_plan(physical, Taker::Client)?.rows),
            tag: Tag::Counted("SELECT"),
        })
    }

    /// How a query is run, and the columns of its result.
    pub(crate) async fn plan_select(
        &mut self,
        snapshot: Snapshot,
        sql: &ast::Statement,
    ) -> Result<(Arc<dyn ExecutionPlan>, SchemaRef)> {
        self.state.mark_start_execution();
        let tree = sql.clone();
        let (plan, physical) = self
            .planned(move |state| plan_to_run(state, &snapshot, tree))
            .await?;
        let schema = columns_of(sql, &plan, &physical)?;
        Ok((physical, schema))
    }

    /// The same of a query with open parameters; `None` for one that has no plan for all values.
    pub(crate) async fn plan_open_select(
        &mut self,
        snapshot: Snapshot,
        sql: &ast::Statement,
        slots: &Arc<[Slot]>,
        values: &[ScalarValue],
    ) -> Result<Option<(Arc<dyn ExecutionPlan>, SchemaRef)>> {
        self.state.mark_start_execution();
        let (tree, slots, values) = (sql.clone(), slots.clone(), values.to_vec());
        let work =
            move |state: &SessionState| slots::plan(state, &snapshot, &tree, &slots, &values);
        let planned = self.planned(work).await?;
        let with_columns = |(plan, physical)| {
            let schema = columns_of(sql, &plan, &physical)?;
            Ok((physical, schema))
        };
        planned.map(with_columns).transpose()
    }

    /// Runs `work` on a planning thread, with this session's functions and in its time zone.
    pub(crate) fn planned<T: Send + 'static, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        F: FnOnce(&SessionState) -> Result<T> + Send + 'static,
    {
        let (serving, mut state) = (self.serving.clone(), self.state.clone());
        if let Some(zone) = self.settings.get("timezone")
            && zone != "UTC"
        {
            let zone = SessionZone(zone.to_string());
            state.config_mut().options_mut().extensions.insert(zone);
        }
        async move { serving.planning.run(move || work(&state)).await }
    }

    /// A plan as it will be run; `None` when it cannot be told (parameters without type).
    pub(crate) async fn optimized(&mut self, plan: &LogicalPlan) -> Option<LogicalPlan> {
        let plan = plan.clone();
        self.planned(move |state| crate::serving::optimized(state, &plan))
            .await
            .ok()
    }
}

/// The columns of a query's result.
fn columns_of(
    sql: &ast::Statement,
    plan: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
) -> Result<SchemaRef> {
    let fields = plan.schema().fields().iter();
    let columns: Vec<String> = fields.map(|f| f.name().clone()).collect();
    let names = names::output_names(sql, &columns);
    named(&names::with_casts(plan), &physical.schema(), Some(names))
}
