//! Queries from statement to stream, and what Describe tells about a statement.

use super::{check_columns, named, names};
use crate::protocol::error::from_datafusion;
use crate::protocol::extended::{Description, sql_of};
use crate::protocol::{parameters, types};
use crate::session::{Outcome, Rows, Session, Tag};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast;
use pgwire::api::Type;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::SessionZone;
use tidemark_planner::statement::{Statement, StatementKind};

impl Session {
    /// A statement that sqlparser reads: a query or a write.
    pub(crate) async fn run_sql(
        &mut self,
        sql: &ast::Statement,
        statement: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        let mut bound;
        let sql = if parameters.is_empty() {
            if parameters::count(sql) > 0 {
                return Err(Error::user(SqlState("42P02"), "there is no parameter $1")
                    .with_hint("Parameters need values: PREPARE and EXECUTE, or a driver's."));
            }
            sql
        } else {
            bound = sql.clone();
            parameters::bind(&mut bound, parameters)?;
            &bound
        };
        match sql {
            ast::Statement::Query(query) => {
                self.lock_rows(query).await?;
                let result = self
                    .select(sql)
                    .await
                    .map_err(|e| super::position::locate(e, statement));
                Ok(Outcome::Rows(result?))
            }
            _ => self
                .run_write(sql)
                .await
                .map_err(|e| super::position::locate(e, statement)),
        }
    }

    /// Runs a query. When what it names was replaced or swapped after the query had looked it up,
    /// it looks again: that changes the relation behind a name, and not whether there is one.
    pub(crate) async fn select(&mut self, sql: &ast::Statement) -> Result<Rows> {
        check_select_lists(sql)?;
        loop {
            let snapshot = self.snapshot().await?;
            let seen = snapshot.catalog.clone();
            let result = self.select_at(snapshot, sql).await;
            let gone = |e: &Error| e.state() == SqlState::UNDEFINED_TABLE;
            if !result.as_ref().is_err_and(gone) || Arc::ptr_eq(&seen, &self.catalog()) {
                return result;
            }
        }
    }

    async fn select_at(&mut self, snapshot: super::Snapshot, sql: &ast::Statement) -> Result<Rows> {
        self.state.mark_start_execution();
        let tree = sql.clone();
        let (plan, physical) = self
            .planned(move |state| plan_to_run(state, &snapshot, tree))
            .await?;
        let columns: Vec<String> = plan
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        let names = names::output_names(sql, &columns);
        self.stream(&plan, physical, Some(names), Tag::Counted("SELECT"))
    }

    /// Runs `work` on a planning thread, with this session's functions and in its time zone.
    pub(crate) fn planned<T: Send + 'static, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        F: FnOnce(&SessionState) -> Result<T> + Send + 'static,
    {
        let (server, mut state) = (self.server.clone(), self.state.clone());
        if let Some(zone) = self.settings.get("timezone")
            && zone != "UTC"
        {
            let zone = SessionZone(zone.to_string());
            state.config_mut().options_mut().extensions.insert(zone);
        }
        async move { server.serving.planning.run(move || work(&state)).await }
    }

