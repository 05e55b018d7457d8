//! EXPLAIN of a query: its plan, and with ANALYZE what it did.

use crate::asker::Asker;
use crate::error::from_datafusion;
use crate::serving::physical_plan;
use crate::serving::query::plan_query;
use crate::serving::threads::Taker;
use datafusion::physical_plan::displayable;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;
use tidemark_common::Result;

impl Asker {
    /// The lines of a query's plan; with `analyze`, after it ran.
    pub async fn explain_query(
        &mut self,
        query: &ast::Statement,
        analyze: bool,
        verbose: bool,
    ) -> Result<Vec<String>> {
        let snapshot = self.snapshot(query).await?;
        self.state.mark_start_execution();
        let query = query.clone();
        let planned = self.planned(move |state| {
            let plan = plan_query(state, &snapshot, &query)?;
            let mut lines = Vec::new();
            if verbose {
                let optimized = crate::serving::optimized(state, &plan)?;
                let text = optimized.display_indent().to_string();
                lines.extend(text.lines().map(str::to_string));
                lines.push(String::new());
            }
            Ok((physical_plan(state, &plan)?, lines))
        });
        let (physical, mut lines) = planned.await?;
        if analyze {
            let started = std::time::Instant::now();
            let running = self.start_plan(physical, Taker::Statement)?;
            let rows: usize = running
                .rows
                .try_fold(0, |n, b| async move { Ok(n + b.num_rows()) })
                .await
                .map_err(from_datafusion)?;
            let text = datafusion::physical_plan::display::DisplayableExecutionPlan::with_metrics(
                running.plan.as_ref(),
            )
            .indent(verbose)
            .to_string();
            lines.extend(text.lines().map(str::to_string));
            lines.push(format!("Rows: {rows}"));
            lines.push(format!(
                "Execution Time: {:.3} ms",
                started.elapsed().as_secs_f64() * 1e3
            ));
        } else {
            lines.extend(
                displayable(physical.as_ref())
                    .indent(verbose)
                    .to_string()
                    .lines()
                    .map(str::to_string),
            );
        }
        Ok(lines)
    }
}
