//! The command line and where settings come from: flag, then `TIDEMARK_*` environment variable,
//! then the file of `--config`, then the default. `backup` and `restore` need no server and no
//! configuration: only where to copy from and where to.

use clap::{Args, Parser, Subcommand};
use tidemark_common::config::{Compression, Config};
use tidemark_common::{Error, Result, SqlState};

/// What `--help` ends with.
const SETTINGS: &str = "A flag goes before the environment, the environment before the file, the \
                        file before the default.\n\
                        TIDEMARK_LOG filters the log on stderr (info, debug, \
                        tidemark_node=debug), TIDEMARK_LOG_FORMAT=json makes it structured.\n\
                        SIGTERM and Ctrl-C take a last checkpoint and leave. Connect: psql -h \
                        127.0.0.1 -p 4566 -d dev -U root";

/// What `backup --help` ends with.
const BACKUP: &str = "It reads the checkpoint store alone: the cluster may run, on however many \
                      nodes, or be dead.\n\
                      What is in no checkpoint yet is not in the backup: say FLUSH before, if all \
                      that was acknowledged has to be.\n\
                      What the target has of an earlier backup is not copied again; only the \
                      newest backup is kept there.\n\
                      A backup that is cut off leaves the one before as it was.\n\
                      For s3://, the AWS_* variables say the rest, of both places alike.\n\
                      Keep the secret key beside it: secret.key of the data folder, or the file of \
                      --secret-key-file.";

/// What `restore --help` ends with.
const RESTORE: &str = "The place must be empty; a restore that was cut off goes on with the same \
                       command. Start then with an empty data folder:\n  \
                       tidemark start --data-dir EMPTY --checkpoint-url URL \
                       --recover-from-checkpoint\n\
                       It is the same database, with the same id: do not let it run beside the one \
                       that the backup was made of.\n\
                       For s3://, the AWS_* variables say the rest, of both places alike.";

/// Tidemark: a streaming SQL database that speaks PostgreSQL
#[derive(Debug, Parser)]
#[command(
    name = "tidemark",
    version,
    args_conflicts_with_subcommands = true,
    after_help = SETTINGS
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Start,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node (what `tidemark` without a command does)
    #[command(after_help = SETTINGS)]
    Start(Box<Start>),
    /// Copy the newest checkpoint of a cluster to another place, while it runs
    #[command(after_help = BACKUP)]
    Backup(Backup),
    /// Copy a backup to an empty place, from where a cluster goes on with it
    #[command(after_help = RESTORE)]
    Restore(Restore),
}

/// Settings of `tidemark backup`.
#[derive(Clone, Debug, Args)]
pub struct Backup {
    /// Where the backup goes: file:///... or s3://bucket/prefix, a place of its own for each
    /// cluster
    #[arg(value_name = "TARGET_URL")]
    pub target: String,
    /// Where the cluster's checkpoints are
    #[arg(long, env = "TIDEMARK_CHECKPOINT_URL", value_name = "URL")]
    pub checkpoint_url: String,
}

