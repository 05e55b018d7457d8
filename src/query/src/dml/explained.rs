//! EXPLAIN of an UPDATE or DELETE: the plan by which it finds its rows. Nothing is locked.

use super::change::{plan_delete, plan_update};
use super::*;
use datafusion::physical_plan::displayable;

impl Asker {
    /// The lines of the plan of an UPDATE or DELETE; `None` for another statement. `0A000` for
    /// `analyze`, which would run it.
    pub async fn explain_write(
        &mut self,
        write: &ast::Statement,
        analyze: bool,
        verbose: bool,
    ) -> Result<Option<Vec<String>>> {
        let (table, verb, head) = match write {
            ast::Statement::Update(update) => (&update.table, "update", "Update"),
            ast::Statement::Delete(delete) => (delete_target(delete)?, "delete from", "Delete"),
            _ => return Ok(None),
        };
        if analyze {
            let text = format!(
                "EXPLAIN ANALYZE of {} is not supported",
                head.to_uppercase()
            );
            return Err(Error::unsupported(text).with_hint("EXPLAIN shows its plan."));
        }
        let (object, alias) = table_and_alias(table)?;
        let relation = self.target(object, verb)?;
        let first = format!("{head} on {}", relation.name);
        let name = alias.unwrap_or_else(|| relation.name.clone());
        let snapshot = self.snapshot(write).await?;
        self.state.mark_start_execution();
        let write = write.clone();
        let planned = self.planned(move |state| {
            let plan = match &write {
                ast::Statement::Update(update) => {
                    plan_update(state, &snapshot, update, &relation, &name)?.0
                }
                ast::Statement::Delete(delete) => {
                    plan_delete(state, &snapshot, delete, &relation, &name)?
                }
                other => return Err(Error::internal(format!("a plan of {other}"))),
            };
            Ok(runnable(state, plan)?.1)
        });
        let physical = planned.await?;
        let text = displayable(physical.as_ref()).indent(verbose).to_string();
        let lines = text.lines().map(|line| format!("  {line}"));
        Ok(Some(std::iter::once(first).chain(lines).collect()))
    }
}
