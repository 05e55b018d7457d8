//! The simple protocol: a text of any number of statements; each gives its results, the first error ends the text.

use super::encode::Formats;
use super::{Connection, Failure};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;

impl Connection {
    /// Runs the statements of a Query message. Errors are reported here; ReadyForQuery is the caller's.
    pub(super) async fn simple(&mut self, text: &str) -> Result<(), Failure> {
        let outcome = self.run_text(text).await;
        self.session.end_text(outcome.is_ok());
        match outcome {
            Err(Failure::Statement(e)) => self.report(&e).await,
            other => other,
        }
    }

    async fn run_text(&mut self, text: &str) -> Result<(), Failure> {
        let statements = self.session.parse(text)?;
        if statements.is_empty() {
            return self.line.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await;
        }
        for statement in &statements {
            let outcome = self.line.drive(self.session.execute(statement, &[])).await?;
            self.send_outcome(outcome, &Formats::default(), true).await?;
        }
        Ok(())
    }
}
