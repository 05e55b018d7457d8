//! Runs one `.slt` script against a server of its own.
//!
//! Records are those of [sqllogictest](https://www.sqlite.org/sqllogictest/); `statement error`
//! matches `SQLSTATE: message` as a regular expression, or the SQLSTATE alone as `(42P01)`.
//! Comments of these forms are commands:
//!
//! ```text
//! # restart                the server is killed (-9) and started again
//! # restart asked          ... after SIGTERM instead
//! # restart workers=3      ... with that many workers
//! # unchecked v            from here on view v is not compared with its query (it may fail)
//! # views FOLDER           a materialized view for every FOLDER/*.sql, by its name
//! # check                  compare all views now
//! ```
//!
//! Every materialized view is compared with its query after each write, before and after each
//! restart and at the end (see [`crate::views`]). A script goes on after a failure, so that one run
//! tells all; a view that differs is reported once.

use crate::client::{ClientError, Session};
use crate::server::{Ending, Server};
use crate::views::Views;
use sqllogictest::{
    AsyncDB, DefaultColumnType, ParseError, QueryExpect, Record, RecordOutput, Runner,
    StatementExpect, default_column_validator, default_normalizer, default_validator, parse_file,
    update_record_with_output,
};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tidemark_common::{Error, Result};

/// Failures of one script after which it is given up.
const FAILURES_MAX: usize = 40;

/// What a script is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To compare.
    Check,
    /// To write the answers that differ into the file. Differences between views and queries are
    /// failures all the same.
    Update,
}

/// The session that ran the last statement, shared with the one who checks the views.
type Last = Arc<Mutex<Option<Session>>>;

/// A session that says who spoke last.
struct Speaker {
    session: Session,
    last: Last,
}

#[async_trait::async_trait]
impl AsyncDB for Speaker {
    type Error = ClientError;
    type ColumnType = DefaultColumnType;

    async fn run(
        &mut self,
        sql: &str,
    ) -> std::result::Result<sqllogictest::DBOutput<DefaultColumnType>, ClientError> {
        if let Ok(mut last) = self.last.lock() {
            *last = Some(self.session.clone());
        }
        AsyncDB::run(&mut self.session, sql).await
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidemark"
    }

    async fn sleep(duration: std::time::Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &ClientError) -> Option<String> {
        Some(error.state.clone())
    }
}

/// Runs the script at `path` on a fresh server with `workers` workers. Returns one text per
/// failure.
pub async fn run(path: &Path, workers: usize, mode: Mode) -> Result<Vec<String>> {
    let records = parse_file::<DefaultColumnType>(path)
        .map_err(|e: ParseError| Error::internal(format!("{}: {e}", path.display())))?;
    let mut server = Server::start(workers)?;
    let last = Last::default();
    let mut runner = runner(server.sql_port(), &last);
    let mut script = Script {
        views: Views::default(),
        failures: Vec::new(),
        last: last.clone(),
    };
    let mut written = String::new();
    for record in records {
        if script.failures.len() >= FAILURES_MAX {
            script.failures.push("... and perhaps more".into());
            break;
        }
        if let Record::Comment(lines) = &record {
            for line in lines {
                if let Some((ending, workers)) = restart_of(line) {
                    script.check("before the restart").await;
                    server.restart(ending, workers)?;
                    runner = self::runner(server.sql_port(), &last);
                    script.views.disconnected();
                    reconnect(&server, &last).await?;
                    script.check("after the restart").await;
                } else {
                    script.command(line.trim()).await?;
                }
            }
        }
        let record = match mode {
            Mode::Check => {
                script.record(&mut runner, &record).await;
                record
            }
            Mode::Update => script.update(&mut runner, record).await,
        };
        written.push_str(&format!("{record}\n"));
    }
    script.check("at the end").await;
    if mode == Mode::Update && script.failures.len() < FAILURES_MAX {
        std::fs::write(path, format!("{}\n", written.trim_end()))?;
    }
    if server.get("/health").is_none() {
        script.failures.push(format!(
            "{}: the server has died; it logged:\n{}",
            path.display(),
            server.log_tail()
        ));
    }
    Ok(script.failures)
}

fn runner(
    port: u16,
    last: &Last,
) -> Runner<Speaker, impl sqllogictest::MakeConnection<Conn = Speaker>> {
    let last = last.clone();
    Runner::new(move || {
        let last = last.clone();
        async move {
            Ok(Speaker {
                session: Session::connect(port).await?,
                last,
            })
        }
    })
}

async fn reconnect(server: &Server, last: &Last) -> Result<()> {
    let session = Session::connect(server.sql_port())
        .await
        .map_err(|e| Error::internal(format!("after a restart: {e}")))?;
    if let Ok(mut last) = last.lock() {
        *last = Some(session);
    }
    Ok(())
}

struct Script {
    views: Views,
    failures: Vec<String>,
    last: Last,
}

