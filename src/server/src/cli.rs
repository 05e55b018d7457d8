//! The command line and where settings come from: flag, then `TIDEMARK_*` environment variable, then the file of `--config`, then the default.

use clap::{Args, Parser, Subcommand};
use tidemark_common::config::Config;
use tidemark_common::{Error, Result, SqlState};

/// A streaming SQL database.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, about = "Tidemark: a streaming SQL database that speaks PostgreSQL", args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node (what `tidemark` without a command does)
    Start(Start),
}

/// Settings of `tidemark start`.
#[derive(Clone, Debug, Default, Args)]
pub struct Start {
    /// Configuration file (TOML)
    #[arg(long, env = "TIDEMARK_CONFIG", value_name = "FILE")]
    config: Option<String>,
    /// Folder of the log, spilled state and, by default, checkpoints [default: ./tidemark-data]
    #[arg(long, env = "TIDEMARK_DATA_DIR", value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the PostgreSQL door [default: 127.0.0.1:4566]
    #[arg(long, env = "TIDEMARK_SQL", value_name = "ADDR")]
    sql: Option<String>,
    /// Address of HTTP: /metrics, /health, /ready [default: 127.0.0.1:4567]
    #[arg(long, env = "TIDEMARK_HTTP", value_name = "ADDR")]
    http: Option<String>,
    /// Address for other nodes [default: 127.0.0.1:4568]
    #[arg(long, env = "TIDEMARK_RPC", value_name = "ADDR")]
    rpc: Option<String>,
    /// Number of this node in a cluster
    #[arg(long, env = "TIDEMARK_NODE_ID", value_name = "N")]
    node_id: Option<u64>,
    /// RPC addresses of other nodes to join, separated by commas
    #[arg(long, env = "TIDEMARK_JOIN", value_name = "ADDR,...", value_delimiter = ',')]
    join: Vec<String>,
    /// Where checkpoints go: file:///... or s3://bucket/prefix [default: checkpoints in the data folder]
    #[arg(long, env = "TIDEMARK_CHECKPOINT_URL", value_name = "URL")]
    checkpoint_url: Option<String>,
    /// Worker threads [default: one per core]
    #[arg(long, env = "TIDEMARK_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Interval between barriers in milliseconds
    #[arg(long, env = "TIDEMARK_EPOCH_MS", value_name = "MS")]
    epoch_ms: Option<u64>,
    /// Interval between checkpoints in milliseconds
    #[arg(long, env = "TIDEMARK_CHECKPOINT_MS", value_name = "MS")]
    checkpoint_ms: Option<u64>,
    /// Rows of one change batch at most
    #[arg(long, env = "TIDEMARK_BATCH_ROWS_MAX", value_name = "N")]
    batch_rows_max: Option<usize>,
    /// Rows waiting between two workers before their sources pause
    #[arg(long, env = "TIDEMARK_EXCHANGE_ROWS_MAX", value_name = "N")]
    exchange_rows_max: Option<usize>,
}

impl Cli {
    /// The settings of the node to start.
    pub fn into_start(self) -> Start {
        match self.command {
            Some(Command::Start(start)) => start,
            None => self.start,
        }
    }
}

impl Start {
    /// Puts the sources of settings together and checks the result.
    pub fn into_config(self) -> Result<Config> {
        let mut config = match &self.config {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| Error::user(SqlState::INVALID_PARAMETER, format!("configuration file {file}: {e}")))?;
                Config::from_toml(&text).map_err(|e| e.context(format!("file {file}")))?
            }
            None => Config::default(),
        };
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut config.data_dir, self.data_dir);
        set(&mut config.sql, self.sql);
        set(&mut config.http, self.http);
        set(&mut config.rpc, self.rpc);
        set(&mut config.checkpoint_url, self.checkpoint_url);
        set(&mut config.workers, self.workers);
        set(&mut config.epoch_ms, self.epoch_ms);
        set(&mut config.checkpoint_ms, self.checkpoint_ms);
        set(&mut config.batch_rows_max, self.batch_rows_max);
        set(&mut config.exchange_rows_max, self.exchange_rows_max);
        if !self.join.is_empty() || self.node_id.is_some_and(|n| n > 0) {
            return Err(Error::unsupported("this build runs a single node: --join and --node-id above 0 are not supported yet"));
        }
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_default() {
        let start = Cli::try_parse_from(["tidemark", "start", "--sql", "127.0.0.1:1", "--workers", "3"]).unwrap().into_start();
        let config = start.into_config().unwrap();
        assert_eq!((config.sql.as_str(), config.workers, config.http.as_str()), ("127.0.0.1:1", 3, "127.0.0.1:4567"));
        let bad = Cli::try_parse_from(["tidemark", "--epoch-ms", "1"]).unwrap().into_start().into_config();
        assert_eq!(bad.unwrap_err().message(), "configuration: epoch_ms must be at least 5");
    }
}
