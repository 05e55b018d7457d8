//! Queries whose plans are kept, from their texts to their rows.

use crate::asker::Asker;
use crate::error::from_datafusion;
use crate::outcome::{RowStream, Rows, Tag};
use crate::parameters;
use crate::serving::plans::{BYTES_MAX, Plan, relations_of, runs_again};
use crate::serving::query::check_select_lists;
use crate::serving::sight::Sight;
use crate::serving::slots::{self, Slot, filled, left_open};
use crate::serving::threads::Taker;
use crate::snapshot::Snapshot;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, Expr};
use std::sync::Arc;
use tidemark_common::{RelationId, Result};
use tidemark_plan::{Catalog, Relation};

impl Asker {
    /// Whether the plan of a query is kept that can run again.
    pub fn knows_plan(&self, text: &str) -> bool {
        self.known_plan(text, &[]).is_some()
    }

    fn known_plan(&self, text: &str, parameters: &[Expr]) -> Option<Arc<Plan>> {
        let plan = self.plans.get(text, parameters)?;
        let same = plan.is_of(&self.catalog(), &self.settings);
        (same && self.transaction.written().is_none()).then(|| plan.clone())
    }

    /// Runs a query by a plan that is kept; `None` for one that is to be planned.
    pub async fn run_again(&mut self, text: &str, parameters: &[Expr]) -> Result<Option<Rows>> {
        match self.known_plan(text, parameters) {
            Some(plan) => self.run_known(&plan, &[]).await,
            None => Ok(None),
        }
    }

    async fn run_known(&mut self, plan: &Plan, values: &[ScalarValue]) -> Result<Option<Rows>> {
        let reads: Vec<RelationId> = plan.relations.iter().map(|r| r.id).collect();
        let pin = self.read_pin(&reads).await?;
        let is_there = |r: &Arc<Relation>| r.created_at <= Some(pin.epoch());
        let are_there = plan.relations.iter().all(is_there);
        let sight = Sight::new(&self.commons.engine, pin, &plan.relations);
        // Another catalog may have come while the epoch was waited for, or just now.
        if !are_there || !Arc::ptr_eq(&plan.catalog, &self.catalog()) {
            return Ok(None);
        }
        let sight = sight?;
        if sight.shares() != plan.shares {
            return Ok(None);
        }
        self.run_plan(plan, values, sight).map(Some)
    }

    /// Plans a query and runs it, and keeps the plan; `None` for a query of which none is kept, and
    /// where the catalog has moved meanwhile.
    ///
    /// Errors: those of the query.
    pub(crate) async fn plan_and_keep(
        &mut self,
        sql: &ast::Statement,
        text: &str,
        parameters: &[Expr],
    ) -> Result<Option<Rows>> {
        if !is_short(text, parameters) || self.transaction.written().is_some() {
            return Ok(None);
        }
        let Some((relations, snapshot)) = self.to_keep(sql).await? else {
            return Ok(None);
        };
        let (pin, catalog) = (snapshot.pin.clone(), snapshot.catalog.clone());
        let settings = snapshot.settings.clone();
        let sight = Sight::new(&self.commons.engine, pin, &relations);
        let planned = self.plan_select(snapshot, sql).await;
        let planned = planned.and_then(|planned| Ok((planned, sight?)));
        if planned.is_err() && !Arc::ptr_eq(&catalog, &self.catalog()) {
            return Ok(None);
        }
        let ((physical, schema), sight) = planned?;
        let plan = Plan {
            catalog,
            settings,
            relations,
            shares: sight.shares(),
            physical,
            schema,
        };
        let rows = self.run_plan(&plan, &[], sight)?;
        if runs_again(&plan.physical) {
            self.plans.put(text, parameters, Arc::new(plan));
        }
        Ok(Some(rows))
    }

