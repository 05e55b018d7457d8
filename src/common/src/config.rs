//! The node's configuration. Precedence: command-line flag, then `TIDEMARK_*` environment variable,
//! then file, then the default here. `config/default.toml` shows every setting with its default and
//! a comment; a test holds it to this file.

use crate::{Error, Result, SqlState};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How rows go from node to node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Compressed by LZ4, where that makes them smaller.
    Lz4,
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(name: &str) -> Result<Compression> {
        match name {
            "none" => Ok(Compression::None),
            "lz4" => Ok(Compression::Lz4),
            _ => Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("rpc_compression is none or lz4, not \"{name}\""),
            )),
        }
    }
}

/// Everything that can be set for a node. Field names are the keys of the TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of the log, spilled state and, by default, checkpoints.
    pub data_dir: String,
    /// Address of the PostgreSQL door.
    pub sql: String,
    /// Address of HTTP: `/metrics`, `/health`, `/ready`.
    pub http: String,
    /// Address for other nodes.
    pub rpc: String,
    /// Number of this node in its cluster, 1 and above.
    pub node_id: u64,
    /// Addresses for nodes of the cluster's nodes; empty: this node is alone.
    pub join: Vec<String>,
    /// Where other nodes reach this one, if that is not `rpc`.
    pub rpc_advertise: String,
    /// How rows go from node to node; what the node that leads says holds for all.
    pub rpc_compression: Compression,
    /// File with the secret that the nodes of a cluster share; empty: none, which only nodes on one
    /// machine may do. `TIDEMARK_CLUSTER_SECRET`, the secret itself, goes first.
    pub cluster_secret_file: String,
    /// Where checkpoints go: `file:///...` or `s3://bucket/prefix`; empty means `checkpoints` in
    /// the data folder.
    pub checkpoint_url: String,
    /// Goes on from the last checkpoint when the log is gone (a lost data folder, a new machine).
    /// What was written to tables after that checkpoint is lost. Without a word from the user a
    /// node whose log is missing does not start.
    pub recover_from_checkpoint: bool,
    /// Certificate chain of SQL and HTTP, a file in PEM form; empty: no TLS.
    pub tls_cert: String,
    /// The certificate's key, a file in PEM form.
    pub tls_key: String,
    /// Certificates that sign those of clients, a file in PEM form: a client without one is
    /// refused. Empty: clients need none.
    pub tls_client_ca: String,
    /// File with the key that seals secrets; empty: `secret.key` in the data folder, made when it
    /// is first needed. The environment variable `TIDEMARK_SECRET_KEY`, the key itself, goes first.
    pub secret_key_file: String,
    /// Listens where others reach it without users or TLS; roles without password come in from
    /// everywhere.
    pub insecure: bool,
    /// Clients of the SQL door at a time; more are sent away.
    pub max_connections: usize,
    /// Memory that the process may hold, as an amount ("8GB") or a percentage of the machine's.
    pub memory_limit: String,
    /// Memory that all queries have together, as an amount ("2GB") or a percentage of
    /// `memory_limit`. One query has half of it at most, unless a superuser's session says so.
    pub query_memory: String,
    /// Memory that all sources have together for what they fetch ahead, as an amount ("256MB") or
    /// a percentage of `memory_limit`.
    pub fetch_memory: String,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// Interval between barriers at most, in milliseconds, while sources read and no write asks for
    /// an earlier one. At least 5.
    pub epoch_ms: u64,
    /// Interval between checkpoints, in milliseconds.
    pub checkpoint_ms: u64,
    /// How long an epoch is kept for a reader (a transaction block, a cursor, a query whose client
    /// reads slowly), in milliseconds; then it gets an error. 0 means for ever.
    pub snapshot_age_max_ms: u64,
    /// Rows of one change batch at most.
    pub batch_rows_max: usize,
    /// Bytes on their way from one actor to another before the sender waits for the receiver.
    pub edge_bytes_max: usize,
    /// How often running sources are asked for new partitions and whether their topic is compacted
    /// by now, in milliseconds.
    pub discovery_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: "./tidemark-data".into(),
            sql: "127.0.0.1:4566".into(),
            http: "127.0.0.1:4567".into(),
            rpc: "127.0.0.1:4568".into(),
            node_id: 1,
            join: Vec::new(),
            rpc_advertise: String::new(),
            rpc_compression: Compression::None,
            cluster_secret_file: String::new(),
            checkpoint_url: String::new(),
            recover_from_checkpoint: false,
            tls_cert: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            secret_key_file: String::new(),
            insecure: false,
            max_connections: 1000,
            memory_limit: "80%".into(),
            query_memory: "25%".into(),
            fetch_memory: "10%".into(),
            workers: 0,
            epoch_ms: 50,
            checkpoint_ms: 1000,
            snapshot_age_max_ms: 3_600_000,
            batch_rows_max: 4096,
            edge_bytes_max: 4 << 20,
            discovery_ms: 30_000,
        }
    }
}

