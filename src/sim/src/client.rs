//! A client as the tests see it: the simple protocol, every value as the server's text, NULL as
//! `NULL`, an empty string as `(empty)`, every error as `SQLSTATE: message`.

use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// An error with its SQLSTATE in front: `42P01: relation "t" does not exist`.
#[derive(Debug)]
pub struct ClientError {
    /// The SQLSTATE, `08006` for an error of the connection.
    pub state: String,
    /// The message.
    pub message: String,
    /// Detail and hint.
    pub more: String,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.state, self.message)
    }
}

impl std::error::Error for ClientError {}

impl From<tokio_postgres::Error> for ClientError {
    fn from(e: tokio_postgres::Error) -> ClientError {
        match e.as_db_error() {
            Some(db) => ClientError {
                state: db.code().code().into(),
                message: db.message().into(),
                more: [db.detail(), db.hint()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" "),
            },
            None => ClientError {
                state: "08006".into(),
                message: format!("{e:?}"),
                more: String::new(),
            },
        }
    }
}

/// Rows as text, or the number of rows that a command touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A result set; its last statement's when the text had several.
    Rows(Vec<Vec<String>>),
    /// A command's count, 0 where it has none.
    Count(u64),
}

/// One session.
#[derive(Clone)]
pub struct Session {
    client: Arc<Client>,
}

impl Session {
    /// Connects to database `dev` as `root`.
    pub async fn connect(port: u16) -> Result<Session, ClientError> {
        let text = format!("host=127.0.0.1 port={port} user=root dbname=dev connect_timeout=10");
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
        tokio::spawn(connection);
        Ok(Session {
            client: Arc::new(client),
        })
    }

    /// Runs a text of one or more statements.
    pub async fn run(&self, sql: &str) -> Result<Answer, ClientError> {
        let mut rows: Option<Vec<Vec<String>>> = None;
        let mut count = 0;
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(_) => rows = Some(Vec::new()),
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|i| text(row.get(i))).collect();
                    rows.get_or_insert_default().push(values);
                }
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        Ok(rows.map_or(Answer::Count(count), Answer::Rows))
    }

    /// Runs a query. A command that gives no result set counts as an empty one.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, ClientError> {
        match self.run(sql).await? {
            Answer::Rows(rows) => Ok(rows),
            Answer::Count(_) => Ok(Vec::new()),
        }
    }
}

fn text(value: Option<&str>) -> String {
    match value {
        None => "NULL".into(),
        Some("") => "(empty)".into(),
        Some(text) => text.into(),
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = ClientError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, ClientError> {
        Ok(match Session::run(self, sql).await? {
            Answer::Rows(rows) => DBOutput::Rows {
                types: vec![DefaultColumnType::Text; rows.first().map_or(0, Vec::len)],
                rows,
            },
            Answer::Count(count) => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidemark"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &ClientError) -> Option<String> {
        Some(error.state.clone())
    }
}
