//! Queries whose plans are kept, from their texts to their rows.

use crate::asker::Asker;
use crate::error::from_datafusion;
use crate::outcome::{RowStream, Rows, Tag};
use crate::serving::plans::{BYTES_MAX, Plan, relations_of, runs_again};
use crate::serving::query::check_select_lists;
use crate::serving::sight::Sight;
use crate::serving::threads::Taker;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::sql::sqlparser::ast::{self, Expr};
use std::sync::Arc;
use tidemark_common::{RelationId, Result};
use tidemark_plan::Relation;

impl Asker {
    /// Whether the plan of a query is kept that can run again.
    pub fn knows_plan(&self, text: &str) -> bool {
        self.known_plan(text, &[]).is_some()
    }

    fn known_plan(&self, text: &str, parameters: &[Expr]) -> Option<Arc<Plan>> {
        let plan = self.plans.get(text, parameters)?;
        let same = Arc::ptr_eq(&plan.catalog, &self.catalog())
            && self.settings.equals(&plan.settings)
            && self.transaction.written().is_none();
        same.then(|| plan.clone())
    }

    /// Runs a query by a plan that is kept; `None` for one that is to be planned.
    pub async fn run_again(&mut self, text: &str, parameters: &[Expr]) -> Result<Option<Rows>> {
        let Some(plan) = self.known_plan(text, parameters) else {
            return Ok(None);
        };
        let reads: Vec<RelationId> = plan.relations.iter().map(|r| r.id).collect();
        let pin = self.read_pin(&reads).await?;
        let is_there = |r: &Arc<Relation>| r.created_at <= Some(pin.epoch());
        // Another catalog may have come while the epoch was waited for.
        if !Arc::ptr_eq(&plan.catalog, &self.catalog()) || !plan.relations.iter().all(is_there) {
            return Ok(None);
        }
        let sight = Sight::new(&self.commons.engine, pin, &plan.relations)?;
        if sight.shares() != plan.shares {
            return Ok(None);
        }
        self.run_plan(&plan, sight).map(Some)
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
        let catalog = self.catalog();
        let is_short = text.len() + parameters.iter().map(text_bytes).sum::<usize>() <= BYTES_MAX;
        if !is_short || self.transaction.written().is_some() {
            return Ok(None);
        }
        let Some(relations) = relations_of(sql, &catalog, &self.settings.search_path()) else {
            return Ok(None);
        };
        check_select_lists(sql)?;
        let mut snapshot = self.snapshot(sql).await?;
        if !Arc::ptr_eq(&catalog, &snapshot.catalog) {
            return Ok(None);
        }
        snapshot.again = true;
        let engine = &self.commons.engine;
        let sight = Sight::new(engine, snapshot.pin.clone(), &relations);
        let settings = snapshot.settings.clone();
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
        let rows = self.run_plan(&plan, sight)?;
        if runs_again(&plan.physical) {
            self.plans.put(text, parameters, Arc::new(plan));
        }
        Ok(Some(rows))
    }

    fn run_plan(&self, plan: &Plan, sight: Sight) -> Result<Rows> {
        let physical = reset_plan_states(plan.physical.clone()).map_err(from_datafusion)?;
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

fn text_bytes(parameter: &Expr) -> usize {
    parameter.to_string().len()
}