    /// What Describe tells: the types of parameters and the columns of the result, without running
    /// anything.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        types: &[Option<Type>],
    ) -> Result<Description> {
        let columns = |schema: SchemaRef| Some(schema);
        match &statement.kind {
            StatementKind::Sql(sql) => self
                .describe_sql(sql, types)
                .await
                .map_err(|e| super::position::locate(e, statement)),
            StatementKind::Explain { .. } => {
                let parameters = sql_of(statement)
                    .map_or(Vec::new(), |s| vec![Type::TEXT; parameters::count(s)]);
                Ok(Description {
                    parameters,
                    columns: columns(crate::show::text_schema(&["QUERY PLAN"])),
                })
            }
            StatementKind::Show { what, schema, like } => {
                match self.show(what, schema.as_deref(), like.as_deref())? {
                    Outcome::Rows(rows) => Ok(Description {
                        parameters: Vec::new(),
                        columns: columns(rows.schema),
                    }),
                    _ => Ok(Description {
                        parameters: Vec::new(),
                        columns: None,
                    }),
                }
            }
            StatementKind::Describe(name) => match self.describe_relation(name)? {
                Outcome::Rows(rows) => Ok(Description {
                    parameters: Vec::new(),
                    columns: columns(rows.schema),
                }),
                _ => Ok(Description {
                    parameters: Vec::new(),
                    columns: None,
                }),
            },
            StatementKind::ExplainJob { .. } => Ok(Description {
                parameters: Vec::new(),
                columns: columns(crate::show::text_schema(&["QUERY PLAN"])),
            }),
            StatementKind::Other(other) => match other.as_ref() {
                ast::Statement::Fetch { name, .. } => Ok(Description {
                    parameters: Vec::new(),
                    columns: self.cursor_schema(&name.value),
                }),
                _ => Ok(Description {
                    parameters: Vec::new(),
                    columns: None,
                }),
            },
            _ => Ok(Description {
                parameters: Vec::new(),
                columns: None,
            }),
        }
    }

    async fn describe_sql(
        &mut self,
        sql: &ast::Statement,
        types: &[Option<Type>],
    ) -> Result<Description> {
        // Types that the client named are given to the planner as typed NULLs; the others stay
        // placeholders, and are inferred.
        let mut typed = sql.clone();
        let in_frames = parameters::in_frames(sql);
        let in_frame = |i: usize| in_frames.iter().any(|(n, _)| *n == i + 1);
        let values: Vec<ast::Expr> = (0..types.len().max(parameters::count(sql)))
            .map(|i| match types.get(i).cloned().flatten() {
                Some(t) if !in_frame(i) => parameters::null(Some(&t)),
                _ => ast::Expr::Value(ast::Value::Placeholder(format!("${}", i + 1)).into()),
            })
            .collect();
        parameters::bind(&mut typed, &values)?;
        let snapshot = self.snapshot().await?;
        let (plan, inferred, columns) = match &typed {
            ast::Statement::Query(_) => {
                check_select_lists(&typed)?;
                let tree = typed.clone();
                let plan = self
                    .planned(move |state| plan_query(state, &snapshot, &tree))
                    .await?;
                (Some(plan), Vec::new(), true)
            }
            write => self.describe_write(snapshot, write).await?,
        };
        let mut found: std::collections::HashMap<usize, Type> = inferred.into_iter().collect();
        found.extend(evident_parameters(&typed));
        let optimized = match &plan {
            Some(plan) => self.optimized(plan).await,
            None => None,
        };
        // Types are final in the optimised plan; what it does not read has that of binding.
        for plan in optimized.iter().chain(&plan) {
            for (name, field) in plan.get_parameter_fields().map_err(from_datafusion)? {
                if let (Some(n), Some(field)) =
                    (name.strip_prefix('$').and_then(|n| n.parse().ok()), field)
                {
                    found.entry(n).or_insert_with(|| types::pg_type(&field));
                }
            }
        }
        let parameters = (0..values.len())
            .map(|i| {
                types
                    .get(i)
                    .cloned()
                    .flatten()
                    .or_else(|| found.get(&(i + 1)).cloned())
                    .or_else(|| in_frames.contains(&(i + 1, true)).then_some(Type::INT8))
                    .unwrap_or(Type::TEXT)
            })
            .collect();
        let columns = match plan.filter(|_| columns) {
            Some(plan) => {
                let schema = names::with_casts(&plan);
                let planned: Vec<String> =
                    schema.fields().iter().map(|f| f.name().clone()).collect();
                // What the optimiser changes in types (counts, sums) shows in the physical plan
                // only.
                let physical =
                    optimized.map_or_else(|| schema.clone(), |p| p.schema().inner().clone());
                Some(named(
                    &schema,
                    &physical,
                    Some(names::output_names(&typed, &planned)),
                )?)
            }
            None => None,
        };
        Ok(Description {
            parameters,
            columns,
        })
    }

    /// A plan as it will be run; `None` when it cannot be told (parameters without type).
    async fn optimized(&mut self, plan: &LogicalPlan) -> Option<LogicalPlan> {
        let plan = plan.clone();
        self.planned(move |state| state.optimize(&plan).map_err(from_datafusion))
            .await
            .ok()
    }
}

/// Plans a query and how to run it. System queries whose subqueries cannot be planned get a second
/// try without them.
fn plan_to_run(
    state: &SessionState,
    snapshot: &super::Snapshot,
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
            attempt(&super::system::without_subqueries(sql)).map_err(|_: Error| first)
        }
        other => other,
    }
}

/// Plans a query against a snapshot: system queries are rewritten, windows expanded.
pub(crate) fn plan_query(
    state: &SessionState,
    snapshot: &super::Snapshot,
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
fn check_select_lists(sql: &ast::Statement) -> Result<()> {
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
fn evident_parameters(statement: &ast::Statement) -> Vec<(usize, Type)> {
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
