//! `TRUNCATE`: all rows of each table leave, in one transaction.

use super::Session;
use tidemark_common::Result;
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::Statement;
use tidemark_query::outcome::{Outcome, Status};

impl Session {
    /// Several tables outside of a block have a block of their own, which ends with the statement
    /// however that ends ([`Session::failed`]).
    pub(super) async fn truncate(
        &mut self,
        deletes: &[ast::Statement],
        statement: &Statement,
    ) -> Result<Outcome> {
        self.truncates = self.status() == Status::Idle && deletes.len() > 1;
        if self.truncates {
            self.begin(false).await?;
        }
        for delete in deletes {
            self.asker.run_sql(delete, statement, &[]).await?;
        }
        if self.truncates {
            self.commit().await?;
            self.truncates = false;
        }
        Ok(Outcome::Command("TRUNCATE TABLE".into()))
    }
}