/// Settings of `tidemark restore`.
#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// Where the backup is: the TARGET_URL of `tidemark backup`
    #[arg(value_name = "BACKUP_URL")]
    pub backup: String,
    /// The place to copy it to, where nothing is yet: file:///... or s3://bucket/prefix
    #[arg(long, env = "TIDEMARK_CHECKPOINT_URL", value_name = "URL")]
    pub checkpoint_url: String,
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
    /// Number of this node in its cluster, 1 and above [default: 1]
    #[arg(long, env = "TIDEMARK_NODE_ID", value_name = "N")]
    node_id: Option<u64>,
    /// RPC addresses of the cluster's nodes, separated by commas; without, this node is alone
    /// [default: none]
    #[arg(
        long,
        env = "TIDEMARK_JOIN",
        value_name = "ADDR,...",
        value_delimiter = ','
    )]
    join: Vec<String>,
    /// Where other nodes reach this one [default: that of rpc]
    #[arg(long, env = "TIDEMARK_RPC_ADVERTISE", value_name = "ADDR")]
    rpc_advertise: Option<String>,
    /// How rows go from node to node: none, as they are, or lz4, compressed [default: none]
    #[arg(long, env = "TIDEMARK_RPC_COMPRESSION", value_name = "HOW")]
    rpc_compression: Option<Compression>,
    /// File with the secret that the nodes of a cluster share; TIDEMARK_CLUSTER_SECRET, the secret
    /// itself, goes before it [default: none]
    #[arg(long, env = "TIDEMARK_CLUSTER_SECRET_FILE", value_name = "FILE")]
    cluster_secret_file: Option<String>,
    /// Where checkpoints go: file:///... or s3://bucket/prefix [default: checkpoints in the data
    /// folder]
    #[arg(long, env = "TIDEMARK_CHECKPOINT_URL", value_name = "URL")]
    checkpoint_url: Option<String>,
    /// Go on from the last checkpoint although the log is gone; what was written to tables after it
    /// is lost [default: false]
    #[arg(
        long,
        env = "TIDEMARK_RECOVER_FROM_CHECKPOINT",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    recover_from_checkpoint: Option<bool>,
    /// Certificate chain of SQL and HTTP, a PEM file; read again on SIGHUP [default: none]
    #[arg(long, env = "TIDEMARK_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's key, a PEM file [default: none]
    #[arg(long, env = "TIDEMARK_TLS_KEY", value_name = "FILE")]
    tls_key: Option<String>,
    /// Certificates that sign those of clients, a PEM file: others are refused [default: none]
    #[arg(long, env = "TIDEMARK_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// File with the key that seals secrets; TIDEMARK_SECRET_KEY, the key itself, goes first
    /// [default: secret.key in the data folder]
    #[arg(long, env = "TIDEMARK_SECRET_KEY_FILE", value_name = "FILE")]
    secret_key_file: Option<String>,
    /// Listen where others reach it without users or TLS [default: false]
    #[arg(
        long,
        env = "TIDEMARK_INSECURE",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    insecure: Option<bool>,
    /// Make a password for root, if it has none, and show it once
    #[arg(long)]
    first_password: bool,
    /// Clients of the SQL door at a time [default: 1000]
    #[arg(long, env = "TIDEMARK_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<usize>,
    /// Memory that the process may hold: 8GB, 512MB, 80% [default: 80%]
    #[arg(long, env = "TIDEMARK_MEMORY_LIMIT", value_name = "AMOUNT")]
    memory_limit: Option<String>,
    /// Memory that all queries have together: 512MB, or a percentage of the limit [default: 25%]
    #[arg(long, env = "TIDEMARK_QUERY_MEMORY", value_name = "AMOUNT")]
    query_memory: Option<String>,
    /// Memory for what all sources fetch ahead: 256MB, or a percentage of the limit [default: 10%]
    #[arg(long, env = "TIDEMARK_FETCH_MEMORY", value_name = "AMOUNT")]
    fetch_memory: Option<String>,
    /// Worker threads [default: one per core]
    #[arg(long, env = "TIDEMARK_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Interval between barriers in milliseconds [default: 50]
    #[arg(long, env = "TIDEMARK_EPOCH_MS", value_name = "MS")]
    epoch_ms: Option<u64>,
    /// Interval between checkpoints in milliseconds [default: 1000]
    #[arg(long, env = "TIDEMARK_CHECKPOINT_MS", value_name = "MS")]
    checkpoint_ms: Option<u64>,
    /// How long an epoch is kept for a reader, in milliseconds; 0: for ever [default: 3600000]
    #[arg(long, env = "TIDEMARK_SNAPSHOT_AGE_MAX_MS", value_name = "MS")]
    snapshot_age_max_ms: Option<u64>,
    /// Rows of one change batch at most [default: 4096]
    #[arg(long, env = "TIDEMARK_BATCH_ROWS_MAX", value_name = "N")]
    batch_rows_max: Option<usize>,
    /// Bytes between two actors before the sender waits [default: 4194304]
    #[arg(long, env = "TIDEMARK_EDGE_BYTES_MAX", value_name = "BYTES")]
    edge_bytes_max: Option<usize>,
    /// How often sources are asked for new partitions and for compaction, in milliseconds
    /// [default: 30000]
    #[arg(long, env = "TIDEMARK_DISCOVERY_MS", value_name = "MS")]
    discovery_ms: Option<u64>,
}

impl Cli {
    /// What is to be done; without a word, to start a node.
    pub fn into_command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Start(Box::new(self.start)))
    }
}

impl Start {
    /// Whether `root` is to get a password.
    pub fn makes_first_password(&self) -> bool {
        self.first_password
    }

