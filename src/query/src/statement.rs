//! Statements that sqlparser reads, queries and writes, from their trees to their rows, and what
//! Describe tells of them.

use crate::asker::Asker;
use crate::error::from_datafusion;
use crate::outcome::Outcome;
use crate::serving::query::{check_select_lists, evident_parameters, plan_query};
use crate::serving::{named, names, position};
use crate::{parameters, types};
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast;
use postgres_types::Type;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::statement::{Statement, StatementKind};

/// What Describe tells about a statement.
#[derive(Clone, Debug)]
pub struct Description {
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<Type>,
    /// Columns of the result; none for a statement without rows.
    pub columns: Option<SchemaRef>,
}

/// The SQL tree of a statement that can have parameters.
pub fn sql_of(statement: &Statement) -> Option<&ast::Statement> {
    match &statement.kind {
        StatementKind::Sql(sql) => Some(sql),
        StatementKind::Explain { statement, .. } => sql_of(statement),
        _ => None,
    }
}

impl Asker {
    /// A statement that sqlparser reads: a query or a write.
    pub async fn run_sql(
        &mut self,
        sql: &ast::Statement,
        statement: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        self.run_bound(sql, statement, parameters, false).await
    }

    /// The same of a statement whose text is all that it says: its plan is kept, or was.
    pub async fn run_sql_again(
        &mut self,
        sql: &ast::Statement,
        statement: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        if let Some(rows) = self.run_again(&statement.text, parameters).await? {
            return Ok(Outcome::Rows(rows));
        }
        if !parameters.is_empty() && matches!(sql, ast::Statement::Query(_)) {
            let tree = || Some(sql.clone());
            let run = self.run_with_values(&statement.text, parameters, tree);
            if let Some(rows) = run.await? {
                return Ok(Outcome::Rows(rows));
            }
        }
        self.run_bound(sql, statement, parameters, true).await
    }

    /// `keep`: the plan, by the statement's text.
    async fn run_bound(
        &mut self,
        sql: &ast::Statement,
        statement: &Statement,
        parameters: &[ast::Expr],
        keep: bool,
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
                let located = |e| position::locate(e, statement);
                if keep {
                    let kept = self.plan_and_keep(sql, &statement.text, parameters).await;
                    if let Some(rows) = kept.map_err(located)? {
                        return Ok(Outcome::Rows(rows));
                    }
                }
                Ok(Outcome::Rows(self.select(sql).await.map_err(located)?))
            }
            _ => self
                .run_write(sql)
                .await
                .map_err(|e| position::locate(e, statement)),
        }
    }

    /// The types of parameters and the columns of the result, without running anything.
    pub async fn describe_sql(
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
        let snapshot = self.snapshot(&typed).await?;
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
}
