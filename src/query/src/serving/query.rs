//! Queries from statement to plan.

use super::{check_columns, names};
use crate::snapshot::Snapshot;
use crate::{parameters, types};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use postgres_types::Type;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};

/// Plans a query and how to run it. System queries whose subqueries cannot be planned are tried
/// without rows in them, and without them.
pub(crate) fn plan_to_run(
    state: &SessionState,
    snapshot: &Snapshot,
    sql: ast::Statement,
) -> Result<(LogicalPlan, Arc<dyn ExecutionPlan>)> {
    let attempt = |sql: &ast::Statement| -> Result<(LogicalPlan, Arc<dyn ExecutionPlan>)> {
        let plan = plan_query(state, snapshot, sql)?;
        let physical = super::physical_plan(state, &plan)?;
        Ok((plan, physical))
    };
    // A limit is one for the subqueries too: without them, the answer would be another.
    let final_states = [SqlState::STATEMENT_TOO_COMPLEX, SqlState::QUERY_CANCELED];
    match attempt(&sql) {
        Err(first)
            if !final_states.contains(&first.state())
                && super::rewrite::reads_system_tables(&sql) =>
        {
            attempt(&super::system::with_empty_subqueries(sql.clone()))
                .or_else(|_: Error| attempt(&super::system::without_subqueries(sql)))
                .map_err(|_: Error| first)
        }
        other => other,
    }
}

/// Plans a query against a snapshot: system queries are rewritten, windows expanded.
pub(crate) fn plan_query(
    state: &SessionState,
    snapshot: &Snapshot,
    sql: &ast::Statement,
) -> Result<LogicalPlan> {
    let rewritten = super::rewrite::query(snapshot, sql.clone())?;
    match super::plan(state, snapshot, names::prepare(rewritten.clone(), false)) {
        // DataFusion names two expressions alike that differ in a cast only.
        Err(e) if e.state() == SqlState::DUPLICATE_COLUMN => {
            super::plan(state, snapshot, names::prepare(rewritten, true))
        }
        other => other,
    }
}

/// `54011` for a select list that is too long as it is written: thousands of columns take minutes
/// to plan.
pub(crate) fn check_select_lists(sql: &ast::Statement) -> Result<()> {
    struct Lists;
    impl ast::Visitor for Lists {
        type Break = Error;
        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
            match check_columns(select.projection.len()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(e),
            }
        }
    }
    match ast::Visit::visit(sql, &mut Lists) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// `$1::type`: the parameter has that type. `LIMIT $1`: it counts rows.
pub(crate) fn evident_parameters(statement: &ast::Statement) -> Vec<(usize, Type)> {
    struct Finder(Vec<(usize, Type)>);
    impl ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            let (limit, offset) = match &query.limit_clause {
                Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
                    (limit.as_ref(), offset.as_ref().map(|o| &o.value))
                }
                Some(ast::LimitClause::OffsetCommaLimit { offset, limit }) => {
                    (Some(limit), Some(offset))
                }
                None => (None, None),
            };
            let fetch = query.fetch.as_ref().and_then(|f| f.quantity.as_ref());
            let counts = [limit, offset, fetch].into_iter().flatten();
            let numbers = counts.filter_map(parameters::placeholder);
            self.0.extend(numbers.map(|n| (n, Type::INT8)));
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Cast {
                expr, data_type, ..
            } = expr
                && let Some(n) = parameters::placeholder(expr)
                && let Ok(Some(field)) = names::TypeNames.plan_type_field(data_type)
            {
                self.0.push((n, types::pg_type(&field)));
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(Vec::new());
    let _ = ast::Visit::visit(statement, &mut finder);
    finder.0
}
