//! The simple protocol: a text of any number of statements; each gives its results, the first error
//! ends the text.
//!
//! A text of writes alone is one transaction: all of them count, or none. DDL, which takes effect
//! at once, and reads, which may be of views over what was just written, end one statement's effect
//! before the next begins; so in a text with those every statement commits alone.

use super::{Connection, Failure, answer, caught};
use crate::formats::Formats;
use std::pin::pin;
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::outcome::Status;

fn is_write(statement: &Statement) -> bool {
    let StatementKind::Sql(sql) = &statement.kind else {
        return false;
    };
    matches!(
        **sql,
        ast::Statement::Insert(_) | ast::Statement::Update(_) | ast::Statement::Delete(_)
    )
}

impl Connection {
    /// Runs the statements of a Query message. Errors are reported here; ReadyForQuery is the
    /// caller's.
    pub(super) async fn simple(&mut self, text: &str) -> Result<(), Failure> {
        let outcome = caught(pin!(self.run_text(text))).await;
        match outcome {
            Err(Failure::Statement(e)) => self.report(&e).await,
            other => other,
        }
    }

    async fn run_text(&mut self, text: &str) -> Result<(), Failure> {
        let again = self.line.drive(pin!(self.session.run_text(text))).await?;
        if let Some(outcome) = again {
            return self.send_outcome(outcome, &Formats::default(), true).await;
        }
        let statements = self.line.drive(self.session.parse(text)).await?;
        if statements.is_empty() {
            return self.line.put(answer::EMPTY_QUERY_RESPONSE).await;
        }
        if statements.len() == 1
            || self.session.status() != Status::Idle
            || !statements.iter().all(is_write)
        {
            return self.run_all(&statements).await;
        }
        Box::pin(self.run_writes(&statements)).await
    }

    /// Writes, all of them or none.
    async fn run_writes(&mut self, statements: &[Statement]) -> Result<(), Failure> {
        self.line.drive(self.session.begin(false)).await?;
        match self.run_all(statements).await {
            Ok(()) => self.line.drive(self.session.commit()).await.map(|_| ()),
            Err(e) => {
                self.session.rollback()?;
                Err(e)
            }
        }
    }

    async fn run_all(&mut self, statements: &[Statement]) -> Result<(), Failure> {
        for statement in statements {
            caught(pin!(self.run_one(statement))).await?;
        }
        Ok(())
    }

    async fn run_one(&mut self, statement: &Statement) -> Result<(), Failure> {
        self.limit_statement();
        let outcome = self
            .line
            .drive(self.session.execute(statement, &[]))
            .await?;
        self.send_outcome(outcome, &Formats::default(), true).await
    }
}