impl Script {
    /// Runs a record and compares its answer.
    async fn record<M: sqllogictest::MakeConnection<Conn = Speaker>>(
        &mut self,
        runner: &mut Runner<Speaker, M>,
        record: &Record<DefaultColumnType>,
    ) {
        match runner.run_async(record.clone()).await {
            Ok(_) => self.succeeded(record).await,
            Err(e) => self.failures.push(e.to_string().trim_end().to_string()),
        }
    }

    /// Runs a record and takes over its answer where it differs.
    async fn update<M: sqllogictest::MakeConnection<Conn = Speaker>>(
        &mut self,
        runner: &mut Runner<Speaker, M>,
        record: Record<DefaultColumnType>,
    ) -> Record<DefaultColumnType> {
        let output = runner.apply_record(record.clone()).await;
        if as_expected(&record, &output) {
            if error_of(&output).is_none() {
                self.succeeded(&record).await;
            }
            return record;
        }
        let updated = update_record_with_output(
            &record,
            &output,
            " ",
            default_validator,
            default_normalizer,
            default_column_validator,
        )
        .unwrap_or(record);
        if error_of(&output).is_none() {
            self.succeeded(&updated).await;
        }
        updated
    }

    /// Commands that need no other server.
    async fn command(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["unchecked", name] => self.views.exclude(name),
            ["check"] => self.check("at # check").await,
            ["views", folder] => self.views_of(folder).await?,
            _ => {}
        }
        Ok(())
    }

    /// Creates a view per query file.
    async fn views_of(&mut self, folder: &str) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(folder);
        let mut files: Vec<_> = std::fs::read_dir(&folder)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "sql"))
            .collect();
        files.sort();
        let session = self.last.lock().ok().and_then(|last| last.clone());
        let session =
            session.ok_or_else(|| Error::internal("# views needs a statement before it"))?;
        for file in files {
            let name = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .to_string();
            let sql = format!(
                "CREATE MATERIALIZED VIEW {name} AS {}",
                std::fs::read_to_string(&file)?
            );
            match session.run(&sql).await {
                Ok(_) => {
                    self.views.observe(&sql);
                }
                Err(e) => self.failures.push(format!("{}: {e}", file.display())),
            }
        }
        self.check(&format!("after the views of {}", folder.display()))
            .await;
        Ok(())
    }

    async fn succeeded(&mut self, record: &Record<DefaultColumnType>) {
        if let Record::Statement {
            sql,
            expected: StatementExpect::Ok | StatementExpect::Count(_),
            loc,
            ..
        }
        | Record::Query {
            sql,
            expected: QueryExpect::Results { .. },
            loc,
            ..
        } = record
            && self.views.observe(sql)
        {
            self.check(&format!("after {loc}")).await;
        }
    }

    async fn check(&mut self, place: &str) {
        let session = self.last.lock().ok().and_then(|last| last.clone());
        let Some(session) = session else { return };
        for difference in self.views.check(&session).await {
            self.failures.push(format!("{place}: {difference}"));
        }
    }
}

/// `restart [asked] [workers=n]`.
fn restart_of(line: &str) -> Option<(Ending, Option<usize>)> {
    let mut words = line.split_whitespace();
    if words.next() != Some("restart") {
        return None;
    }
    let (mut ending, mut workers) = (Ending::Killed, None);
    for word in words {
        match word.strip_prefix("workers=") {
            Some(n) => workers = Some(n.parse().ok()?),
            None if word == "asked" => ending = Ending::Asked,
            None => return None,
        }
    }
    Some((ending, workers))
}

fn error_of(output: &RecordOutput<DefaultColumnType>) -> Option<String> {
    match output {
        RecordOutput::Statement { error, .. } | RecordOutput::Query { error, .. } => {
            error.as_ref().map(|e| e.to_string())
        }
        _ => None,
    }
}

/// Whether the output is an error that the record expects; `ClientError` begins with its SQLSTATE.
fn as_expected(
    record: &Record<DefaultColumnType>,
    output: &RecordOutput<DefaultColumnType>,
) -> bool {
    let expected = match record {
        Record::Statement {
            expected: StatementExpect::Error(e),
            ..
        }
        | Record::Query {
            expected: QueryExpect::Error(e),
            ..
        } => e,
        Record::Statement {
            expected: StatementExpect::Ok,
            ..
        } => return error_of(output).is_none(),
        _ => return false,
    };
    error_of(output).is_some_and(|e| expected.is_match(&e, e.get(..5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_read() {
        assert_eq!(restart_of(" restart"), Some((Ending::Killed, None)));
        assert_eq!(
            restart_of(" restart asked workers=3"),
            Some((Ending::Asked, Some(3)))
        );
        assert_eq!(restart_of(" restarting is not a command"), None);
        assert_eq!(restart_of(" restart is explained here"), None);
    }
}