    /// Runs a query by a plan that takes the values of parameters, which is made when the query
    /// comes for the second time; `None` for one that is to be planned with its values.
    pub(crate) async fn run_with_values(
        &mut self,
        text: &str,
        parameters: &[Expr],
        tree: impl FnOnce() -> Option<ast::Statement>,
    ) -> Result<Option<Rows>> {
        if !is_short(text, parameters) || self.transaction.written().is_some() {
            return Ok(None);
        }
        let (catalog, settings) = (self.catalog(), self.settings.clone());
        let Some(slots) = self.known_slots.get(text, &catalog, &settings) else {
            let slots = tree().map_or_else(Vec::new, |sql| self.slots_in(&sql, &catalog));
            self.known_slots.put(text, &catalog, &settings, slots);
            return Ok(None);
        };
        let zone = self.zone();
        let values = slots.iter().map(|slot| slot.value(parameters, &zone));
        let values = values.collect::<Option<Vec<_>>>();
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            return Ok(None);
        };
        let open = left_open(parameters, &slots);
        if let Some(plan) = self.known_plan(text, &open)
            && let Some(rows) = self.run_known(&plan, &values).await?
        {
            return Ok(Some(rows));
        }
        let Some(sql) = tree() else {
            return Ok(None);
        };
        // What is wrong with a query is told when it is planned with its values.
        match self.plan_open(sql, &open, &slots, &values).await {
            Ok(Some((plan, sight))) => {
                let rows = self.run_plan(&plan, &values, sight)?;
                self.plans.put(text, &open, Arc::new(plan));
                Ok(Some(rows))
            }
            Ok(None) | Err(_) => {
                self.known_slots.put(text, &catalog, &settings, Vec::new());
                Ok(None)
            }
        }
    }

    fn slots_in(&self, sql: &ast::Statement, catalog: &Catalog) -> Vec<Slot> {
        let relations = relations_of(sql, catalog, &self.settings.search_path());
        match relations.as_deref() {
            Some([relation]) => slots::slots_of(sql, &relation.columns),
            _ => Vec::new(),
        }
    }

    /// The plan of a query for all values of its slots, and what it sees now; `None` for a query
    /// that has none.
    async fn plan_open(
        &mut self,
        mut sql: ast::Statement,
        parameters: &[Expr],
        slots: &Arc<[Slot]>,
        values: &[ScalarValue],
    ) -> Result<Option<(Plan, Sight)>> {
        parameters::bind(&mut sql, parameters)?;
        let Some((relations, snapshot)) = self.to_keep(&sql).await? else {
            return Ok(None);
        };
        let (pin, catalog) = (snapshot.pin.clone(), snapshot.catalog.clone());
        let settings = snapshot.settings.clone();
        let sight = Sight::new(&self.commons.engine, pin, &relations)?;
        let planned = self.plan_open_select(snapshot, &sql, slots, values).await?;
        Ok(planned.map(|(physical, schema)| {
            let plan = Plan {
                catalog,
                settings,
                relations,
                shares: sight.shares(),
                physical,
                schema,
            };
            (plan, sight)
        }))
    }

    /// The relations that a query reads whose plan may be kept, and what it sees; `None` for any
    /// other, and where the catalog has moved meanwhile.
    async fn to_keep(
        &mut self,
        sql: &ast::Statement,
    ) -> Result<Option<(Vec<Arc<Relation>>, Snapshot)>> {
        let catalog = self.catalog();
        let Some(relations) = relations_of(sql, &catalog, &self.settings.search_path()) else {
            return Ok(None);
        };
        check_select_lists(sql)?;
        let mut snapshot = self.snapshot(sql).await?;
        if !Arc::ptr_eq(&catalog, &snapshot.catalog) {
            return Ok(None);
        }
        snapshot.again = true;
        Ok(Some((relations, snapshot)))
    }

    fn run_plan(&self, plan: &Plan, values: &[ScalarValue], sight: Sight) -> Result<Rows> {
        let physical = filled(&plan.physical, values).map_err(from_datafusion)?;
        let limit = self.query_memory();
        let sight = Some(Arc::new(sight));
        let (state, taker) = (&self.state, Taker::Client);
        let running = self.serving.run(state, physical, taker, limit, sight)?;
        Ok(Rows {
            schema: plan.schema.clone(),
            stream: RowStream::Made(running.rows),
            tag: Tag::Counted("SELECT"),
        })
    }
}

/// Whether the plan of a query may be kept by its text and parameters.
fn is_short(text: &str, parameters: &[Expr]) -> bool {
    let bytes = |parameter: &Expr| parameter.to_string().len();
    text.len() + parameters.iter().map(bytes).sum::<usize>() <= BYTES_MAX
}