    /// Puts the sources of settings together and checks the result.
    pub fn into_config(self) -> Result<Config> {
        let mut config = match &self.config {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    Error::user(
                        SqlState::INVALID_PARAMETER,
                        format!("configuration file {file}: {e}"),
                    )
                })?;
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
        set(
            &mut config.recover_from_checkpoint,
            self.recover_from_checkpoint,
        );
        set(&mut config.tls_cert, self.tls_cert);
        set(&mut config.tls_key, self.tls_key);
        set(&mut config.tls_client_ca, self.tls_client_ca);
        set(&mut config.secret_key_file, self.secret_key_file);
        set(&mut config.insecure, self.insecure);
        set(&mut config.max_connections, self.max_connections);
        set(&mut config.memory_limit, self.memory_limit);
        set(&mut config.query_memory, self.query_memory);
        set(&mut config.fetch_memory, self.fetch_memory);
        set(&mut config.workers, self.workers);
        set(&mut config.epoch_ms, self.epoch_ms);
        set(&mut config.checkpoint_ms, self.checkpoint_ms);
        set(&mut config.snapshot_age_max_ms, self.snapshot_age_max_ms);
        set(&mut config.batch_rows_max, self.batch_rows_max);
        set(&mut config.edge_bytes_max, self.edge_bytes_max);
        set(&mut config.discovery_ms, self.discovery_ms);
        set(&mut config.node_id, self.node_id);
        set(&mut config.join, Some(self.join).filter(|j| !j.is_empty()));
        set(&mut config.rpc_advertise, self.rpc_advertise);
        set(&mut config.rpc_compression, self.rpc_compression);
        set(&mut config.cluster_secret_file, self.cluster_secret_file);
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration of the node that these words start.
    fn config_of(words: &[&str]) -> Result<Config> {
        let words = ["tidemark"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().into_command() {
            Command::Start(start) => start.into_config(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_go_before_the_default() {
        let config = config_of(&["start", "--sql", "127.0.0.1:1", "--workers", "3"]).unwrap();
        assert_eq!(
            (config.sql.as_str(), config.workers, config.http.as_str()),
            ("127.0.0.1:1", 3, "127.0.0.1:4567")
        );
        assert!(!config.recover_from_checkpoint);
        let bare = config_of(&["--recover-from-checkpoint", "--workers", "3"]);
        assert!(bare.unwrap().recover_from_checkpoint);
        let bad = config_of(&["--epoch-ms", "1"]);
        assert_eq!(
            bad.unwrap_err().message(),
            "configuration: epoch_ms must be at least 5"
        );
    }

    /// Flag before environment, environment before file, file before default. The environment is
    /// this process's own, so it is asked in a process of its own.
    #[test]
    fn settings_take_precedence_in_order() {
        let set = "TIDEMARK_PRECEDENCE_TEST";
        if std::env::var_os(set).is_none() {
            let again = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "cli::tests::settings_take_precedence_in_order"])
                .envs([
                    (set, "1"),
                    ("TIDEMARK_EPOCH_MS", "30"),
                    ("TIDEMARK_CHECKPOINT_MS", "300"),
                ])
                .output()
                .unwrap();
            assert!(
                again.status.success(),
                "{}",
                String::from_utf8_lossy(&again.stdout)
            );
            return;
        }
        let file =
            std::env::temp_dir().join(format!("tidemark-precedence-{}.toml", std::process::id()));
        std::fs::write(
            &file,
            "epoch_ms = 20\ncheckpoint_ms = 200\nbatch_rows_max = 2\n",
        )
        .unwrap();
        let config = config_of(&["--config", file.to_str().unwrap(), "--epoch-ms", "40"]);
        std::fs::remove_file(&file).unwrap();
        let config = config.unwrap();
        assert_eq!(
            (
                config.epoch_ms,
                config.checkpoint_ms,
                config.batch_rows_max,
                config.edge_bytes_max
            ),
            (40, 300, 2, Config::default().edge_bytes_max)
        );
    }

    #[test]
    fn copies_name_two_places() {
        let (target, live) = ("s3://bucket/backup", "file:///var/lib/tidemark/checkpoints");
        for word in ["backup", "restore"] {
            let words = ["tidemark", word, target, "--checkpoint-url", live];
            let places = match Cli::try_parse_from(words).unwrap().into_command() {
                Command::Backup(backup) => (backup.target, backup.checkpoint_url),
                Command::Restore(restore) => (restore.backup, restore.checkpoint_url),
                other => panic!("{other:?}"),
            };
            assert_eq!(places, (target.to_string(), live.to_string()));
            assert!(Cli::try_parse_from(["tidemark", word, "--checkpoint-url", live]).is_err());
        }
    }

    /// The defaults that `--help` tells are the defaults.
    #[test]
    fn help_tells_the_defaults() {
        use clap::CommandFactory;
        let help = Cli::command().render_long_help().to_string();
        let default = serde_json::to_value(Config::default()).unwrap();
        for (key, value) in default.as_object().unwrap() {
            let flag = format!("--{} ", key.replace('_', "-"));
            let line = help
                .split(&flag)
                .nth(1)
                .and_then(|rest| rest.split("--").next())
                .unwrap_or_else(|| panic!("{flag} is not in the help"));
            let told = match (key.as_str(), value) {
                ("checkpoint_url", _) => "checkpoints in the data folder".to_string(),
                ("tls_cert" | "tls_key" | "tls_client_ca", _) => "none".to_string(),
                ("join" | "cluster_secret_file", _) => "none".to_string(),
                ("rpc_advertise", _) => "that of rpc".to_string(),
                ("secret_key_file", _) => "secret.key in the data folder".to_string(),
                ("workers", _) => "one per core".to_string(),
                (_, serde_json::Value::String(text)) => text.clone(),
                (_, other) => other.to_string(),
            };
            assert!(
                line.contains(&format!("[default: {told}]")),
                "{flag}: {told} is not in {line}"
            );
        }
    }
}