impl Config {
    /// Reads a TOML text; unknown keys and wrong types are errors that name the line.
    pub fn from_toml(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let line = 1 + e.span().map_or(0, |span| {
                text.bytes()
                    .take(span.start)
                    .filter(|b| *b == b'\n')
                    .count()
            });
            let content = text.lines().nth(line - 1).unwrap_or_default().trim();
            Error::user(
                SqlState::INVALID_PARAMETER,
                format!("configuration: line {line} ({content}): {}", e.message()),
            )
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |what: &str| {
            Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("configuration: {what}"),
            ))
        };
        let mut addresses = vec![("sql", &self.sql), ("http", &self.http), ("rpc", &self.rpc)];
        if !self.rpc_advertise.is_empty() {
            addresses.push(("rpc_advertise", &self.rpc_advertise));
        }
        addresses.extend(self.join.iter().map(|address| ("join", address)));
        for (key, address) in addresses {
            if !address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            {
                return bad(&format!(
                    "{key} must be an address like 127.0.0.1:4566, not \"{address}\""
                ));
            }
        }
        if self.node_id == 0 {
            return bad("node_id must be at least 1");
        }
        if !self.join.is_empty() && self.checkpoint_url.is_empty() {
            return bad(
                "join asks for checkpoint_url: a checkpoint store that all nodes of the cluster \
                 reach",
            );
        }
        if self.tls_cert.is_empty() != self.tls_key.is_empty() {
            return bad("tls_cert and tls_key go together");
        }
        if self.tls_cert.is_empty() && !self.tls_client_ca.is_empty() {
            return bad("tls_client_ca asks for tls_cert and tls_key");
        }
        if self.epoch_ms < 5 {
            return bad("epoch_ms must be at least 5");
        }
        if self.max_connections == 0 || self.max_connections > 1 << 20 {
            return bad("max_connections must be between 1 and 1048576");
        }
        self.memory_limit_bytes()?;
        self.query_memory_bytes()?;
        self.fetch_memory_bytes()?;
        if self.workers > crate::VNODES {
            return bad("workers must be at most 256");
        }
        if self.discovery_ms == 0 {
            return bad("discovery_ms must be positive");
        }
        if self.checkpoint_ms == 0 || self.batch_rows_max == 0 || self.edge_bytes_max == 0 {
            return bad("checkpoint_ms, batch_rows_max and edge_bytes_max must be positive");
        }
        Ok(())
    }

    /// Where other nodes reach this one.
    pub fn rpc_address(&self) -> &str {
        match self.rpc_advertise.as_str() {
            "" => &self.rpc,
            address => address,
        }
    }

    /// `memory_limit` in bytes.
    pub fn memory_limit_bytes(&self) -> Result<u64> {
        let machine = crate::memory::machine_bytes();
        crate::memory::check_amount("memory_limit", &self.memory_limit, machine)
    }

    /// `query_memory` in bytes: no more than the process may hold.
    pub fn query_memory_bytes(&self) -> Result<u64> {
        let limit = self.memory_limit_bytes()?;
        let bytes = crate::memory::check_amount("query_memory", &self.query_memory, limit)?;
        Ok(bytes.min(limit))
    }

    /// `fetch_memory` in bytes.
    pub fn fetch_memory_bytes(&self) -> Result<u64> {
        let limit = self.memory_limit_bytes()?;
        crate::memory::check_amount("fetch_memory", &self.fetch_memory, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line_and_the_setting() {
        let message = |text: &str| Config::from_toml(text).unwrap_err().message().to_string();
        assert_eq!(
            message("# a comment\n\nepoch_ms = \"x\"\n"),
            "configuration: line 3 (epoch_ms = \"x\"): invalid type: string \"x\", expected u64"
        );
        assert!(
            message("workers = 1\nbogus = 1\n")
                .starts_with("configuration: line 2 (bogus = 1): unknown field `bogus`")
        );
        assert_eq!(
            message("rpc = \"4568\"\n"),
            "configuration: rpc must be an address like 127.0.0.1:4566, not \"4568\""
        );
        assert_eq!(
            message("epoch_ms = 4\n"),
            "configuration: epoch_ms must be at least 5"
        );
        assert_eq!(
            message("query_memory = \"much\"\n"),
            "configuration: query_memory must be an amount of memory like 2GB, 512MB or 25%, not \
             \"much\""
        );
    }
}
